"""From the result files of folds to scores: predictions of all held-out animals are pooled before scoring.

Truth are the classes with units in at least two animals of the data; any other prediction is an error, and so is a unit
that no window shows. A seed counts when all of its folds are there. Written to summary.json beside the folds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offline_training.evaluate import EvaluationError
from offline_training.labels import transferable_classes
from offline_training.scores import (
    NO_PREDICTION,
    balanced_accuracy,
    expected_calibration_error,
    macro_f1,
    precision_and_coverage,
)

Result = dict[str, Any]


def combine(out_dir: Path) -> Result:
    """Pool the folds of a folder, write summary.json and return its content.

    Raises EvaluationError where there is no complete set of folds, or where they come from different evaluations.
    """
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out_dir.glob("fold_*.json"))]
    by_seed: dict[int | None, list[Result]] = defaultdict(list)
    for result in results:
        by_seed[result["seed"]].append(result)
    complete = {seed: folds for seed, folds in by_seed.items() if _complete(folds)}
    if not complete:
        raise EvaluationError(f"{out_dir}: no seed has all of its folds; run the missing ones")
    chosen = [result for folds in complete.values() for result in folds]
    _require_one_evaluation(out_dir, chosen)
    first = chosen[0]
    trained = [result["encoder"] for result in chosen if result["encoder"]]
    summary = {
        "name": first["name"],
        "kind": first["kind"],
        "split": first["split"],
        "setting": first["setting"],
        "hop_s": sorted({result["hop_s"] for result in chosen}),
        "seeds": sorted(seed for seed in complete if seed is not None),
        "incomplete_seeds": sorted(str(seed) for seed in set(by_seed) - set(complete)),
        "held_out": sorted({subject for result in chosen for subject in result["held_out"]}),
        "encoder": _encoder(trained),
        "versions": first["versions"],
        "tasks": {task: _task_scores(task, complete) for task in first["tasks"]},
    }
    (out_dir / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _complete(folds: Sequence[Result]) -> bool:
    return {tuple(result["held_out"]) for result in folds} == {tuple(f) for f in folds[0]["folds"]}


def _require_one_evaluation(out_dir: Path, results: Iterable[Result]) -> None:
    for key in ("name", "split", "setting"):
        if len(found := {result[key] for result in results}) > 1:
            raise EvaluationError(
                f"{out_dir}: holds results of several evaluations ({key}: {', '.join(sorted(found))})"
            )


def _encoder(trained: Sequence[Result]) -> Result | None:
    if not trained:
        return None
    return {
        "parameters": trained[0]["parameters"],
        "steps": sorted({encoder["step"] for encoder in trained}),
        "windows": sorted({encoder["windows"] for encoder in trained}),
        "machine": sorted({f"{encoder['machine']}, {encoder['precision']}" for encoder in trained}),
        "minutes": [
            round(min(e["seconds"] for e in trained) / 60, 1),
            round(max(e["seconds"] for e in trained) / 60, 1),
        ],
    }


def _task_scores(task: str, complete: Mapping[int | None, Sequence[Result]]) -> Result:
    some = next(iter(complete.values()))[0]["tasks"][task]
    classes = some["classes"]
    label = np.concatenate([r["tasks"][task]["label"] for r in next(iter(complete.values()))]).astype(np.int64)
    testable = transferable_classes(some["class_subjects"])
    scored = np.array([i for i, name in enumerate(classes) if name in testable and (label == i).any()])
    if len(scored) < 2:
        raise EvaluationError(f"task {task}: fewer than two classes have units in two animals; nothing to score")
    features: dict[str, dict[str, Result]] = defaultdict(dict)
    per_subject: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for seed, folds in complete.items():
        for name in folds[0]["tasks"][task]["features"]:
            columns = _pooled_columns(folds, task, name)
            features[name][str(seed)] = {s: _scores(values, scored) for s, values in columns.items()}
            for subject in np.unique(columns["all"]["subject"]):
                own = columns["all"]["subject"] == subject
                values = {key: column[own] for key, column in columns["all"].items()}
                per_subject[name][str(subject)].append(_subject_scores(values, classes, scored))
    return {
        "classes": classes,
        "scored": [classes[i] for i in scored],
        "class_subjects": some["class_subjects"],
        "units": {classes[i]: int((label == i).sum()) for i in scored},
        "features": {name: {"per_seed": seeds, "mean": _mean_scores(seeds)} for name, seeds in features.items()},
        "per_subject": {
            name: {subject: _mean_subject(found) for subject, found in subjects.items()}
            for name, subjects in per_subject.items()
        },
    }


def _pooled_columns(folds: Sequence[Result], task: str, feature: str) -> dict[str, dict[str, np.ndarray]]:
    """For every time observed the columns over the units of all folds: label, subject, prediction, probability, n,
    abstained."""
    pooled: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for result in folds:
        found = result["tasks"][task]
        subject = [block["subject_id"] for block in found["recordings"] for _ in range(block["units"])]
        for seconds, columns in found["features"][feature]["seconds"].items():
            pooled[seconds]["label"] += found["label"]
            pooled[seconds]["subject"] += subject
            for name, values in columns.items():
                pooled[seconds][name] += values
    return {s: {name: np.array(values) for name, values in columns.items()} for s, columns in pooled.items()}


def _scores(columns: Mapping[str, np.ndarray], scored: np.ndarray) -> Result:
    kept = np.isin(columns["label"], scored)
    label, prediction = columns["label"][kept], columns["prediction"][kept]
    right, abstained = label == prediction, columns["abstained"][kept].astype(bool)
    seen = prediction != NO_PREDICTION
    precision, coverage = precision_and_coverage(right, abstained)
    found = {
        "macro_f1": macro_f1(label, prediction, scored),
        "balanced_accuracy": balanced_accuracy(label, prediction, scored),
        "ece": expected_calibration_error(columns["probability"][kept][seen], right[seen]),
        "precision": precision,
        "coverage": coverage,
        "unseen": float((~seen).mean()),
    }
    return {name: None if np.isnan(value) else round(value, 4) for name, value in found.items()} | {"units": len(label)}


def _subject_scores(columns: Mapping[str, np.ndarray], classes: Sequence[str], scored: np.ndarray) -> Result:
    label, prediction = columns["label"], columns["prediction"]
    present = [i for i in scored if (label == i).any()]
    return {
        "units": int(np.isin(label, scored).sum()),
        "recall": {classes[i]: float((prediction[label == i] == i).mean()) for i in present},
        "units_of_class": {classes[i]: int((label == i).sum()) for i in present},
    }


def _mean_subject(found: Sequence[Result]) -> Result:
    recall = {name: float(np.mean([one["recall"][name] for one in found])) for name in found[0]["recall"]}
    return found[0] | {"recall": {name: round(value, 4) for name, value in recall.items()}}


def _mean_scores(per_seed: Mapping[str, Mapping[str, Result]]) -> dict[str, Result]:
    """Mean over seeds of every score at every time, and the range of macro-F1; None where no seed has a value."""
    runs = list(per_seed.values())
    means = {}
    for seconds in runs[0]:
        values = {name: [run[seconds][name] for run in runs] for name in runs[0][seconds]}
        known = {name: [v for v in found if v is not None] for name, found in values.items()}
        means[seconds] = {name: round(float(np.mean(v)), 4) if v else None for name, v in known.items()}
        means[seconds]["macro_f1_range"] = [min(values["macro_f1"]), max(values["macro_f1"])]
    return means
