"""One predictor: plain readouts of one feature set at several exposures.

At every knot of exposure a readout is fitted on examples of that length of all training animals. The same is fitted
once for every fold of the animals, without it: these members predict the animals that they saw nothing of, for the
choice of C and for calibration, and go no further. An average of the members was measured against one fit of all: with
few animals it loses (macro-F1 and calibration), with many it is the same.
Shapes: R examples, U units, F features, C classes, K knots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from nuclr_stream.features.accumulator import FeatureSet
from nuclr_stream.features.exposure import knot_shares
from nuclr_stream.prediction.pool import log_softmax
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array
from offline_training.readouts.examples import WHOLE, Examples
from offline_training.readouts.regression import Float64Array, Linear, ReadoutError, fit_linear, folds, grouping

C_CANDIDATES = (0.001, 0.01, 0.1, 1.0)
DEFAULT_C = 0.1
"""C where too few animals can be left out to choose one."""
ENOUGH_TO_CHOOSE = 10
LEAST_OF_A_CLASS = 3
Part = tuple[Int64Array, Int64Array]
"""Rows to fit on and rows left out."""
LOG_TEMPERATURE = (-2.0, 3.0)
LEAST_PROBABILITY = 1e-6
"""Floor of a probability before its logarithm: one predictor must not forbid a class."""


@dataclass(frozen=True)
class Predictor:
    """Log-probabilities of features at an exposure.

    `weight` (K, C, F) and `bias` (K, C) act on (x - mean) / scale, mean and scale (F,). Between the knots `n` (K,)
    log-probabilities are interpolated linearly in log n.
    """

    n: Float64Array
    weight: Float64Array
    bias: Float64Array
    mean: Float64Array
    scale: Float64Array

    def logits(self, features: Float32Array, exposure: Float32Array) -> Float32Array:
        """Log-probabilities (U, C) of features (U, F) at exposure (U,)."""
        standard = (features - self.mean) / self.scale
        shares = knot_shares(exposure, self.n)
        found = np.zeros((len(features), self.bias.shape[1]))
        for share, weight, bias in zip(shares.T, self.weight, self.bias, strict=True):
            found += share[:, None] * _log(log_softmax(standard @ weight.T + bias))
        return found.astype(np.float32)


@dataclass(frozen=True)
class Fitted:
    """A predictor with its C at every knot, and log-probabilities (R, C) of the examples from members that saw nothing
    of their animals: `held_out` of the readout at the example's own length, `plain` of that on whole recordings."""

    predictor: Predictor
    c: tuple[float, ...]
    held_out: Float32Array
    plain: Float32Array


def fit_predictor(examples: Examples, name: FeatureSet, classes: int, *, c: float | None = None) -> Fitted:
    """Fit the predictor of one feature set; without `c` that is chosen for every length by log loss on units left out.

    Examples that lack the set are left out of the fit and get uniform log-probabilities. Raises ReadoutError.
    """
    known = np.flatnonzero(examples.has[name])
    own = examples.where(known)
    whole = own.length == WHOLE
    if not whole.any():
        raise ReadoutError(f"{name}: no labelled unit has it")
    parts = list(folds(own, grouping(own)))
    reference = _scaler(own.features[name][whole])
    held_out = np.full((len(examples), classes), -np.log(classes), dtype=np.float32)
    plain = held_out.copy()
    candidates: tuple[float, ...] = (c,) if c else C_CANDIDATES if can_choose(own) else (DEFAULT_C,)
    # whole recordings first: features of shorter stretches are noisier and want no larger C
    whole_members: list[Linear] = []
    chosen: list[float] = []
    n: list[float] = []
    readouts: list[Linear] = []
    for length in [WHOLE, *sorted(set(own.length.tolist()) - {WHOLE}, reverse=True)]:
        at = own.length == length
        best, members = _chosen(own, name, classes, parts, at, candidates)
        candidates = tuple(each for each in candidates if each <= best)
        whole_members = whole_members or members
        for member, whole_member, (_, test) in zip(members, whole_members, parts, strict=True):
            asked = test[at[test]]
            held_out[known[asked]] = _log_probabilities(member, own.features[name][asked])
            plain[known[asked]] = _log_probabilities(whole_member, own.features[name][asked])
        chosen.insert(0, best)
        n.insert(0, max(float(np.median(own.exposure_of({name})[at])), 1.0))
        readouts.insert(0, _on(reference, _fit(own.where(at), name, classes, c=best)))
    kept = _ascending(n)
    weight, bias = np.stack([each.weight for each in readouts]), np.stack([each.bias for each in readouts])
    predictor = Predictor(np.array(n)[kept], weight[kept], bias[kept], reference.mean, reference.scale)
    return Fitted(predictor, tuple(chosen[k] for k in kept), held_out, plain)


def can_choose(known: Examples) -> bool:
    """Whether anything can be chosen by what is left out: there must be ENOUGH_TO_CHOOSE animals (or recordings, where
    these are left out), and every class that occurs must be in LEAST_OF_A_CLASS of them.

    With six rats what was chosen on the others did worse than the defaults, for both tasks. A class of two animals is
    learnt from one when the other is left out, and what is best then says little about both.
    """
    groups = known.subject if grouping(known) == "subject" else known.recording
    of_class = [len(np.unique(groups[known.label == k])) for k in np.unique(known.label)]
    return len(np.unique(groups)) >= ENOUGH_TO_CHOOSE and min(of_class) >= LEAST_OF_A_CLASS


def _chosen(
    own: Examples,
    name: FeatureSet,
    classes: int,
    parts: Sequence[Part],
    at: BoolArray,
    candidates: Sequence[float],
) -> tuple[float, list[Linear]]:
    """The C of the candidates with the least loss on what is left out of the examples (R,) `at`, with its members: a
    readout for every part, fitted on the others."""
    losses, members = [], []
    for c in candidates:
        members.append([_fit(own.where(train[at[train]]), name, classes, c=c) for train, _ in parts])
        losses.append(_loss(members[-1], own, parts, at, name))
    best = int(np.argmin(losses))
    return candidates[best], members[best]


def _fit(chosen: Examples, name: FeatureSet, classes: int, *, c: float) -> Linear:
    weights = chosen.weights(int(chosen.label.max()) + 1)
    return fit_linear(chosen.features[name], chosen.label, classes, c=c, weights=weights)


def _loss(members: Sequence[Linear], own: Examples, parts: Sequence[Part], at: BoolArray, name: FeatureSet) -> float:
    """Class-balanced log loss on the examples (R,) `at` that members saw nothing of, at the best temperature: that is
    fitted afterwards, so a C must not win by being less sure."""
    rows = [test[at[test]] for _, test in parts]
    found = [_log_probabilities(member, own.features[name][r]) for member, r in zip(members, rows, strict=True)]
    return loss_at_best_temperature(np.concatenate(found), own.where(np.concatenate(rows)))


def _balanced_loss(log_probabilities: Float64Array, known: Examples) -> float:
    weights = known.weights(int(known.label.max()) + 1)
    return float(-(weights * log_probabilities[np.arange(len(known)), known.label]).sum() / weights.sum())


def loss_at_best_temperature(log_probabilities: Float64Array, known: Examples) -> float:
    """The class-balanced log loss of log-probabilities (R, C) at the temperature at which it is smallest."""

    def loss(log_t: float) -> float:
        return _balanced_loss(log_softmax(log_probabilities / np.exp(log_t)), known)

    return float(minimize_scalar(loss, bounds=LOG_TEMPERATURE, method="bounded").fun)


def _log_probabilities(member: Linear, features: Float32Array) -> Float64Array:
    return _log(log_softmax(member.logits(features)))


def _ascending(n: list[float]) -> list[int]:
    """The knots from which the next is at least half as far again: closer ones add nothing. The last always stays."""
    kept = [len(n) - 1]
    for k in reversed(range(len(n) - 1)):
        if n[k] * 1.5 <= n[kept[0]]:
            kept.insert(0, k)
    return kept


def _scaler(features: Float32Array) -> Linear:
    nothing = np.zeros((0, features.shape[1]))
    spread = features.std(axis=0, dtype=np.float64)
    return Linear(nothing, nothing[:, 0], features.mean(axis=0, dtype=np.float64), np.where(spread > 0, spread, 1.0))


def _on(reference: Linear, fitted: Linear) -> Linear:
    """The same readout on features standardised by another mean and scale."""
    weight = fitted.weight * (reference.scale / fitted.scale)
    bias = fitted.bias + fitted.weight @ ((reference.mean - fitted.mean) / fitted.scale)
    return Linear(weight, bias, reference.mean, reference.scale)


def _log(log_probabilities: Float64Array) -> Float64Array:
    return np.maximum(log_probabilities, np.log(LEAST_PROBABILITY))
