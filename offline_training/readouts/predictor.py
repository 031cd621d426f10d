"""One predictor: plain readouts of one feature set at several exposures, each an average over animals left out.

At every knot of exposure a readout is fitted on examples of that length, once for every fold of the training animals.
Their mean probability is the prediction: where a few animals decide, the readouts disagree and the mean is less sure.
An example's own fold gives the prediction that nothing of its animal entered, for calibration.
Shapes: R examples, U units, F features, C classes, K knots, M members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nuclr_stream.features.accumulator import FeatureSet
from nuclr_stream.features.exposure import knot_shares
from nuclr_stream.prediction.pool import log_softmax
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array
from offline_training.readouts.examples import WHOLE, Examples
from offline_training.readouts.regression import Float64Array, Linear, ReadoutError, fit_linear, folds, grouping

C_CANDIDATES = (0.001, 0.01, 0.1)
Part = tuple[Int64Array, Int64Array]
"""Rows to fit on and rows left out."""
LEAST_PROBABILITY = 1e-6
"""Floor of a probability before its logarithm: a member that never saw a class must not forbid it."""


@dataclass(frozen=True)
class Predictor:
    """Log-probabilities of features at an exposure.

    `weight` (K, M, C, F) and `bias` (K, M, C) act on (x - mean) / scale, mean and scale (F,). At a knot of `n` (K,) the
    members' probabilities are averaged; between knots log-probabilities are interpolated linearly in log n.
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
        found = np.zeros((len(features), self.bias.shape[2]))
        for share, weight, bias in zip(shares.T, self.weight, self.bias, strict=True):
            members = [np.exp(log_softmax(standard @ w.T + b)) for w, b in zip(weight, bias, strict=True)]
            found += share[:, None] * _log(np.mean(members, axis=0))
        return found.astype(np.float32)


@dataclass(frozen=True)
class Fitted:
    """A predictor with its C, and log-probabilities (R, C) of the examples from members that saw nothing of their
    animals: `held_out` of the readout at the example's own length, `plain` of the readout on whole recordings."""

    predictor: Predictor
    c: float
    held_out: Float32Array
    plain: Float32Array


def fit_predictor(examples: Examples, name: FeatureSet, classes: int, *, c: float | None = None) -> Fitted:
    """Fit the predictor of one feature set; without `c` that is chosen by log loss on whole recordings left out.

    Examples that lack the set are left out of the fit and get uniform log-probabilities. Raises ReadoutError.
    """
    known = np.flatnonzero(examples.has[name])
    own = examples.where(known)
    whole = own.length == WHOLE
    if not whole.any():
        raise ReadoutError(f"{name}: no labelled unit has it")
    parts = list(folds(own, grouping(own)))
    found = {each: _members(own, name, classes, parts, whole, c=each) for each in ([c] if c else C_CANDIDATES)}
    c = min(found, key=lambda each: _loss(found[each], own, parts, whole, name))
    reference = _scaler(own.features[name][whole])
    held_out = np.full((len(examples), classes), -np.log(classes), dtype=np.float32)
    plain = held_out.copy()
    n, weights, biases = [], [], []
    for length in [*sorted(set(own.length.tolist()) - {WHOLE}), WHOLE]:
        at = own.length == length
        members = found[c] if length == WHOLE else _members(own, name, classes, parts, at, c=c)
        for member, whole_member, (_, test) in zip(members, found[c], parts, strict=True):
            asked = test[at[test]]
            held_out[known[asked]] = _log_probabilities(member, own.features[name][asked])
            plain[known[asked]] = _log_probabilities(whole_member, own.features[name][asked])
        on_reference = [_on(reference, member) for member in members]
        n.append(max(float(np.median(own.exposure_of({name})[at])), 1.0))
        weights.append(np.stack([member.weight for member in on_reference]))
        biases.append(np.stack([member.bias for member in on_reference]))
    kept = _ascending(n)
    predictor = Predictor(
        np.array(n)[kept], np.stack(weights)[kept], np.stack(biases)[kept], reference.mean, reference.scale
    )
    return Fitted(predictor, c, held_out, plain)


def _members(
    own: Examples, name: FeatureSet, classes: int, parts: Sequence[Part], at: BoolArray, *, c: float
) -> list[Linear]:
    """A readout for every part that is left out, fitted on the examples (R,) `at` of the others."""
    members = []
    for train, _ in parts:
        chosen = own.where(train[at[train]])
        weights = chosen.weights(int(chosen.label.max()) + 1)
        members.append(fit_linear(chosen.features[name], chosen.label, classes, c=c, weights=weights))
    return members


def _loss(members: Sequence[Linear], own: Examples, parts: Sequence[Part], whole: BoolArray, name: FeatureSet) -> float:
    """Class-balanced log loss on whole recordings of what members saw nothing of."""
    weights = np.zeros(len(own))
    weights[whole] = own.where(whole).weights(int(own.label.max()) + 1)
    total = 0.0
    for member, (_, test) in zip(members, parts, strict=True):
        asked = test[whole[test]]
        found = _log_probabilities(member, own.features[name][asked])
        total -= float((weights[asked] * found[np.arange(len(asked)), own.label[asked]]).sum())
    return total


def _log_probabilities(member: Linear, features: Float32Array) -> Float64Array:
    return _log(np.exp(log_softmax(member.logits(features))))


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


def _log(probability: Float64Array) -> Float64Array:
    return np.log(np.maximum(probability, LEAST_PROBABILITY))
