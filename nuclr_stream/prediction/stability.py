"""Since when the top class of every unit stands: one clock per task and unit, O(units) a step, no history kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from nuclr_stream.windows.binning import BoolArray, Int64Array

NEVER = -1
"""The sample of a unit for which no clock runs."""


class Stability:
    """The top class of the units of one probe at their last answer, and the sample since which it is the same.

    Units go by the index that the source gave. A merged unit keeps the clock of its target, whatever the source was;
    `restart` is for a new epoch, whose sample numbers cannot be compared with those before.
    """

    def __init__(self) -> None:
        self._held: dict[str, dict[int, tuple[int, int]]] = {}

    def update(
        self, task: str, unit_index: Int64Array, *, top: Int64Array, has_prediction: BoolArray, end_sample: int
    ) -> tuple[Int64Array, int]:
        """Take the top classes (U,) of a window that ended at `end_sample`.

        Returns the samples (U,) int64 since which they are the same, and how many units had another one before. Units
        without a prediction give none: NEVER, and their clocks stay as they are. A first answer is no change.
        """
        held = self._held.setdefault(task, {})
        since, flips = np.full(len(unit_index), NEVER, dtype=np.int64), 0
        indices, tops = unit_index.tolist(), top.tolist()
        for row in np.flatnonzero(has_prediction).tolist():
            before = held.get(indices[row])
            # The clock counts answers, not steps: a unit that is silent for a while and comes back with the same class
            # is stable.
            if before is None or before[0] != tops[row]:
                flips += before is not None
                held[indices[row]] = before = tops[row], end_sample
            since[row] = before[1]
        return since, flips

    def forget(self, indices: Collection[int]) -> None:
        """Drop the clocks of units that were retired, reset or merged into another; one without clocks is no error."""
        for held in self._held.values():
            for index in indices:
                held.pop(index, None)

    def restart(self) -> None:
        """Drop all clocks: of a new epoch every first answer counts anew, and none of them is a change."""
        self._held.clear()

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything, for `load`: by task the units, their top classes and since when."""
        return {
            task: {
                "index": list(held),
                "top": [top for top, _ in held.values()],
                "since": [since for _, since in held.values()],
            }
            for task, held in self._held.items()
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        self._held = {
            task: dict(zip(held["index"], zip(held["top"], held["since"], strict=True), strict=True))
            for task, held in saved.items()
        }
