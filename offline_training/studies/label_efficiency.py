"""How many labels a readout needs: the same encoders and folds, readouts fitted on a share of the training units.

Units are drawn class by class by SHA-256 of draw and unit, so that fewer units are a subset of more, and every class
keeps one unit at least. C and calibration come from the drawn units alone. Where they do not suffice to choose C (no
class in two animals or recordings), the strongest regularisation is taken, without a calibration.
Shapes: U units.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.features.mean_embedding import Calibration
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Int64Array
from offline_training.config import UNLABELLED, TrainConfig
from offline_training.data.labels import class_subjects, task_labels, transferable_classes
from offline_training.data.splits import Fold, Split
from offline_training.evaluation.evaluate import (
    INDUCTIVE,
    EvaluationError,
    baseline_features,
    library_versions,
    window_spec,
)
from offline_training.evaluation.predictions import predictions
from offline_training.pretraining.pretrain import load_run
from offline_training.readouts.embedded_runs import embed_by_run
from offline_training.readouts.examples import UnitFeatures, examples
from offline_training.readouts.readout import C_CANDIDATES, Readout, fit_readout
from offline_training.readouts.regression import ReadoutError, fit_linear
from offline_training.scores import macro_f1

SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
BASELINES = ("isi", "statistics")

Pooled = dict[tuple[str, str, float], dict[str, list[tuple[Int64Array, Int64Array]]]]
"""By task, feature and share, then by run (seed and draw): label and prediction (U,) of every fold's test units."""


def label_efficiency(
    config: TrainConfig,
    recordings: Sequence[Recording],
    split: Split,
    *,
    seeds: Sequence[int],
    draws: int,
    out_dir: Path,
    runs_dir: Path,
    hop_s: float | None = None,
) -> Path:
    """Score every share of labels on encoders that `run_fold` left in runs_dir; writes out_dir/label_efficiency.json.

    Raises EvaluationError where an encoder saw the activity of the animals held out, RunError where one is missing.
    """
    spec = window_spec(config, hop_s)
    statistics = baseline_features(recordings, window_spec(config, config.window.spec.window_s))
    said: Pooled = {}
    for fold in split.folds:
        for name in BASELINES:
            _test(config, recordings, fold, name, statistics[name], draws=draws, run="", said=said)
        for seed in seeds:
            run_dir = runs_dir / f"fold_{fold.name}_seed{seed}"
            if set(load_run(run_dir)[2]["subjects"]) & set(fold.held_out):
                raise EvaluationError(
                    f"{runs_dir}: the encoder of {fold.name} saw the activity of the animals held out"
                )
            embedded = embed_by_run(run_dir, recordings, hop_s=spec.hop_s)
            _test(config, recordings, fold, "embedding", embedded, draws=draws, run=f"seed {seed} ", said=said)
    result = {
        "name": config.name,
        "setting": INDUCTIVE,
        "split": split.name,
        "seeds": list(seeds),
        "draws": draws,
        "hop_s": spec.hop_s,
        "versions": library_versions(),
        "tasks": {task: _scores(task, config, recordings, said) for task in config.tasks},
    }
    path = out_dir / "label_efficiency.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def drawn(
    labels: Sequence[Int64Array], recordings: Sequence[Recording], *, share: float, draw: int
) -> list[Int64Array]:
    """The labels (U,) of every recording with all but a share of each class turned UNLABELLED."""
    kept = [np.full_like(label, UNLABELLED) for label in labels]
    for c in np.unique(np.concatenate(labels)):
        if c == UNLABELLED:
            continue
        units = [(place, int(unit)) for place, label in enumerate(labels) for unit in np.flatnonzero(label == c)]
        units.sort(key=lambda one: _rank(recordings[one[0]], one[1], draw))
        for place, unit in units[: max(1, math.ceil(share * len(units)))]:
            kept[place][unit] = c
    return kept


def _test(
    config: TrainConfig,
    recordings: Sequence[Recording],
    fold: Fold,
    feature: str,
    features: Sequence[UnitFeatures],
    *,
    draws: int,
    run: str,
    said: Pooled,
) -> None:
    """Add to `said` what readouts on every share and draw say of the fold's test units, whole recordings."""
    train = [i for i, recording in enumerate(recordings) if fold.trains_on(recording).any()]
    test = [i for i, recording in enumerate(recordings) if fold.tests_on(recording).any()]
    for task, settings in config.tasks.items():
        labels = task_labels(task, settings, recordings)
        asked = [labels[i] for i in test]
        truth = np.concatenate([label[label != UNLABELLED] for label in asked])
        for share in SHARES:
            for draw in range(draws if share < 1 else 1):
                known = drawn([labels[i] for i in train], [recordings[i] for i in train], share=share, draw=draw)
                readout = _fit([features[i] for i in train], known, settings.names)
                found = predictions(readout, [features[i] for i in test], asked, None)["prediction"]
                runs = said.setdefault((task, feature, share), {})
                runs.setdefault(f"{run}draw {draw}", []).append((truth, np.array(found)))


def _fit(features: Sequence[UnitFeatures], labels: Sequence[Int64Array], names: tuple[str, ...]) -> Readout:
    known = examples(features, labels)
    try:
        return fit_readout(known, names)
    except ReadoutError:
        linear = fit_linear(known, len(names), c=C_CANDIDATES[0])
        return Readout(names, linear, Calibration(), C_CANDIDATES[0], "subject", 0.0, "nothing: too few labels")


def _scores(task: str, config: TrainConfig, recordings: Sequence[Recording], said: Pooled) -> dict[str, Any]:
    settings = config.tasks[task]
    of_class = class_subjects(
        task_labels(task, settings, recordings), [r.subject_id for r in recordings], settings.names
    )
    testable = [settings.names.index(name) for name in transferable_classes(of_class)]
    features: dict[str, dict[str, Any]] = {}
    for (of_task, feature, share), runs in said.items():
        if of_task == task:
            features.setdefault(feature, {})[f"{share:g}"] = {"macro_f1": _pooled_f1(runs, testable)}
    return {"scored": [settings.names[i] for i in testable], "features": features}


def _pooled_f1(runs: Mapping[str, Sequence[tuple[Int64Array, Int64Array]]], testable: Sequence[int]) -> list[float]:
    scores = []
    for folds in runs.values():
        label, prediction = (np.concatenate([fold[i] for fold in folds]) for i in (0, 1))
        scored = np.intersect1d(label, testable)
        kept = np.isin(label, scored)
        scores.append(round(macro_f1(label[kept], prediction[kept], scored), 4))
    return scores


def _rank(recording: Recording, unit: int, draw: int) -> str:
    return hashlib.sha256(f"{draw}/{recording.recording_id}/{recording.unit_ids[unit]}".encode()).hexdigest()
