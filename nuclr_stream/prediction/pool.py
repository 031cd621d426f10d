"""Log-linear pools (products of experts, Hinton 2002): how several predictors become one calibrated probability.

log p is the weighted sum of the predictors' log-probabilities, normalised. Weights and thresholds depend on the
exposure and are interpolated linearly in log n between knots.
Shapes: U units, C classes, K knots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nuclr_stream.features.accumulator import FeatureSet
from nuclr_stream.features.exposure import knot_shares
from nuclr_stream.features.unit_rows import Float64Array
from nuclr_stream.windows.binning import BoolArray, Float32Array


@dataclass(frozen=True, kw_only=True)
class LogLinearPool:
    """How the log-probabilities of `predictors` become probabilities: softmax(sum of weight(n) * log p).

    Args:
        predictors: feature sets, each with a predictor of its own.
        n: knots of exposure (K,), ascending.
        weight: a row of K per predictor; the weights hold the temperature.
        abstain_below: (K,) top-1 probability below which no class is called; from 1 on none ever is.
        set_above: (K,) probability from which a class belongs to the conformal set; at 0 all classes do.
    """

    predictors: tuple[FeatureSet, ...]
    n: tuple[float, ...]
    weight: tuple[tuple[float, ...], ...]
    abstain_below: tuple[float, ...]
    set_above: tuple[float, ...]

    @classmethod
    def equal(
        cls,
        predictors: tuple[FeatureSet, ...],
        *,
        n: tuple[float, ...] = (1.0,),
        temperature: tuple[float, ...] = (1.0,),
        abstain_below: tuple[float, ...] | None = None,
        set_above: tuple[float, ...] | None = None,
    ) -> LogLinearPool:
        """Return the pool in which all predictors weigh alike, with a temperature (K,) at the knots `n` (K,)."""
        row = tuple(1 / (len(predictors) * t) for t in temperature)
        nothing = (0.0,) * len(n)
        return cls(
            predictors=predictors,
            n=n,
            weight=(row,) * len(predictors),
            abstain_below=abstain_below or nothing,
            set_above=set_above or nothing,
        )

    def probabilities(self, logits: Mapping[FeatureSet, Float32Array], exposure: Float32Array) -> Float32Array:
        """Return probabilities (U, C) for the logits (U, C) of every predictor at exposure (U,)."""
        # Log-probabilities, not logits, are added: logits of different predictors have different zeros.
        total = sum(
            self.at(row, exposure)[:, None] * log_softmax(logits[name])
            for name, row in zip(self.predictors, self.weight, strict=True)
        )
        probabilities: Float32Array = np.exp(log_softmax(np.asarray(total))).astype(np.float32)
        return probabilities

    def too_unsure(
        self, probabilities: Float32Array, exposure: Float32Array, abstain_below: float | None = None
    ) -> BoolArray:
        """Return which units (U,) have too low a top probability to be called, by the pool's threshold or another."""
        # A threshold of 1 means "never call": a probability that rounds to 1.0 must not slip through.
        least = self.least(exposure, abstain_below)
        unsure: BoolArray = (probabilities.max(axis=1) < least) | (least >= 1)
        return unsure

    def least(self, exposure: Float32Array, abstain_below: float | None = None) -> Float64Array:
        """Return the top probability (U,) that a call needs, by the pool's thresholds or another."""
        return self.at(self.abstain_below if abstain_below is None else [abstain_below] * len(self.n), exposure)

    def sets(self, probabilities: Float32Array, exposure: Float32Array) -> BoolArray:
        """Return the classes (U, C) that belong to each unit's set; the top class always does."""
        inside = probabilities >= self.at(self.set_above, exposure)[:, None]
        # The threshold of a set can lie above every probability; an empty set would promise nothing.
        inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
        return inside

    def at(self, values: Sequence[float], exposure: Float32Array) -> Float64Array:
        """Return what has `values` (K,) at the knots for units of some exposure (U,)."""
        return knot_shares(exposure, self.n) @ np.asarray(values, dtype=np.float64)


def log_softmax(logits: Float32Array | Float64Array) -> Float64Array:
    """Logarithms (U, C) of softmax(logits), finite even for huge logits."""
    # Shifted by the largest, so that exp cannot overflow.
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
