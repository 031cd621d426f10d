"""Multinomial logistic regression on examples of several exposures, and its cross-validation grouped by animal.

What a minute leaves of a unit's features scatters far more than what an hour leaves, and the spread over a population
means another thing then: so features are standardised for the exposure that they rest on, and one set of coefficients
serves all. Directions in which recordings of one class differ are turned down (within-class covariance normalisation,
Hatch and Stolcke 2006), for the next animal will differ there too.
Shapes: R examples, U units, F features, C classes, K knots of exposure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.features.mean_embedding import KNOTS, between_knots
from nuclr_stream.windows.binning import Float32Array, Int64Array
from offline_training.readouts.examples import Examples

MAX_FOLDS = 7
LIMIT = 2.0
"""Standard deviations beyond which a feature says no more: another animal's populations lie far out in some."""
ENOUGH = 0.02
"""Share of the examples that must lie near a knot for features to be standardised there."""
_FLOOR = 20.0
"""What is added to the covariance between recordings, in units of its mean variance, before features are divided."""
ABSENT_LOGIT = -100.0
"""Logit of a class that training did not hold: never predicted, and finite, as graphs need it."""

Float64Array = npt.NDArray[np.float64]
Group = Literal["subject", "recording"]


class ReadoutError(NuclrStreamError):
    """A readout cannot be fitted, or a run holds none."""


@dataclass(frozen=True)
class Linear:
    """Logits of features: weight (C, F) and bias (C,) on (x - mean(n)) / scale(n), with mean and scale (K, F) known at
    the exposures `n` (K,), ascending, and interpolated linearly in log n between them; no standardised feature beyond
    +-limit: an outlier says no more than that."""

    weight: Float64Array
    bias: Float64Array
    mean: Float64Array
    scale: Float64Array
    n: Float64Array
    limit: float = math.inf

    def logits(self, features: Float32Array, n: Float32Array) -> Float32Array:
        """Logits (U, C) of features (U, F) that rest on exposure n (U,)."""
        return (self.standardised(features, n) @ self.weight.T + self.bias).astype(np.float32)

    def standardised(self, features: Float32Array, n: Float32Array) -> Float64Array:
        """Features (U, F) as they are for their exposure n (U,), within the limit."""
        at = between_knots(n, self.n)
        return np.clip((features - at @ self.mean) / (at @ self.scale), -self.limit, self.limit)


@dataclass(frozen=True)
class OutOfFold:
    """Logits (R, C) that readouts gave to examples of groups which they were not fitted on, and which of all examples
    these are."""

    examples: Examples
    logits: Float32Array
    grouped_by: Group
    kept: npt.NDArray[np.bool_]


def fit_linear(examples: Examples, classes: int, *, c: float) -> Linear:
    """Scaler and regression with every unit counted once and classes balanced; C is scikit-learn's, per unit."""
    weights = examples.weights(classes)
    scaler = _fit_scaler(examples)
    standardised = scaler.standardised(examples.features, examples.n)
    steady = _steadied(standardised, examples, weights)
    model = LogisticRegression(C=c, max_iter=2000, tol=1e-3)
    model.fit(standardised @ steady, examples.label, sample_weight=weights)
    weight = np.zeros((classes, len(steady)))
    bias = np.full(classes, ABSENT_LOGIT)
    if len(model.classes_) == 2:  # one row of coefficients: the difference of the two logits
        weight[model.classes_] = np.vstack([-model.coef_, model.coef_]) / 2
        bias[model.classes_] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        weight[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return replace(scaler, weight=weight @ steady.T, bias=bias)


def _fit_scaler(examples: Examples) -> Linear:
    """Mean and spread of every feature at the exposures that enough examples lie near; no coefficients yet."""
    near = between_knots(examples.n, KNOTS).mean(axis=0) >= ENOUGH
    knots = np.array(KNOTS)[near]
    at = between_knots(examples.n, knots)
    share = at / at.sum(axis=0)
    mean = share.T @ examples.features
    variance = np.stack([of @ np.square(examples.features - m) for of, m in zip(share.T, mean, strict=True)])
    # a feature that hardly varies beside its own size is constant but for rounding
    scale = np.where(variance > 1e-12 * np.square(mean) + 1e-24, np.sqrt(variance), 1.0)
    nothing = np.zeros((0, examples.features.shape[1]))
    return Linear(nothing, nothing[:, 0], mean, scale, knots, LIMIT)


def _steadied(standardised: Float64Array, examples: Examples, weights: Float64Array) -> Float64Array:
    """The map (F, F) after which recordings differ alike in all directions, as far as there are recordings to tell:
    features are divided by the root of the covariance of the means of recordings around the mean of their class."""
    groups, group = np.unique(np.stack([examples.label, _numbered(examples.recording)]), axis=1, return_inverse=True)
    group = group.ravel()
    total = np.bincount(group, weights=weights)
    sums = np.zeros((len(total), standardised.shape[1]))
    np.add.at(sums, group, standardised * weights[:, None])
    of_class = np.equal.outer(np.arange(groups[0].max() + 1), groups[0]).astype(np.float64)
    class_mean = (of_class @ sums) / np.maximum(of_class @ total, 1e-12)[:, None]
    apart = sums / total[:, None] - class_mean[groups[0]]
    share = np.sqrt(total)  # long recordings count for more, and not for everything
    covariance = (apart * (share / share.sum())[:, None]).T @ apart
    size = float(np.trace(covariance)) / len(covariance)
    if size < 1e-12:  # one recording a class: nothing can be stated
        return np.eye(len(covariance))
    variance, axes = np.linalg.eigh(covariance / size + _FLOOR * np.eye(len(covariance)))
    steady = (axes / np.sqrt(variance)) @ axes.T
    kept: Float64Array = steady * np.sqrt(np.square(standardised).mean() / np.square(standardised @ steady).mean())
    return kept


def _numbered(names: npt.NDArray[np.str_]) -> Int64Array:
    return np.unique(names, return_inverse=True)[1]


def out_of_fold(examples: Examples, classes: int, *, c: float) -> OutOfFold:
    """Logits of every example from a readout that saw nothing of its animal.

    Where no class has units in two animals, of its recording: neurons that return on other days then flatter it, and
    `grouped_by` says so. Examples whose class the other folds do not hold are left out: no readout could know it.
    """
    ways: tuple[Group, ...] = ("subject", "recording") if len(np.unique(examples.subject)) > 1 else ("recording",)
    for grouped_by in ways:
        logits = _held_out_logits(examples, classes, c=c, grouped_by=grouped_by)
        done = ~np.isnan(logits[:, 0])
        if done.any():
            return OutOfFold(examples.where(done), logits[done], grouped_by, done)
    raise ReadoutError("cross-validation is impossible: no class has units in two animals or in two recordings")


def _held_out_logits(examples: Examples, classes: int, *, c: float, grouped_by: Group) -> Float32Array:
    """Logits (R, C), NaN where no fold could give any."""
    logits = np.full((len(examples.label), classes), np.nan, dtype=np.float32)
    for train, test in _folds(examples, grouped_by):
        known = np.unique(examples.label[train])
        if len(known) < 2:
            continue
        test = test[np.isin(examples.label[test], known)]
        fitted = fit_linear(examples.where(_chosen(train, len(logits))), classes, c=c)
        logits[test] = fitted.logits(examples.features[test], examples.n[test])
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
