"""Scores of predictions, the same for every feature set. A unit without a prediction (NO_PREDICTION) is an error.

Shapes: R predictions. Classes are indices; only those in `scored` count as truth, any other prediction is an error.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NO_PREDICTION = -1
ECE_BINS = 15

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]


def macro_f1(label: IntArray, prediction: IntArray, scored: IntArray, *, weights: FloatArray | None = None) -> float:
    """Mean over `scored` classes of F1 = 2 TP / (2 TP + FP + FN), weighted by example; 0 where nothing is right."""
    w = np.ones(len(label)) if weights is None else weights
    scores = []
    for c in scored:
        right = w[(label == c) & (prediction == c)].sum()
        total = w[label == c].sum() + w[prediction == c].sum()
        scores.append(2 * right / total if total else 0.0)
    return float(np.mean(scores))


def recalls(label: IntArray, prediction: IntArray, scored: IntArray) -> FloatArray:
    """Share of the units of each scored class that were predicted as it."""
    return np.array([(prediction[label == c] == c).mean() for c in scored])


def balanced_accuracy(label: IntArray, prediction: IntArray, scored: IntArray) -> float:
    """Mean recall over `scored` classes, each of which must occur."""
    return float(recalls(label, prediction, scored).mean())


def expected_calibration_error(probability: FloatArray, right: BoolArray, *, bins: int = ECE_BINS) -> float:
    """Mean |accuracy - confidence| of top-1 probabilities (R,) over `bins` of equal mass; NaN without predictions."""
    if not len(probability):
        return float("nan")
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [len(part) * abs(right[part].mean() - probability[part].mean()) for part in parts]
    return float(sum(gaps) / len(probability))


def precision_and_coverage(right: BoolArray, abstained: BoolArray) -> tuple[float, float]:
    """Share of right ones among the predictions (R,) not abstained from (NaN if none), and the share of those."""
    called = ~abstained
    return (float(right[called].mean()) if called.any() else float("nan")), float(called.mean())
