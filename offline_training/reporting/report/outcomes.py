"""Predictions of held-out animals, from the files of folds: what was said of every scored unit, seed by seed.

Shapes: U units of all folds, C classes, K classes that are scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offline_training.reporting.report.files import ReportError, read_json
from offline_training.scores import NO_PREDICTION, macro_f1

IntArray = npt.NDArray[np.int64]
WHOLE = "all"


@dataclass(frozen=True)
class Outcome:
    """One task, one feature set, one seed: class (U,) and prediction after the whole recording (U,)."""

    seed: str
    label: IntArray
    prediction: IntArray

    def f1(self, scored: IntArray) -> list[float]:
        """F1 of every scored class, as the macro-F1 of the summary averages it: units of other classes are left out."""
        kept = np.isin(self.label, scored)
        return [macro_f1(self.label[kept], self.prediction[kept], np.array([one])) for one in scored]

    def confusion(self, scored: IntArray, classes: int) -> npt.NDArray[np.float64]:
        """Units of each scored class (K,) by what was predicted (C + 1): the last column is no prediction."""
        columns = np.where(self.prediction == NO_PREDICTION, classes, self.prediction)
        return np.array([np.bincount(columns[self.label == one], minlength=classes + 1) for one in scored], np.float64)


def outcomes(results: Path, task: str, features: Mapping[str, Any]) -> dict[str, list[Outcome]]:
    """{feature: one Outcome for every seed that the summary counts} of a task, from the folds in a folder.

    `features` are those of the task in the summary. Features without files of folds are left out. Raises ReportError
    naming the file that is no result of a fold.
    """
    folds = [_fold(path) for path in sorted(results.glob("fold_*.json"))]
    found = {}
    for feature, content in features.items():
        holding = [fold for fold in folds if feature in fold["tasks"][task]["features"]]
        seeds = {seed: [fold for fold in holding if str(fold["seed"]) == seed] for seed in content["per_seed"]}
        if all(seeds.values()):
            found[feature] = [_pooled(seed, own, task, feature) for seed, own in seeds.items()]
    return found


def _fold(path: Path) -> dict[str, Any]:
    fold = read_json(path)
    if "tasks" not in fold or "seed" not in fold:
        raise ReportError(f"{path}: no result of `nuclr-train evaluate`: it lacks seed or tasks")
    return fold


def _pooled(seed: str, folds: Sequence[dict[str, Any]], task: str, feature: str) -> Outcome:
    parts = [fold["tasks"][task] for fold in folds]
    predictions = [part["features"][feature]["seconds"][WHOLE]["prediction"] for part in parts]
    return Outcome(
        seed,
        np.concatenate([part["label"] for part in parts]).astype(np.int64),
        np.concatenate(predictions).astype(np.int64),
    )
