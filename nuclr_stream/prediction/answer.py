"""What the predictors of a task say together of each unit: the first pool of the manifest that has all it needs.

Shapes: U units, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nuclr_stream.bundle.manifest import TaskPart
from nuclr_stream.features.accumulator import FeatureSet, FeatureSnapshot
from nuclr_stream.prediction.pool import LogLinearPool, with_prior
from nuclr_stream.windows.binning import BoolArray, Float32Array

Logits = Callable[[FeatureSet, Float32Array, Float32Array], Float32Array]
"""Feature set by name, its features (U, F) and the exposure n (U,) that they rest on -> logits (U, C)."""


@dataclass(frozen=True)
class Answer:
    """Of each unit: calibrated probabilities (U, C), the classes of its set (U, C), whether the top class is too unsure
    to be called (U,), and whether any predictor could say anything (U,); the prior and all classes where none could."""

    probabilities: Float32Array
    sets: BoolArray
    unsure: BoolArray
    has_prediction: BoolArray

    @classmethod
    def nothing(cls, units: int, prior: Sequence[float]) -> Answer:
        """The answer about units without any prediction."""
        probabilities = np.tile(np.asarray(prior, dtype=np.float32), (units, 1))
        everything = np.ones_like(probabilities, dtype=np.bool_)
        return cls(probabilities, everything, np.ones(units, dtype=np.bool_), np.zeros(units, dtype=np.bool_))


def answer(
    task: TaskPart, seen: FeatureSnapshot, logits: Logits, *, prior: Sequence[float] | None, alone: bool
) -> Answer:
    """Let the predictors speak about the units of `seen`, under the class prior `prior` (C,) or that of the bundle.

    `alone` says that the population is too small to be believed: only predictors that look at one unit's spikes speak.
    """
    units = len(seen.n)
    found = Answer.nothing(units, prior or task.prior)
    predictions: dict[FeatureSet, Float32Array] = {}
    for pool in task.ways:
        if alone and set(pool.predictors) != {"statistics"}:
            continue
        chosen = _able(pool, seen.has, units) & ~found.has_prediction
        if chosen.any():
            for name in pool.predictors:
                if name not in predictions:
                    predictions[name] = logits(name, seen.features[name], seen.exposure_for(name))
            n = seen.exposure_for(*pool.predictors)[chosen]
            probabilities = pool.probabilities({name: predictions[name][chosen] for name in pool.predictors}, n)
            if prior is not None:
                probabilities = with_prior(probabilities, task.prior, prior)
            found.probabilities[chosen] = probabilities
            found.sets[chosen] = pool.sets(probabilities, n)
            found.unsure[chosen] = pool.too_unsure(probabilities, n)
            found.has_prediction[chosen] = True
    return found


def _able(pool: LogLinearPool, has: Mapping[FeatureSet, BoolArray], units: int) -> BoolArray:
    able = np.ones(units, dtype=bool)
    for name in pool.predictors:
        able &= has.get(name, np.zeros(units, dtype=bool))
    return able
