"""The answer to a task: the first pool of the manifest that has all it needs of a unit.

Shapes: U units, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nuclr_stream.features.accumulator import ALONE, FeatureSet, FeatureSnapshot
from nuclr_stream.prediction.pool import LogLinearPool, with_prior
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array

Logits = Mapping[FeatureSet, Float32Array]
"""Logits (U, C) by feature set, of the predictor that reads it."""


@dataclass(frozen=True)
class Answer:
    """Of each unit: calibrated probabilities (U, C), the classes of its set (U, C), whether the top class is too unsure
    to be called (U,), and which pool had all it needs (U,), -1 for none; the prior and all classes where none had."""

    probabilities: Float32Array
    sets: BoolArray
    unsure: BoolArray
    pool: Int64Array

    @property
    def has_prediction(self) -> BoolArray:
        """Whether any pool had all it needs (U,)."""
        has_prediction: BoolArray = self.pool >= 0
        return has_prediction

    @classmethod
    def nothing(cls, units: int, prior: Sequence[float]) -> Answer:
        """The answer about units without any prediction."""
        probabilities = np.tile(np.asarray(prior, dtype=np.float32), (units, 1))
        everything = np.ones_like(probabilities, dtype=np.bool_)
        return cls(probabilities, everything, np.ones(units, dtype=np.bool_), np.full(units, -1))


def answer(
    pools: Sequence[LogLinearPool],
    snapshot: FeatureSnapshot,
    logits: Logits,
    *,
    prior: Sequence[float],
    wanted: Sequence[float] | None = None,
    alone: bool = False,
    abstain_below: float | None = None,
) -> Answer:
    """Return what a task predicts of the units of `snapshot` (U,).

    Args:
        pools: ways to answer, the preferred first; a unit gets the first for which it has every feature set.
        logits: of every predictor that a pool names.
        prior: class prior (C,) that the pools' probabilities assume.
        wanted: class prior (C,) to predict under instead.
        alone: the population is too small to be believed: only pools of the unit's own spike statistics count.
        abstain_below: threshold in the place of the pools' own.
    """
    units = len(snapshot.exposure)
    found = Answer.nothing(units, wanted or prior)
    for place, pool in enumerate(pools):
        # Neighbours and embeddings of a population that is too small are those of another kind of recording.
        if alone and set(pool.predictors) != {ALONE}:
            continue
        able = np.logical_and.reduce([snapshot.has[name] for name in pool.predictors])
        # The order of the manifest decides: what an earlier pool answered, a later one does not overwrite.
        chosen = able & ~found.has_prediction
        if not chosen.any():
            continue
        exposure = snapshot.exposure_of(pool.predictors)[chosen]
        probabilities = pool.probabilities({name: logits[name][chosen] for name in pool.predictors}, exposure)
        if wanted is not None:
            # Before sets and thresholds: both are about the probabilities that are shown.
            probabilities = with_prior(probabilities, prior, wanted)
        found.probabilities[chosen] = probabilities
        found.sets[chosen] = pool.sets(probabilities, exposure)
        found.unsure[chosen] = pool.too_unsure(probabilities, exposure, abstain_below)
        found.pool[chosen] = place
    return found
