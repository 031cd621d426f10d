"""One predictor: plain readouts of one feature set at several exposures, each an average over animals left out.

At every knot of exposure a readout is fitted on examples of that length, once for every fold of the training animals.
Their mean probability is the prediction: where a few animals decide, the readouts disagree and the mean is less sure.
An example's own fold gives the prediction that nothing of its animal entered, for calibration.
Shapes: R examples, U units, F features, C classes, K knots, M members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nuclr_stream.features.accumulator import FeatureSet
from nuclr_stream.features.exposure import knot_shares
from nuclr_stream.prediction.pool import log_softmax
from nuclr_stream.windows.binning import Float32Array
from offline_training.readouts.examples import WHOLE, Examples
from offline_training.readouts.regression import Float64Array, Linear, ReadoutError, fit_linear, folds, grouping

C_CANDIDATES = (0.0003, 0.001, 0.01, 0.1)
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
    """Fit the predictor of one feature set; without `c` it is chosen by log loss on animals left out.

    Examples that lack the set are left out of the fit and get uniform log-probabilities. Raises ReadoutError.
    """
    known = np.flatnonzero(examples.has[name])
    own = examples.where(known)
    whole = own.length == WHOLE
    if c is None:
        c = _choose_c(own.where(whole), name, classes)
    lengths = [*sorted(set(own.length.tolist()) - {WHOLE}), WHOLE]
    held_out = np.full((len(examples), classes), -np.log(classes), dtype=np.float32)
    plain = held_out.copy()
    n, weights, biases = [], [], []
    reference = _scaler(own.features[name][whole])
    parts = list(folds(own, grouping(own)))
    for length in lengths:
        at = own.length == length
        members = []
        for train, test in parts:
            chosen = train[at[train]]
            member = fit_linear(
                own.features[name][chosen], own.label[chosen], classes, c=c, weights=_balance(own, chosen)
            )
            members.append(_on(reference, member))
            asked = test[at[test]]
            held_out[known[asked]] = _log(np.exp(log_softmax(member.logits(own.features[name][asked]))))
            if length == WHOLE:
                plain[known[test]] = _log(np.exp(log_softmax(member.logits(own.features[name][test]))))
        n.append(max(float(np.median(own.exposure_of({name})[at])), 1.0))
        weights.append(np.stack([member.weight for member in members]))
        biases.append(np.stack([member.bias for member in members]))
    kept = _ascending(n)
    predictor = Predictor(
        np.array(n)[kept], np.stack(weights)[kept], np.stack(biases)[kept], reference.mean, reference.scale
    )
    return Fitted(predictor, c, held_out, plain)


def _ascending(n: list[float]) -> list[int]:
    """The knots from which the next is at least half as far again: closer ones add nothing. The last always stays."""
    kept = [len(n) - 1]
    for k in reversed(range(len(n) - 1)):
        if n[k] * 1.5 <= n[kept[0]]:
            kept.insert(0, k)
    return kept


def _choose_c(whole: Examples, name: FeatureSet, classes: int) -> float:
    """The C with the least class-balanced log loss on whole recordings of animals left out."""
    if not len(whole):
        raise ReadoutError(f"{name}: no labelled unit has it")
    weights = whole.weights(classes)
    losses = []
    for c in C_CANDIDATES:
        total = 0.0
        for train, test in folds(whole, grouping(whole)):
            fitted = fit_linear(whole.features[name][train], whole.label[train], classes, c=c)
            found = _log(np.exp(log_softmax(fitted.logits(whole.features[name][test]))))
            total -= float((weights[test] * found[np.arange(len(test)), whole.label[test]]).sum())
        losses.append(total)
    return C_CANDIDATES[int(np.argmin(losses))]


def _balance(examples: Examples, chosen: np.ndarray) -> Float64Array:
    part = examples.where(chosen)
    return part.weights(int(part.label.max()) + 1)


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
