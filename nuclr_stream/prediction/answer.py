"""What the experts of a task say together of each unit: the first fusion of the manifest that has all it needs.

Shapes: U units, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nuclr_stream.bundle.manifest import TaskPart
from nuclr_stream.features.accumulator import FeatureSet, Seen
from nuclr_stream.prediction.pool import Fusion, with_prior
from nuclr_stream.windows.binning import BoolArray, Float32Array

Logits = Callable[[FeatureSet, Float32Array, Float32Array], Float32Array]
"""Feature set by name, its features (U, F) and the evidence n (U,) that they rest on -> logits (U, C)."""


@dataclass(frozen=True)
class Answer:
    """Of each unit: calibrated probabilities (U, C), the classes of its set (U, C), whether the top class is too unsure
    to be called (U,), and whether any expert could say anything (U,); the prior and all classes where none could."""

    probabilities: Float32Array
    sets: BoolArray
    unsure: BoolArray
    spoke: BoolArray

    @classmethod
    def nothing(cls, units: int, prior: Sequence[float]) -> Answer:
        """The answer about units of which nothing can be said."""
        probabilities = np.tile(np.asarray(prior, dtype=np.float32), (units, 1))
        everything = np.ones_like(probabilities, dtype=np.bool_)
        return cls(probabilities, everything, np.ones(units, dtype=np.bool_), np.zeros(units, dtype=np.bool_))


def answer(task: TaskPart, seen: Seen, logits: Logits, *, prior: Sequence[float] | None, alone: bool) -> Answer:
    """Let the experts speak about the units of `seen`, under the class prior `prior` (C,) or that of the bundle.

    `alone` says that the population is too small to be believed: only experts that look at one unit's spikes speak.
    """
    units = len(seen.n)
    found = Answer.nothing(units, prior or task.prior)
    said: dict[FeatureSet, Float32Array] = {}
    for fusion in task.ways:
        if alone and set(fusion.experts) != {"statistics"}:
            continue
        chosen = _able(fusion, seen.has, units) & ~found.spoke
        if chosen.any():
            for name in fusion.experts:
                if name not in said:
                    said[name] = logits(name, seen.features[name], seen.n_for(name))
            n = seen.n_for(*fusion.experts)[chosen]
            probabilities = fusion.probabilities({name: said[name][chosen] for name in fusion.experts}, n)
            if prior is not None:
                probabilities = with_prior(probabilities, task.prior, prior)
            found.probabilities[chosen] = probabilities
            found.sets[chosen] = fusion.sets(probabilities, n)
            found.unsure[chosen] = fusion.too_unsure(probabilities, n)
            found.spoke[chosen] = True
    return found


def _able(fusion: Fusion, has: Mapping[FeatureSet, BoolArray], units: int) -> BoolArray:
    able = np.ones(units, dtype=bool)
    for name in fusion.experts:
        able &= has.get(name, np.zeros(units, dtype=bool))
    return able
