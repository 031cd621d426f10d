"""How sure a difference between two rows of a table is: a bootstrap over the recordings within each animal.

Both rows are scored on the same resampled recordings, so what is common to them cancels. Animals are not resampled,
they are too few: an interval says nothing of other animals, so every animal's own difference stands beside it.
Shapes: S seeds, R recordings, C classes; a confusion matrix is (C, C + 1), truth by prediction, the last column for
units without a prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from offline_training.scores import NO_PREDICTION

DRAWS = 2000
INTERVAL = (2.5, 97.5)
SEED = 0

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def confusions(
    label: IntArray, prediction: IntArray, recording: npt.NDArray[np.str_], *, classes: int
) -> dict[str, FloatArray]:
    """The confusion matrix (C, C + 1) of the units of every recording, by recording id, sorted."""
    found = {}
    for name in np.unique(recording):
        own = recording == name
        matrix = np.zeros((classes, classes + 1))
        column = np.where(prediction[own] == NO_PREDICTION, classes, prediction[own])
        np.add.at(matrix, (label[own], column), 1)
        found[str(name)] = matrix
    return found


def scores_of(matrix: FloatArray, scored: IntArray) -> FloatArray:
    """Macro-F1 and balanced accuracy (..., 2) of confusion matrices (..., C, C + 1), over the scored classes that
    occur."""
    truth = matrix[..., scored, :]
    units = truth.sum(axis=-1)
    right = np.stack([truth[..., place, c] for place, c in enumerate(scored)], axis=-1)
    predicted = truth.sum(axis=-2)[..., scored]
    there = units > 0
    with np.errstate(invalid="ignore"):
        f1 = np.where(there, 2 * right / (units + predicted), 0.0)
        recall = np.where(there, right / units, 0.0)
        return np.stack([f1.sum(axis=-1), recall.sum(axis=-1)], axis=-1) / there.sum(axis=-1)[..., None]


def paired_difference(
    one: FloatArray, other: FloatArray, subject: Sequence[str], scored: IntArray, *, draws: int = DRAWS
) -> dict[str, Any]:
    """Scores of `one` minus those of `other`, each (S, R, C, C + 1) on the same R recordings of these subjects.

    Each is the mean over its own seeds. Returns difference and interval per score, and per subject the difference of
    its mean recall over its own classes.
    """
    weights = _resampled(np.array(subject), draws)
    names = ("macro_f1", "balanced_accuracy")
    everything = np.ones((1, one.shape[1]))
    exact = _mean_scores(one, everything, scored) - _mean_scores(other, everything, scored)
    drawn = _mean_scores(one, weights, scored) - _mean_scores(other, weights, scored)
    low, high = np.nanpercentile(drawn, INTERVAL, axis=0)
    found: dict[str, Any] = {
        name: {"difference": _rounded(exact[0, i]), "interval": [_rounded(low[i]), _rounded(high[i])]}
        for i, name in enumerate(names)
    }
    found["per_subject"] = {}
    for name in sorted(set(subject)):
        own = np.array([[float(each == name) for each in subject]])
        gap = _mean_scores(one, own, scored) - _mean_scores(other, own, scored)
        if np.isfinite(gap[0, 1]):
            found["per_subject"][name] = _rounded(gap[0, 1])
    return found


def _mean_scores(matrices: FloatArray, weights: FloatArray, scored: IntArray) -> FloatArray:
    """Scores (W, 2) of the recordings weighted by weights (W, R), mean over seeds."""
    summed = np.einsum("wr,srcp->swcp", weights, matrices)
    return scores_of(summed, scored).mean(axis=0)


def _resampled(subject: npt.NDArray[np.str_], draws: int) -> FloatArray:
    """How often (draws, R) each recording is drawn; every subject keeps its number of recordings."""
    rng = np.random.default_rng(SEED)
    weights = np.zeros((draws, len(subject)))
    for name in np.unique(subject):
        own = np.flatnonzero(subject == name)
        weights[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=draws)
    return weights


def _rounded(value: float) -> float:
    return round(float(value), 4)
