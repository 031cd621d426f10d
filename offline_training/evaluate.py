"""Scores on animals that training never saw: one fold at a time, so that a long evaluation can stop and go on.

Every fold pretrains its own encoder on its training animals, fits the readouts on them too, and writes the top-1
prediction of every labelled unit of the held-out animals after 10, 60, 300 s and the whole recording to
fold_<animals>_seed<k>.json. Training-free baselines go to fold_<animals>_baseline.json. `combine` pools them.
Shapes: U units, C classes.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

from nuclr_stream.binning import Int64Array, WindowSpec
from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.recording import Recording
from offline_training.baselines.pooled import Pooled
from offline_training.baselines.single_unit import isi_steps, rate_steps, statistics_steps
from offline_training.config import UNLABELLED, TaskSettings, TrainConfig
from offline_training.embed import embed_recording, through_torch
from offline_training.encoder import Encoder
from offline_training.examples import UnitFeatures, examples
from offline_training.labels import class_subjects, task_labels
from offline_training.pretrain import load_run, pretrain
from offline_training.readout import Readout, fit_readout
from offline_training.scores import NO_PREDICTION
from offline_training.splits import Fold, Split

SECONDS: tuple[float | None, ...] = (10.0, 60.0, 300.0, None)
"""Times observed at which predictions are kept; None: the whole recording."""

INDUCTIVE = "inductive zero-shot"
TRANSDUCTIVE = "transductive zero-shot"

FeatureSets = dict[str, list[UnitFeatures]]


class EvaluationError(NuclrStreamError):
    """Results do not fit together, or a claim that they do not support was asked for."""


def run_fold(
    config: TrainConfig,
    recordings: Sequence[Recording],
    fold: Fold,
    *,
    seed: int,
    out_dir: Path,
    runs_dir: Path,
    hop_s: float | None = None,
    split: Split,
) -> Path:
    """Pretrain, fit and test one fold with one seed; returns its result file, at once when it is there already.

    The encoder's run is kept in runs_dir/fold_<animals>_seed<k> and resumed when it was interrupted. `hop_s` is the
    step between windows of the evaluation, that of the config if not given. Raises EvaluationError when what is there
    comes from other settings or recordings.
    """
    config = config.with_training(seed=seed)
    path = out_dir / f"fold_{fold.name}_seed{seed}.json"
    spec = window_spec(config, hop_s)
    fingerprint = fingerprint_of(config, recordings, spec)
    if path.is_file():
        return checked(path, fingerprint)
    run_dir = runs_dir / f"fold_{fold.name}_seed{seed}"
    _pretrain_once(config, fold.training(recordings), run_dir)
    encoder, _, info = load_run(run_dir)
    sets = encoder_features(encoder, config, recordings, spec)
    facts = fold_facts(config, recordings, fold, spec=spec, split=split) | {
        "setting": setting_of(info["subjects"], fold.held_out),
        "seed": seed,
        "fingerprint": fingerprint,
        "encoder": encoder_facts(info),
    }
    return write_result(path, facts | {"tasks": _test(config, recordings, fold, sets)})


def run_baselines(
    config: TrainConfig, recordings: Sequence[Recording], fold: Fold, *, out_dir: Path, split: Split
) -> Path:
    """Fit and test the training-free features of one fold; returns the result file, at once when it is there already.

    They have no seed, and steps of a whole window.
    """
    path = out_dir / f"fold_{fold.name}_baseline.json"
    spec = window_spec(config, config.window.spec.window_s)
    fingerprint = fingerprint_of(config.with_training(seed=0), recordings, spec)
    if path.is_file():
        return checked(path, fingerprint)
    facts = fold_facts(config, recordings, fold, spec=spec, split=split)
    facts |= {"setting": INDUCTIVE, "seed": None, "fingerprint": fingerprint, "encoder": None}
    return write_result(path, facts | {"tasks": _test(config, recordings, fold, baseline_features(recordings, spec))})


def run_with_encoder(
    run_dir: Path,
    recordings: Sequence[Recording],
    fold: Fold,
    *,
    out_dir: Path,
    hop_s: float | None = None,
    split: Split,
    claim: str | None = None,
) -> Path:
    """Test a ready run: only the readouts are fitted anew, on the animals that are not held out.

    Where the encoder saw the activity of a held-out animal, the setting is "transductive zero-shot", and a `claim` of
    anything else raises EvaluationError.
    """
    encoder, config, info = load_run(run_dir)
    setting = setting_of(info["subjects"], fold.held_out)
    if claim is not None and not setting.startswith(claim):
        raise EvaluationError(
            f"claim {claim!r}: the encoder of {run_dir.name} saw the activity of {', '.join(fold.held_out)}, so its "
            f"scores are {setting!r}; evaluate with the config instead, which pretrains anew for every fold"
        )
    spec = window_spec(config, hop_s)
    facts = fold_facts(config, recordings, fold, spec=spec, split=split) | {
        "setting": setting,
        "seed": config.training.seed,
        "fingerprint": fingerprint_of(config, recordings, spec),
        "encoder": encoder_facts(info),
    }
    sets = encoder_features(encoder, config, recordings, spec)
    path = out_dir / f"fold_{fold.name}_seed{config.training.seed}.json"
    return write_result(path, facts | {"tasks": _test(config, recordings, fold, sets)})


def setting_of(encoder_subjects: Sequence[str], held_out: Sequence[str]) -> str:
    """What scores on `held_out` animals may be called, given whose activity the encoder was trained on."""
    return TRANSDUCTIVE if set(encoder_subjects) & set(held_out) else INDUCTIVE


def encoder_features(
    encoder: Encoder, config: TrainConfig, recordings: Sequence[Recording], spec: WindowSpec
) -> FeatureSets:
    """Embeddings of every recording, and the same pooled over each unit's company."""
    encode = through_torch(encoder)
    embedded = [embed_recording(encode, recording, spec, config.rules.rules) for recording in recordings]
    return {"embedding": list(embedded), "embedding_pooled": _pooled(embedded, recordings)}


def baseline_features(recordings: Sequence[Recording], spec: WindowSpec) -> FeatureSets:
    """Mean rate, ISI histogram, spike statistics (both together); the last two pooled over each unit's company too."""
    isi = [isi_steps(recording, spec) for recording in recordings]
    rate = [rate_steps(recording, spec) for recording in recordings]
    statistics = [statistics_steps(*pair) for pair in zip(isi, rate, strict=True)]
    return {
        "rate": list(rate),
        "isi": list(isi),
        "isi_pooled": _pooled(isi, recordings),
        "statistics": list(statistics),
        "statistics_pooled": _pooled(statistics, recordings),
    }


def _pooled(features: Sequence[UnitFeatures], recordings: Sequence[Recording]) -> list[UnitFeatures]:
    return [Pooled.of(source, recording) for source, recording in zip(features, recordings, strict=True)]


def predictions(
    readout: Readout, features: Sequence[UnitFeatures], labels: Sequence[Int64Array], seconds: float | None
) -> dict[str, list[Any]]:
    """Top-1 class, its probability, evidence n and abstention of every labelled unit after so many seconds.

    The units of all recordings follow one another. A unit that no window shows has prediction NO_PREDICTION.
    """
    top, probability, evidence, abstained = [], [], [], []
    for source, label in zip(features, labels, strict=True):
        last = len(source.end_s) if seconds is None else int(np.searchsorted(source.end_s, seconds, side="right"))
        scored = label != UNLABELLED
        if not last:
            top += [NO_PREDICTION] * int(scored.sum())
            probability += [0.0] * int(scored.sum())
            evidence += [0.0] * int(scored.sum())
            abstained += [1] * int(scored.sum())
            continue
        values, n = source.between(0, last)
        p = readout.probabilities(values[scored], n[scored])
        top += np.where(n[scored] > 0, p.argmax(axis=1), NO_PREDICTION).tolist()
        probability += [round(float(v), 4) for v in p.max(axis=1)]
        evidence += [round(float(v), 1) for v in n[scored]]
        abstained += readout.calibration.abstains(p, n[scored]).astype(int).tolist()
    return {"prediction": top, "probability": probability, "n": evidence, "abstained": abstained}


def _test(
    config: TrainConfig, recordings: Sequence[Recording], fold: Fold, sets: Mapping[str, list[UnitFeatures]]
) -> dict[str, Any]:
    held_out = np.array([recording.subject_id in fold.held_out for recording in recordings])
    results: dict[str, Any] = {}
    for task, settings in config.tasks.items():
        labels = task_labels(task, settings, recordings)
        test_labels = [label for label, test in zip(labels, held_out, strict=True) if test]
        results[task] = task_facts(settings, recordings, labels, held_out)
        for name, features in sets.items():
            train = [i for i in range(len(recordings)) if not held_out[i]]
            readout = fit_readout(examples([features[i] for i in train], [labels[i] for i in train]), settings.names)
            test = [source for source, chosen in zip(features, held_out, strict=True) if chosen]
            results[task]["features"][name] = feature_result(readout, test, test_labels)
    return results


def task_facts(
    settings: TaskSettings, recordings: Sequence[Recording], labels: Sequence[Int64Array], held_out: np.ndarray
) -> dict[str, Any]:
    """What a result file says of a task before any prediction: its classes, and the labels of the units tested."""
    test_labels = [label for label, test in zip(labels, held_out, strict=True) if test]
    return {
        "classes": list(settings.names),
        "class_subjects": class_subjects(labels, [r.subject_id for r in recordings], settings.names),
        "recordings": unit_blocks(recordings, labels, held_out),
        "label": [int(v) for label in test_labels for v in label[label != UNLABELLED]],
        "features": {},
    }


def feature_result(readout: Readout, test: Sequence[UnitFeatures], test_labels: Sequence[Int64Array]) -> dict[str, Any]:
    """What a result file says of one feature set: its readout, and the predictions at every time of SECONDS."""
    return {
        "c": readout.c,
        "out_of_fold_f1": round(readout.out_of_fold_f1, 4),
        "calibration": asdict(readout.calibration),
        "calibrated_on": readout.calibrated_on,
        "seconds": {time_name(s): predictions(readout, test, test_labels, s) for s in SECONDS},
    }


def encoder_facts(info: Mapping[str, Any]) -> dict[str, Any]:
    """What results say of an encoder: its size and how it was trained, from run.json."""
    return {key: info[key] for key in ("parameters", "step", "machine", "precision", "windows", "seconds")}


def library_versions() -> dict[str, str]:
    """Versions of what computes scores."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "torch": torch.__version__.split("+")[0],
    }


def time_name(seconds: float | None) -> str:
    """How a time observed is written in results: "10", "60", "300" or "all"."""
    return "all" if seconds is None else f"{seconds:g}"


def unit_blocks(
    recordings: Sequence[Recording], labels: Sequence[Int64Array], held_out: np.ndarray
) -> list[dict[str, Any]]:
    """Which recording the scored units come from, block by block, in the order of all lists of a task."""
    return [
        {
            "recording_id": recording.recording_id,
            "subject_id": recording.subject_id,
            "units": int((label != UNLABELLED).sum()),
        }
        for recording, label, test in zip(recordings, labels, held_out, strict=True)
        if test
    ]


def window_spec(config: TrainConfig, hop_s: float | None) -> WindowSpec:
    """The window of the config, with another hop where one is given."""
    spec = config.window.spec
    return spec if hop_s is None else spec.with_hop_s(hop_s)


def _pretrain_once(config: TrainConfig, recordings: Sequence[Recording], run_dir: Path) -> None:
    begun = (run_dir / "checkpoint.pt").is_file()
    if begun:
        _, stored, info = load_run(run_dir)
        if stored != config or info["recordings"] != [recording.recording_id for recording in recordings]:
            raise EvaluationError(
                f"{run_dir}: trained with other settings or recordings; remove it or name another place"
            )
        if info["finished"]:
            return
    pretrain(config, recordings, run_dir, resume=begun, title=run_dir.name)
    if not load_run(run_dir)[2]["finished"]:
        raise EvaluationError(f"{run_dir}: the training was interrupted; the same command goes on with it")


def fingerprint_of(config: TrainConfig, recordings: Sequence[Recording], spec: WindowSpec) -> str:
    """What a result depends on, as 16 hexadecimal digits: settings, recordings, hop."""
    content = [
        config.model_dump(mode="json", exclude_none=True),
        [recording.recording_id for recording in recordings],
        spec.hop_bins,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def fold_facts(
    config: TrainConfig, recordings: Sequence[Recording], fold: Fold, *, spec: WindowSpec, split: Split
) -> dict[str, Any]:
    """What every result file says of its fold: names, animals, recordings, windows, versions."""
    return {
        "name": config.name,
        "kind": config.kind,
        "split": split.name,
        "folds": [list(each.held_out) for each in split.folds],
        "held_out": list(fold.held_out),
        "train_subjects": sorted({recording.subject_id for recording in fold.training(recordings)}),
        "train_recordings": [recording.recording_id for recording in fold.training(recordings)],
        "test_recordings": [recording.recording_id for recording in fold.test(recordings)],
        "hop_s": spec.hop_s,
        "window_s": spec.window_s,
        "versions": library_versions(),
    }


def checked(path: Path, fingerprint: str) -> Path:
    """The path of a result that is there already. Raises EvaluationError when it has another fingerprint."""
    if json.loads(path.read_text(encoding="utf-8"))["fingerprint"] != fingerprint:
        raise EvaluationError(f"{path}: comes from other settings or recordings; remove it or name another directory")
    return path


def write_result(path: Path, result: dict[str, Any]) -> Path:
    """Write a result file; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(result) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path
