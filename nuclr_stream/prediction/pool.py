"""Predictors speaking together: weighted sums of their logits, calibrated probabilities, sets, and when to say nothing.

A pool is fitted on scores of animals that nothing had seen (see offline_training). Weights, thresholds of sets and
the rest hang on the exposure n and are interpolated linearly in log n between knots.
Shapes: U units, C classes, E predictors, K knots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nuclr_stream.features.accumulator import FeatureSet
from nuclr_stream.features.unit_rows import Float64Array
from nuclr_stream.windows.binning import BoolArray, Float32Array


@dataclass(frozen=True, kw_only=True)
class LogLinearPool:
    """How the logits of `predictors` become probabilities: softmax(sum over predictors of weight(n) * logits).

    `n` (K,) are the knots, `weight` one row of K per predictor; the weights hold the temperature. `abstain_below` (K,)
    is the top-1 probability below which no class is called (at 1 none ever is), `set_above` (K,) the probability from
    which a class belongs to the conformal set (at 0 all classes do).
    """

    predictors: tuple[FeatureSet, ...]
    n: tuple[float, ...]
    weight: tuple[tuple[float, ...], ...]
    abstain_below: tuple[float, ...]
    set_above: tuple[float, ...]

    def probabilities(self, logits: Mapping[FeatureSet, Float32Array], n: Float32Array) -> Float32Array:
        """Return probabilities (U, C) for the logits (U, C) of every predictor and exposure n (U,)."""
        total = sum(
            self.at(row, n)[:, None] * log_softmax(logits[name])
            for name, row in zip(self.predictors, self.weight, strict=True)
        )
        probabilities: Float32Array = np.exp(log_softmax(np.asarray(total))).astype(np.float32)
        return probabilities

    def at(self, values: Sequence[float], n: Float32Array) -> Float64Array:
        """Interpolate values at the knots (K,) to exposure n (U,)."""
        return np.interp(np.log(np.maximum(n, 1.0)), np.log(self.n), values)

    def too_unsure(self, probabilities: Float32Array, n: Float32Array) -> BoolArray:
        """Return which units (U,) have too low a top probability to be called a class."""
        least = self.at(self.abstain_below, n)
        unsure: BoolArray = (probabilities.max(axis=1) < least) | (least >= 1)
        return unsure

    def sets(self, probabilities: Float32Array, n: Float32Array) -> BoolArray:
        """Return the classes (U, C) that belong to each unit's set; the top class always does."""
        inside = probabilities >= self.at(self.set_above, n)[:, None]
        inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
        return inside


def log_softmax(logits: Float32Array | Float64Array) -> Float64Array:
    """Logarithms (U, C) of softmax(logits), finite even for huge logits."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True).astype(np.float64)
    normalised: Float64Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


def with_prior(probabilities: Float32Array, assumed: Sequence[float], wanted: Sequence[float]) -> Float32Array:
    """Return probabilities (U, C) under the class prior `wanted` (C,) instead of the one that was `assumed` (C,).

    Where the probabilities leave nothing to any class that is wanted, the prior is the answer.
    """
    asked = np.asarray(wanted, np.float64)
    weighted = probabilities * (asked / np.maximum(np.asarray(assumed, np.float64), 1e-12))
    total = weighted.sum(axis=1, keepdims=True)
    changed: Float32Array = np.where(total > 0, weighted / np.where(total > 0, total, 1), asked).astype(np.float32)
    return changed
