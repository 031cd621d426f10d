"""The linear readouts of a task beside the encoder's own, and how all of them speak together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nuclr_stream.features.accumulator import FeatureSet
from nuclr_stream.prediction.pool import LogLinearPool
from nuclr_stream.windows.binning import Float32Array
from offline_training.readouts.regression import Linear

Said = Mapping[FeatureSet, Float32Array]
"""Logits (R, C) by predictor."""


@dataclass(frozen=True)
class Predictors:
    """Linear readouts (F_set,) -> (C,) by feature set, each with its C, and the pools, the preferred first."""

    dim: int
    linears: Mapping[FeatureSet, Linear]
    c: Mapping[FeatureSet, float]
    out_of_fold_f1: Mapping[FeatureSet, float]
    pools: tuple[LogLinearPool, ...]
    typical_scatter: float
    sets_promise: str

    @property
    def sets(self) -> tuple[FeatureSet, ...]:
        """The feature sets in the order of a joined row."""
        return tuple(self.linears)
