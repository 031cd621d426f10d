"""From the result files of folds to scores: predictions of all held-out units are pooled before scoring.

A row of a table is one feature of one task; its seeds count when all folds are there. Files of encoders, baselines,
arms and peers lie side by side: fold_<what is held out>_<anything>.json. Truth are the classes with units in at least
two animals of the data; any other prediction is an error, and so is a unit that no window shows. Written to
summary.json beside the folds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offline_training.data.labels import transferable_classes
from offline_training.evaluation.bootstrap import confusions, paired_difference
from offline_training.evaluation.evaluate import FORMAT, EvaluationError
from offline_training.scores import (
    NO_PREDICTION,
    balanced_accuracy,
    expected_calibration_error,
    macro_f1,
    precision_and_coverage,
)

REFERENCES = ("embedding", "predictors")
"""Rows from which the paired differences of all others are taken."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One feature of a task: for every seed with all of its folds the results, in the order of the folds."""

    feature: str
    task: str
    per_seed: dict[int | None, list[Result]]

    @property
    def results(self) -> list[Result]:
        """The results of all seeds."""
        return [result for results in self.per_seed.values() for result in results]

    def entries(self) -> list[Result]:
        """What each result says of this feature."""
        return [result["tasks"][self.task]["features"][self.feature] for result in self.results]

    def columns(self, seed: int | None) -> dict[str, dict[str, np.ndarray]]:
        """For every time observed the columns over the units of all folds: label, subject, recording, ..."""
        pooled: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for result in self.per_seed[seed]:
            found = result["tasks"][self.task]
            blocks = [block for block in found["recordings"] for _ in range(block["units"])]
            for seconds, columns in found["features"][self.feature]["seconds"].items():
                pooled[seconds]["label"] += found["label"]
                pooled[seconds]["subject"] += [block["subject_id"] for block in blocks]
                pooled[seconds]["recording"] += [block["recording_id"] for block in blocks]
                for name in columns.keys() - {"p"}:
                    pooled[seconds][name] += columns[name]
        return {s: {name: np.array(values) for name, values in columns.items()} for s, columns in pooled.items()}


def combine(out_dir: Path) -> Result:
    """Pool the folds of a folder, write summary.json and return its content.

    Raises EvaluationError where there is no complete set of folds, or where they come from different evaluations.
    """
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out_dir.glob("fold_*.json"))]
    _require_one_evaluation(out_dir, results)
    if not results:
        raise EvaluationError(f"{out_dir}: holds no fold_*.json; run `nuclr-train evaluate`")
    first = results[0]
    rows = {task: _rows(task, results) for task in first["tasks"]}
    complete = [row for of_task in rows.values() for row in of_task if row.per_seed]
    if not complete:
        raise EvaluationError(f"{out_dir}: no seed has all of its folds; run the missing ones")
    chosen = [result for row in complete for result in row.results]
    ours = [result for row in complete if row.feature == "embedding" for result in row.results]
    summary = {
        "name": first["name"],
        "kind": first["kind"],
        "split": first["split"],
        "folds": first["folds"],
        "setting": (ours or chosen)[0]["setting"],
        "hop_s": sorted({result["hop_s"] for result in chosen}),
        "seeds": sorted({result["seed"] for result in chosen if result["seed"] is not None}),
        "incomplete": _incomplete(results, complete),
        "held_out": sorted({subject for result in chosen for subject in result["held_out"]}),
        "encoder": _encoder([result["encoder"] for result in ours or chosen if result["encoder"]]),
        "versions": first["versions"],
        "tasks": {task: _task_scores(out_dir, task, of_task) for task, of_task in rows.items()},
    }
    (out_dir / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _rows(task: str, results: Sequence[Result]) -> list[Row]:
    """All rows of a task; incomplete seeds are left out, so that a row may have none."""
    found: dict[str, dict[int | None, dict[str, Result]]] = defaultdict(lambda: defaultdict(dict))
    for result in results:
        for feature in result["tasks"][task]["features"]:
            found[feature][result["seed"]][result["fold"]] = result
    folds = results[0]["folds"]
    return [
        Row(feature, task, {seed: [of[f] for f in folds] for seed, of in seeds.items() if set(of) == set(folds)})
        for feature, seeds in found.items()
    ]


def _incomplete(results: Sequence[Result], complete: Sequence[Row]) -> list[str]:
    """Features and seeds of which a fold is missing, in words."""
    whole = {(row.feature, seed) for row in complete for seed in row.per_seed}
    begun = {(feature, r["seed"]) for r in results for found in r["tasks"].values() for feature in found["features"]}
    return sorted(f"{feature}, seed {seed}" for feature, seed in begun - whole)


def _require_one_evaluation(out_dir: Path, results: Iterable[Result]) -> None:
    for result in results:
        if result.get("format") != FORMAT:
            raise EvaluationError(f"{out_dir}: holds result files of another version; remove them and evaluate again")
    for key in ("name", "split", "folds"):
        if len(found := {str(result[key]) for result in results}) > 1:
            raise EvaluationError(
                f"{out_dir}: holds results of several evaluations ({key}: {', '.join(sorted(found))})"
            )


def _encoder(trained: Sequence[Result]) -> Result | None:
    if not trained:
        return None
    return {
        "parameters": trained[0]["parameters"],
        "selected_by": sorted({encoder.get("selection", {"by": "last"})["by"] for encoder in trained}),
        "steps": sorted({encoder["step"] for encoder in trained}),
        "windows": sorted({encoder["windows"] for encoder in trained}),
        "machine": sorted({f"{encoder['machine']}, {encoder['precision']}" for encoder in trained}),
        "minutes": [
            round(min(e["seconds"] for e in trained) / 60, 1),
            round(max(e["seconds"] for e in trained) / 60, 1),
        ],
    }


def _task_scores(out_dir: Path, task: str, rows: Sequence[Row]) -> Result:
    rows = [row for row in rows if row.per_seed]
    some = rows[0].results[0]["tasks"][task]
    classes = some["classes"]
    label = next(iter(rows[0].columns(next(iter(rows[0].per_seed))).values()))["label"]
    testable = transferable_classes(some["class_subjects"])
    scored = np.array([i for i, name in enumerate(classes) if name in testable and (label == i).any()])
    if len(scored) < 2:
        raise EvaluationError(f"task {task}: fewer than two classes have units in two animals; nothing to score")
    features, per_subject, matrices = {}, {}, {}
    for row in rows:
        columns = {seed: row.columns(seed) for seed in row.per_seed}
        _require_same_units(out_dir, row, label, columns.values())
        whole = [of_seed["all"] for of_seed in columns.values()]
        matrices[row.feature] = [_confusions(one, len(classes)) for one in whole]
        seeds = {str(seed): {s: _scores(c, scored) for s, c in of.items()} for seed, of in columns.items()}
        confusion = np.mean([sum(of.values()) for of in matrices[row.feature]], axis=0)[scored]
        features[row.feature] = _provenance(out_dir, row) | {
            "per_seed": seeds,
            "mean": _mean_scores(seeds),
            "confusion": np.round(confusion, 1).tolist(),
        }
        per_subject[row.feature] = _per_subject(whole, classes, scored)
    return {
        "classes": classes,
        "scored": [classes[i] for i in scored],
        "class_subjects": some["class_subjects"],
        "units": {classes[i]: int((label == i).sum()) for i in scored},
        "features": features,
        "per_subject": per_subject,
        "differences": _differences(matrices, _subjects(rows[0]), scored),
    }


def _provenance(out_dir: Path, row: Row) -> Result:
    """What a row of a table has to say beside its scores: setting, what its training took, how it was chosen."""
    settings = sorted({result["setting"] for result in row.results})
    if len(settings) > 1:
        raise EvaluationError(
            f"{out_dir}: {row.feature} holds results of several evaluations (setting: {', '.join(settings)})"
        )
    budgets = [entry["budget"] for entry in row.entries() if entry.get("budget")]
    return {
        "setting": settings[0],
        "encoder": _encoder([result["encoder"] for result in row.results if result["encoder"]]),
        "budgets": budgets,
        "selected_on_these_folds": any(entry.get("selected_on_these_folds") for entry in row.entries()),
    }


def _require_same_units(
    out_dir: Path, row: Row, label: np.ndarray, seeds: Iterable[Mapping[str, Mapping[str, np.ndarray]]]
) -> None:
    for columns in seeds:
        if any(not np.array_equal(one["label"], label) for one in columns.values()):
            raise EvaluationError(f"{out_dir}: {row.feature} was tested on other units than the rows beside it")


def _confusions(columns: Mapping[str, np.ndarray], classes: int) -> dict[str, np.ndarray]:
    return confusions(columns["label"], columns["prediction"], columns["recording"], classes=classes)


def _subjects(row: Row) -> dict[str, str]:
    """The animal of every recording, by recording id."""
    blocks = [block for result in row.results for block in result["tasks"][row.task]["recordings"]]
    return {block["recording_id"]: block["subject_id"] for block in blocks}


def _differences(
    matrices: Mapping[str, Sequence[Mapping[str, np.ndarray]]], subject: Mapping[str, str], scored: np.ndarray
) -> list[Result]:
    """Every row minus each of the REFERENCES, with what `paired_difference` says."""
    stacked = {
        feature: np.stack([np.stack([of[name] for name in sorted(of)]) for of in seeds])
        for feature, seeds in matrices.items()
    }
    subjects = [subject[name] for name in sorted(next(iter(matrices.values()))[0])]
    return [
        {"row": feature, "minus": reference} | paired_difference(values, stacked[reference], subjects, scored)
        for reference in REFERENCES
        if reference in stacked
        for feature, values in stacked.items()
        if feature != reference
    ]


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
        "multi_macro_f1": float("nan"),
        "multi_balanced_accuracy": float("nan"),
    }
    if len(columns.get("multi_prediction", ())) == len(kept):
        joined = columns["multi_prediction"][kept]
        found["multi_macro_f1"] = macro_f1(label, joined, scored)
        found["multi_balanced_accuracy"] = balanced_accuracy(label, joined, scored)
    return {name: None if np.isnan(value) else round(value, 4) for name, value in found.items()} | {"units": len(label)}


def _per_subject(
    seeds: Sequence[Mapping[str, np.ndarray]], classes: Sequence[str], scored: np.ndarray
) -> dict[str, Result]:
    """Recall of every scored class of every animal, mean over seeds."""
    found = {}
    for subject in np.unique(seeds[0]["subject"]):
        own = [{key: column[of["subject"] == subject] for key, column in of.items() if len(column)} for of in seeds]
        present = [i for i in scored if (own[0]["label"] == i).any()]
        recall = {i: np.mean([(one["prediction"][one["label"] == i] == i).mean() for one in own]) for i in present}
        found[str(subject)] = {
            "units": int(np.isin(own[0]["label"], scored).sum()),
            "recall": {classes[i]: round(float(value), 4) for i, value in recall.items()},
            "units_of_class": {classes[i]: int((own[0]["label"] == i).sum()) for i in present},
        }
    return found


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
