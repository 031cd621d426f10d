"""Nested evaluation: whatever is chosen is chosen inside the training animals of every outer fold.

A fold embeds all recordings with an encoder that never saw the tested animals, fits the task models of the product on
the training animals (regularisation, pool, temperatures and thresholds with them), and predicts the tested units after
10, 60, 300 s and the whole recording. Predictions of all folds are pooled before scoring.
Shapes: U units, C classes.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.features.accumulator import FeatureSet
from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.windows.binning import Int64Array
from offline_training.config import UNLABELLED, TrainConfig
from offline_training.data.labels import class_subjects, task_labels
from offline_training.data.splits import Fold, UnitFold
from offline_training.evaluation.scoring import Predicted, joined, over, scores
from offline_training.pretraining.runs import Run
from offline_training.readouts.embedded_runs import embed_by_run
from offline_training.readouts.examples import UnitFeatures, examples
from offline_training.readouts.feature_source import FeatureSource
from offline_training.readouts.task_model import TaskModel, fit_task

SECONDS: tuple[float | None, ...] = (10.0, 60.0, 300.0, None)
"""Times observed at which units are predicted; None: the whole recording."""
FLOOR: FeatureSet = "statistics_neighbourhood"
"""Spike statistics of the unit and its neighbours, without any encoder: what a row has to beat."""
UNKNOWN_ANIMALS = "zero-shot, encoder animals unknown"


class EvaluationError(NuclrStreamError):
    """Results do not fit together, or a claim that they do not support was asked for."""


@dataclass(frozen=True)
class Row:
    """A row of the table: its name, its role (shipped, predictor, floor, plain, comparison) and its feature sets."""

    name: str
    role: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class FoldResult:
    """What one fold gave: per task and row the predictions at every time, and what was chosen inside it."""

    tested: tuple[str, ...]
    training_animals: int
    setting: str
    chosen: dict[str, Any]
    predicted: Mapping[str, Mapping[Row, Mapping[str, Predicted]]]


def setting_of(encoder_subjects: Sequence[str], fold: Fold) -> str:
    """What scores on a fold may be called, given whose activity the encoder was trained on."""
    if isinstance(fold, UnitFold):
        return "transductive"
    return "transductive zero-shot" if set(encoder_subjects) & set(fold.held_out) else "inductive zero-shot"


def setting_of_run(run_dir: Path, fold: Fold) -> str:
    """What scores on a fold with the encoder of a run may be called; imported weights do not know their animals.

    Raises EvaluationError when labels of a tested animal chose the run's checkpoint.
    """
    info = Run.open(run_dir).info
    if judges := set(fold.held_out) & set(info["selection"].get("subjects", ())):
        raise EvaluationError(
            f"{run_dir.name}: the labels of {', '.join(sorted(judges))} chose its checkpoint; test other animals"
        )
    return UNKNOWN_ANIMALS if "imported" in info else setting_of(info["subjects"], fold)


def run_fold(config: TrainConfig, recordings: Sequence[AnyRecording], fold: Fold, run_dir: Path) -> FoldResult:
    """Fit on what the fold trains on and predict what it tests, with the encoder of `run_dir`. Raises EvaluationError,
    see `setting_of_run`."""
    setting = setting_of_run(run_dir, fold)
    sources = [FeatureSource(one) for one in embed_by_run(run_dir, recordings)]
    predicted: dict[str, dict[Row, dict[str, Predicted]]] = {}
    chosen: dict[str, Any] = {}
    for task, settings in config.tasks.items():
        labels = task_labels(task, settings, recordings)
        train, test = split_labels(fold, recordings, labels)
        model = fit_task(examples(sources, train), settings.names)
        chosen[task] = {"members": list(model.pools[0].predictors), "c": dict(model.c), "scores": model.scores}
        predicted[task] = {row: predict(one, sources, test) for row, one in _rows(model).items()}
    animals = {r.subject_id for r in recordings if fold.trains_on(r).any()}
    return FoldResult(fold.held_out, len(animals), setting, chosen, predicted)


def split_labels(
    fold: Fold, recordings: Sequence[AnyRecording], labels: Sequence[Int64Array]
) -> tuple[list[Int64Array], list[Int64Array]]:
    """Labels (U,) per recording of what the fold trains on, and of what it tests; UNLABELLED elsewhere."""
    pairs = list(zip(recordings, labels, strict=True))
    train = [np.where(fold.trains_on(recording), label, UNLABELLED) for recording, label in pairs]
    test = [np.where(fold.tests_on(recording), label, UNLABELLED) for recording, label in pairs]
    return train, test


def _rows(model: TaskModel) -> dict[Row, TaskModel]:
    """The product's row, the same with readouts of whole recordings at every exposure, and each predictor alone."""
    members = model.pools[0].predictors
    rows = {Row("pool", "shipped", members): model}
    rows[Row("pool, readouts of whole recordings", "plain", members)] = model.on_whole_recordings()
    for name in model.predictors:
        rows[Row(name, "floor" if name == FLOOR else "predictor", (name,))] = model.alone(name)
    return rows


def predict(model: TaskModel, sources: Sequence[UnitFeatures], labels: Sequence[Int64Array]) -> dict[str, Predicted]:
    """Predictions of the labelled units of all recordings at every time of SECONDS that some recording reaches.

    Units of a recording that is shorter than a time are predicted from all of it, so that every time has the same
    units. A time that no recording reaches is left out: it would be the whole recordings under another name.
    """
    found = {}
    for seconds in SECONDS:
        if seconds is not None and not any(_reaches(source, seconds) for source in sources):
            continue
        parts = [_predict(model, s, label, seconds) for s, label in zip(sources, labels, strict=True) if _any(label)]
        if seconds is None or any(part.known.any() for part in parts):
            found["all" if seconds is None else f"{seconds:g}"] = joined(parts)
    return found


def _reaches(source: UnitFeatures, seconds: float) -> bool:
    """Whether a longer recording would have no more windows by then: its next window ends later."""
    end_s = source.end_s
    if len(end_s) < 2:
        return len(end_s) == 1 and float(end_s[0]) >= seconds
    return bool(2 * end_s[-1] - end_s[-2] > seconds)


def _any(label: Int64Array) -> bool:
    return bool((label != UNLABELLED).any())


def _predict(model: TaskModel, source: UnitFeatures, label: Int64Array, seconds: float | None) -> Predicted:
    asked = np.flatnonzero(label != UNLABELLED)
    subject = np.full(len(asked), source.subject_id)
    last = len(source.end_s) if seconds is None else int(np.searchsorted(source.end_s, seconds, side="right"))
    if not last:
        nothing = np.zeros(len(asked), dtype=bool)
        prior = np.tile(np.array(model.prior, np.float32), (len(asked), 1))
        return Predicted(label[asked], prior, nothing, nothing, subject)
    answer = model.answer(source.snapshot(0, last))
    known = answer.has_prediction[asked]
    return Predicted(label[asked], answer.probabilities[asked], known & ~answer.unsure[asked], known, subject)


def result(
    config: TrainConfig, recordings: Sequence[AnyRecording], folds: Sequence[FoldResult], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of a result file: `facts` (name, command, ...), what each fold chose, and scores of every row."""
    tasks: dict[str, Any] = {}
    for task, settings in config.tasks.items():
        scored = _scored(recordings, task, config, folds)
        rows: dict[Row, dict[str, list[Predicted]]] = {}
        for fold in folds:
            for row, times in fold.predicted[task].items():
                # what a fold chose to pool may differ from fold to fold: the row is the product's all the same
                key = Row(row.name, row.role, () if row.role in ("shipped", "plain") else row.features)
                for time, part in times.items():
                    rows.setdefault(key, {}).setdefault(time, []).append(part)
        pooled = {row: {time: joined(parts) for time, parts in times.items()} for row, times in rows.items()}
        floor = next((times for row, times in pooled.items() if row.role == "floor"), {})
        tasks[task] = {
            "classes": list(settings.names),
            "scored": [settings.names[k] for k in scored],
            "rows": [_row(row, times, floor, scored) for row, times in pooled.items()],
        }
    chosen = [
        {"test": list(f.tested), "train_animals": f.training_animals, "setting": f.setting, "chosen": f.chosen}
        for f in folds
    ]
    return {"format": 3, **facts, "folds": chosen, "tasks": tasks}


def _row(
    row: Row, times: Mapping[str, Predicted], floor: Mapping[str, Predicted], scored: Int64Array
) -> dict[str, Any]:
    shipped = row.role == "shipped"
    seconds = {}
    for time, found in times.items():
        detail = shipped and time in ("60", "all")
        seconds[time] = scores(found, scored, curve=detail, confusion=shipped and time == "all")
        if shipped and time in floor:
            seconds[time]["over_floor"] = over(found, floor[time], scored)
    return {"row": row.name, "role": row.role, "features": list(row.features), "seconds": seconds}


def _scored(
    recordings: Sequence[AnyRecording], task: str, config: TrainConfig, folds: Sequence[FoldResult]
) -> Int64Array:
    """Classes that could be learnt and tested: a class of a single animal has no test on animals left out."""
    settings = config.tasks[task]
    labels = task_labels(task, settings, recordings)
    animals = class_subjects(labels, [recording.subject_id for recording in recordings], settings.names)
    several = [k for k, name in enumerate(settings.names) if len(animals[name]) > 1]
    tested = np.unique(np.concatenate([f.predicted[task][r]["all"].label for f in folds for r in f.predicted[task]]))
    return np.array([k for k in several if k in tested], dtype=np.int64)


def evaluation_facts(config: TrainConfig, *, command: str, fresh: bool) -> dict[str, Any]:
    """What a result file says beside its scores: data set, command, machine, versions, seed, and the protocol."""
    left_out = (
        "fresh animals, never seen by encoder or readouts"
        if fresh
        else "animals left out in turn: neither the encoder of a fold nor its readouts saw those that are tested"
    )
    return {
        "name": config.name,
        "kind": config.kind,
        "command": command,
        "machine": f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}",
        "versions": library_versions(),
        "seed": config.training.seed,
        "window_s": config.window.spec.window_s,
        "hop_s": config.window.spec.window_s,
        "protocol": (
            f"Nested evaluation on {left_out}. Regularisation, pooled predictors, temperatures and thresholds are "
            "chosen inside the training animals of every fold."
        ),
    }


def library_versions() -> dict[str, str]:
    """Versions of what computes scores."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "torch": torch.__version__.split("+")[0],
    }


def write_result(path: Path, document: Mapping[str, Any]) -> None:
    """Write a result file; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    temporary.replace(path)
