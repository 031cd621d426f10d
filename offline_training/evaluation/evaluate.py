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

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Int64Array, WindowSpec
from offline_training.config import UNLABELLED, TaskSettings, TrainConfig
from offline_training.data.labels import class_subjects, task_labels
from offline_training.data.splits import Fold, Split, UnitFold
from offline_training.evaluation.baselines.aggregated import Pooled
from offline_training.evaluation.baselines.single_unit import isi_steps, rate_steps, statistics_steps
from offline_training.evaluation.predictions import SECONDS, Places, places, predictions, time_name
from offline_training.evaluation.variants import Arm
from offline_training.pretraining.pretrain import load_run, pretrain
from offline_training.readouts.embedded_runs import embed_by_run
from offline_training.readouts.examples import UnitFeatures, examples
from offline_training.readouts.readout import Readout, fit_readout
from offline_training.readouts.validation import validation_score

INDUCTIVE = "inductive zero-shot"
TRANSDUCTIVE = "transductive zero-shot"
UNKNOWN = "zero-shot, encoder animals unknown"
"""What scores of imported weights may be called: nobody here can say whose activity they saw."""
SAME_POPULATIONS = "transductive"

FORMAT = 2
"""Version of the result files; 2 keeps the probabilities of all classes. Others are refused, not misread."""

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
    arm: Arm | None = None,
) -> Path:
    """Pretrain, fit and test one fold with one seed; returns its result file, at once when it is there already.

    The encoder's run is kept in runs_dir/fold_<animals>_seed<k> and resumed when it was interrupted. `hop_s` is the
    step between windows of the evaluation, that of the config if not given. `arm` pretrains otherwise, and gives one
    feature of its own, embedding_<arm>. Raises EvaluationError when what is there comes from other settings or
    recordings.
    """
    config = (arm.config if arm else config).with_training(seed=seed)
    pretrained_on = fold.training(recordings)
    name = f"fold_{fold.name}_seed{seed}"
    if arm:
        pretrained_on = arm.recordings(pretrained_on, seed)
        name = f"fold_{fold.name}_{arm.name}_seed{seed}"
    path = out_dir / f"{name}.json"
    spec = window_spec(config, hop_s)
    fingerprint = fingerprint_of(config, recordings, spec)
    if path.is_file():
        return checked(path, fingerprint)
    run_dir = runs_dir / name
    pretrain_once(config, pretrained_on, run_dir)
    info = load_run(run_dir)[2]
    sets = encoder_features(run_dir, recordings, spec)
    if arm:
        sets = {f"embedding_{arm.name}": sets["embedding"]}
    facts = fold_facts(config, recordings, fold, spec=spec, split=split) | {
        "setting": setting_of(info["subjects"], fold),
        "seed": seed,
        "fingerprint": fingerprint,
        "encoder": encoder_facts(info),
    }
    return write_result(path, facts | {"tasks": score_fold(config, recordings, fold, sets)})


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
    setting = SAME_POPULATIONS if isinstance(fold, UnitFold) else INDUCTIVE
    facts |= {"setting": setting, "seed": None, "fingerprint": fingerprint, "encoder": None}
    return write_result(
        path, facts | {"tasks": score_fold(config, recordings, fold, baseline_features(recordings, spec))}
    )


def run_with_encoder(
    run_dir: Path,
    recordings: Sequence[Recording],
    folds: Sequence[Fold],
    *,
    out_dir: Path,
    hop_s: float | None = None,
    split: Split,
    claim: str | None = None,
) -> list[Path]:
    """Test a ready run: only the readouts are fitted anew, on what is not held out. Returns one file per fold.

    Where the encoder saw the activity of a held-out animal, the setting is "transductive zero-shot", with units of the
    same populations in the readouts "transductive"; a `claim` of anything else raises EvaluationError, and so does a
    test animal that chose the checkpoint. Imported weights do not say what they saw: nothing may be claimed of them.
    """
    _, config, info = load_run(run_dir)
    imported = "imported" in info
    settings = [UNKNOWN if imported else setting_of(info["subjects"], fold) for fold in folds]
    for fold, setting in zip(folds, settings, strict=True):
        if judges := set(fold.held_out) & set(info["selection"].get("subjects", ())):
            raise EvaluationError(
                f"{run_dir.name}: the labels of {', '.join(sorted(judges))} chose its checkpoint; test other animals"
            )
        if claim is not None and imported:
            raise EvaluationError(f"claim {claim!r}: {run_dir.name} holds imported weights; {info['animals']}")
        if claim is not None and not setting.startswith(claim):
            raise EvaluationError(
                f"claim {claim!r}: the encoder of {run_dir.name} saw the activity of {_seen(info['subjects'], fold)}, "
                f"so its scores are {setting!r}; evaluate with the config instead, which pretrains anew for every fold"
            )
    spec = window_spec(config, hop_s)
    sets = encoder_features(run_dir, recordings, spec)
    paths = []
    for fold, setting in zip(folds, settings, strict=True):
        facts = fold_facts(config, recordings, fold, spec=spec, split=split) | {
            "setting": setting,
            "seed": config.training.seed,
            "fingerprint": fingerprint_of(config, recordings, spec),
            "encoder": None if imported else encoder_facts(info),
            **({"imported": info["imported"]} if imported else {}),
        }
        path = out_dir / f"fold_{fold.name}_seed{config.training.seed}.json"
        paths.append(write_result(path, facts | {"tasks": score_fold(config, recordings, fold, sets)}))
    return paths


def setting_of(encoder_subjects: Sequence[str], fold: Fold) -> str:
    """What scores on a fold may be called, given whose activity the encoder was trained on."""
    if isinstance(fold, UnitFold):
        return SAME_POPULATIONS
    return TRANSDUCTIVE if set(encoder_subjects) & set(fold.held_out) else INDUCTIVE


def _seen(encoder_subjects: Sequence[str], fold: Fold) -> str:
    return ", ".join(sorted(set(encoder_subjects) & set(fold.held_out))) or "the tested units"


def encoder_features(run_dir: Path, recordings: Sequence[Recording], spec: WindowSpec) -> FeatureSets:
    """Embeddings of every recording, and the same pooled over each unit's company."""
    embedded = embed_by_run(run_dir, recordings, hop_s=spec.hop_s)
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


def score_fold(
    config: TrainConfig, recordings: Sequence[Recording], fold: Fold, sets: Mapping[str, list[UnitFeatures]]
) -> dict[str, Any]:
    """Fit a readout per task and feature set on what the fold trains on, and say what it predicts for the rest.

    Returns the `tasks` of a result file.
    """
    train = [i for i, recording in enumerate(recordings) if fold.trains_on(recording).any()]
    tested = np.array([fold.tests_on(recording).any() for recording in recordings])
    test = np.flatnonzero(tested)
    where = [places(recordings[i], fold.tests_on(recordings[i])) for i in test]
    results: dict[str, Any] = {}
    for task, settings in config.tasks.items():
        labels = task_labels(task, settings, recordings)
        known = [np.where(fold.trains_on(recordings[i]), labels[i], UNLABELLED) for i in train]
        asked = [np.where(fold.tests_on(r), label, UNLABELLED) for r, label in zip(recordings, labels, strict=True)]
        results[task] = task_facts(settings, recordings, asked, tested)
        results[task]["class_subjects"] = class_subjects(labels, [r.subject_id for r in recordings], settings.names)
        for name, features in sets.items():
            readout = fit_readout(examples([features[i] for i in train], known), settings.names)
            results[task]["features"][name] = feature_result(
                readout, [features[i] for i in test], [asked[i] for i in test], where=where
            )
    return results


def task_facts(
    settings: TaskSettings, recordings: Sequence[Recording], labels: Sequence[Int64Array], tested: np.ndarray
) -> dict[str, Any]:
    """What a result file says of a task before any prediction: its classes, and the labels of the units of the
    recordings that are `tested` (R,)."""
    return {
        "classes": list(settings.names),
        "class_subjects": class_subjects(labels, [r.subject_id for r in recordings], settings.names),
        "recordings": unit_blocks(recordings, labels, tested),
        "label": [int(v) for label, one in zip(labels, tested, strict=True) if one for v in label[label != UNLABELLED]],
        "features": {},
    }


def feature_result(
    readout: Readout,
    test: Sequence[UnitFeatures],
    test_labels: Sequence[Int64Array],
    *,
    where: Sequence[Places | None] = (),
) -> dict[str, Any]:
    """What a result file says of one feature set: its readout, and the predictions at every time of SECONDS.

    With the `places` of the units of every tested recording, multi-unit predictions too.
    """
    return {
        "c": readout.c,
        "grouped_by": readout.grouped_by,
        "out_of_fold_f1": round(readout.out_of_fold_f1, 4),
        "calibration": asdict(readout.calibration),
        "calibrated_on": readout.calibrated_on,
        "seconds": {time_name(s): predictions(readout, test, test_labels, s, where=where) for s in SECONDS},
    }


def encoder_facts(info: Mapping[str, Any]) -> dict[str, Any]:
    """What results say of an encoder: its size and how it was trained, and which checkpoint it is, from run.json."""
    kept = ("parameters", "step", "machine", "precision", "windows", "seconds", "selection")
    return {key: info[key] for key in kept}


def library_versions() -> dict[str, str]:
    """Versions of what computes scores."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "torch": torch.__version__.split("+")[0],
    }


def unit_blocks(
    recordings: Sequence[Recording], labels: Sequence[Int64Array], tested: np.ndarray
) -> list[dict[str, Any]]:
    """Which of the tested recordings the labelled units come from, block by block, in the order of all lists of a
    task."""
    return [
        {
            "recording_id": recording.recording_id,
            "subject_id": recording.subject_id,
            "units": int((label != UNLABELLED).sum()),
        }
        for recording, label, one in zip(recordings, labels, tested, strict=True)
        if one
    ]


def window_spec(config: TrainConfig, hop_s: float | None) -> WindowSpec:
    """The window of the config, with another hop where one is given."""
    spec = config.window.spec
    return spec if hop_s is None else spec.with_hop_s(hop_s)


def pretrain_once(config: TrainConfig, recordings: Sequence[Recording], run_dir: Path) -> None:
    """Pretrain unless it is done already; go on where it was interrupted. Raises EvaluationError when what is there
    comes from other settings or recordings, or when it is interrupted again."""
    begun = (run_dir / "checkpoint.pt").is_file()
    if begun:
        _, stored, info = load_run(run_dir)
        if stored != config or info["recordings"] != [recording.recording_id for recording in recordings]:
            raise EvaluationError(
                f"{run_dir}: trained with other settings or recordings; remove it or name another place"
            )
        if info["finished"]:
            return
    score = validation_score(config, recordings)
    pretrain(config, recordings, run_dir, score=score, resume=begun, title=run_dir.name)
    if not load_run(run_dir)[2]["finished"]:
        raise EvaluationError(f"{run_dir}: the training was interrupted; the same command goes on with it")


def fingerprint_of(config: TrainConfig, recordings: Sequence[Recording], spec: WindowSpec) -> str:
    """What a result depends on, as 16 hexadecimal digits: settings that are not the defaults, recordings, hop."""
    content = [
        FORMAT,
        config.model_dump(mode="json", exclude_defaults=True),
        [recording.recording_id for recording in recordings],
        spec.hop_bins,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def fold_facts(
    config: TrainConfig, recordings: Sequence[Recording], fold: Fold, *, spec: WindowSpec, split: Split
) -> dict[str, Any]:
    """What every result file says of its fold: names, animals, recordings, windows, versions."""
    return {
        "format": FORMAT,
        "name": config.name,
        "kind": config.kind,
        "split": split.name,
        "folds": [each.name for each in split.folds],
        "fold": fold.name,
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
        raise EvaluationError(
            f"{path}: comes from other settings, recordings or versions; remove it or name another directory"
        )
    return path


def write_result(path: Path, result: dict[str, Any]) -> Path:
    """Write a result file; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path
