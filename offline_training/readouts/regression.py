"""The linear readout: StandardScaler and class-balanced multinomial logistic regression, as in the NuCLR paper.

Shapes: R examples, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.windows.binning import Float32Array, Int64Array
from offline_training.readouts.examples import Examples

MAX_FOLDS = 6
"""Most parts that the animals are split into; below it every animal is one."""
ABSENT_LOGIT = -100.0
"""Logit of a class that training did not hold: never predicted, and finite, as graphs need it."""

Float64Array = npt.NDArray[np.float64]
Group = Literal["subject", "recording"]


class ReadoutError(NuclrStreamError):
    """A readout cannot be fitted, or a run holds none."""


@dataclass(frozen=True)
class Linear:
    """Logits of features: weight (C, F) and bias (C,) on (x - mean) / scale, mean and scale (F,)."""

    weight: Float64Array
    bias: Float64Array
    mean: Float64Array
    scale: Float64Array

    def logits(self, features: Float32Array) -> Float64Array:
        """Logits (R, C) of features (R, F)."""
        return np.asarray((features - self.mean) / self.scale @ self.weight.T + self.bias)


def fit_linear(
    features: Float32Array, label: Int64Array, classes: int, *, c: float, weights: Float64Array | None = None
) -> Linear:
    """Fit on features (R, F) and classes (R,); `weights` (R,), if given, balance the classes. C is scikit-learn's.

    Raises ReadoutError for examples of one class only.
    """
    present, count = np.unique(label, return_counts=True)
    if len(present) < 2:
        raise ReadoutError("examples of one class only: nothing to tell apart")
    if weights is None:
        weights = (len(label) / len(present) / count)[np.searchsorted(present, label)]
    mean, spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    # a feature that hardly varies beside its own size is constant but for rounding
    scale = np.where(spread > 1e-6 * np.abs(mean) + 1e-12, spread, 1.0)
    model = LogisticRegression(C=c, max_iter=1000, tol=1e-3)
    model.fit((features - mean) / scale, label, sample_weight=weights)
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, ABSENT_LOGIT)
    if len(present) == 2:  # one row of coefficients: the difference of the two logits
        weight[present] = np.vstack([-model.coef_, model.coef_]) / 2
        bias[present] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        weight[present], bias[present] = model.coef_, model.intercept_
    return Linear(weight, bias, mean, scale)


def grouping(examples: Examples) -> Group:
    """What cross-validation keeps apart: animals, or recordings where no class has units in two animals.

    Neurons that return on another day then flatter the scores, which say so.
    """
    per_class = [len(np.unique(examples.subject[examples.label == k])) for k in np.unique(examples.label)]
    return "subject" if max(per_class, default=0) > 1 else "recording"


def folds(examples: Examples, grouped_by: Group) -> Iterator[tuple[Int64Array, Int64Array]]:
    """Rows to fit on and rows held out, by animal or recording. Raises ReadoutError for a single group."""
    groups = examples.subject if grouped_by == "subject" else examples.recording
    number = min(len(np.unique(groups)), MAX_FOLDS)
    if number < 2:
        raise ReadoutError(f"one recording only ({groups[0]}): cross-validation needs at least two")
    yield from GroupKFold(number).split(np.zeros((len(groups), 1)), groups=groups)
