"""Multinomial logistic regression on examples of several evidences, and its cross-validation grouped by animal.

Shapes: R examples, U units, F features, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from nuclr_stream.binning import Float32Array, Int64Array
from nuclr_stream.errors import NuclrStreamError
from offline_training.examples import Examples

MAX_FOLDS = 7
ABSENT_LOGIT = -100.0
"""Logit of a class that training did not hold: never predicted, and finite, as graphs need it."""

Float64Array = npt.NDArray[np.float64]
Group = Literal["subject", "recording"]


class ReadoutError(NuclrStreamError):
    """A readout cannot be fitted, or a run holds none."""


@dataclass(frozen=True)
class Linear:
    """Logits of features: weight (C, F) and bias (C,) on (x - mean) / scale, mean and scale (F,), no standardised
    feature beyond +-limit: an outlier says no more than that."""

    weight: Float64Array
    bias: Float64Array
    mean: Float64Array
    scale: Float64Array
    limit: float = math.inf

    def logits(self, features: Float32Array) -> Float32Array:
        """Logits (U, C) of features (U, F)."""
        standardised = np.clip((features - self.mean) / self.scale, -self.limit, self.limit)
        return (standardised @ self.weight.T + self.bias).astype(np.float32)


@dataclass(frozen=True)
class OutOfFold:
    """Logits (R, C) that readouts gave to examples of groups which they were not fitted on, and which of all examples
    these are."""

    examples: Examples
    logits: Float32Array
    grouped_by: Group
    kept: npt.NDArray[np.bool_]


def fit_linear(examples: Examples, classes: int, *, c: float, limit: float = math.inf) -> Linear:
    """Scaler and regression with every unit counted once and classes balanced; C is scikit-learn's, per unit."""
    scaler = StandardScaler().fit(examples.features)
    weights = examples.weights(classes)
    scaled = np.clip(scaler.transform(examples.features), -limit, limit)
    model = LogisticRegression(C=c, max_iter=2000, tol=1e-3).fit(scaled, examples.label, sample_weight=weights)
    weight = np.zeros((classes, scaled.shape[1]))
    bias = np.full(classes, ABSENT_LOGIT)
    if len(model.classes_) == 2:  # one row of coefficients: the difference of the two logits
        weight[model.classes_] = np.vstack([-model.coef_, model.coef_]) / 2
        bias[model.classes_] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        weight[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return Linear(weight, bias, scaler.mean_.astype(np.float64), scaler.scale_.astype(np.float64), limit)


def out_of_fold(examples: Examples, classes: int, *, c: float, limit: float = math.inf) -> OutOfFold:
    """Logits of every example from a readout that saw nothing of its animal.

    Where no class has units in two animals, of its recording: neurons that return on other days then flatter it, and
    `grouped_by` says so. Examples whose class the other folds do not hold are left out: no readout could know it.
    """
    ways: tuple[Group, ...] = ("subject", "recording") if len(np.unique(examples.subject)) > 1 else ("recording",)
    for grouped_by in ways:
        logits = _held_out_logits(examples, classes, c=c, limit=limit, grouped_by=grouped_by)
        done = ~np.isnan(logits[:, 0])
        if done.any():
            return OutOfFold(examples.where(done), logits[done], grouped_by, done)
    raise ReadoutError("cross-validation is impossible: no class has units in two animals or in two recordings")


def _held_out_logits(examples: Examples, classes: int, *, c: float, limit: float, grouped_by: Group) -> Float32Array:
    """Logits (R, C), NaN where no fold could give any."""
    logits = np.full((len(examples.label), classes), np.nan, dtype=np.float32)
    for train, test in _folds(examples, grouped_by):
        known = np.unique(examples.label[train])
        if len(known) < 2:
            continue
        test = test[np.isin(examples.label[test], known)]
        fitted = fit_linear(examples.where(_chosen(train, len(logits))), classes, c=c, limit=limit)
        logits[test] = fitted.logits(examples.features[test])
    return logits


def _folds(examples: Examples, grouped_by: str) -> Iterator[tuple[Int64Array, Int64Array]]:
    groups = examples.subject if grouped_by == "subject" else examples.recording
    number = min(len(np.unique(groups)), MAX_FOLDS)
    if number < 2:
        raise ReadoutError(f"one recording only ({groups[0]}): cross-validation needs at least two")
    return GroupKFold(number).split(examples.features, groups=groups)


def _chosen(rows: Int64Array, total: int) -> npt.NDArray[np.bool_]:
    chosen = np.zeros(total, dtype=bool)
    chosen[rows] = True
    return chosen
