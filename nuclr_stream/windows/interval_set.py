"""Stretches of samples: which parts of a stream were observed, or are masked."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np

from nuclr_stream.windows.binning import MAX_SAMPLE, BoolArray, Int64Array


class Stretches:
    """A set of sample numbers kept as sorted, disjoint [start, stop) stretches."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> None:
        """Add [start, stop); it melts together with every stretch that it touches."""
        if start >= stop:
            return
        # Stretches that only touch are joined too (left on stops, right on starts): thousands of batches that follow
        # one another stay one stretch.
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def inside(self, start: int, stop: int) -> int:
        """Return how many samples of [start, stop) are in the set."""
        first = bisect_right(self._stops, start)
        last = bisect_left(self._starts, stop)
        pairs = zip(self._starts[first:last], self._stops[first:last], strict=True)
        return sum(min(b, stop) - max(a, start) for a, b in pairs)

    def before(self, samples: Int64Array) -> Int64Array:
        """Return how many samples of the set lie before each of `samples` (N,)."""
        starts, stops = np.array(self._starts, dtype=np.int64), np.array(self._stops, dtype=np.int64)
        # One search for all samples: a recording may have tens of thousands of masks.
        sums = np.append(0, np.cumsum(stops - starts))
        place = np.searchsorted(stops, samples, side="right")
        # behind the last stretch there is none to be within: compare with a sample beyond all of them
        within = np.maximum(samples - np.append(starts, MAX_SAMPLE)[place], 0)
        counts: Int64Array = sums[place] + within
        return counts

    def holds(self, samples: Int64Array) -> BoolArray:
        """Return which of `samples` (N,) are in the set."""
        place = np.searchsorted(np.array(self._stops, dtype=np.int64), samples, side="right")
        inside: BoolArray = np.append(np.array(self._starts, dtype=np.int64), np.iinfo(np.int64).max)[place] <= samples
        return inside

    def reaching(self, start: int, stop: int) -> tuple[int, int]:
        """Return [start, stop) made longer, so that it touches the stretch before it, or else the one behind."""
        place = bisect_left(self._starts, start)
        if place:
            return min(start, self._stops[place - 1]), stop
        return start, max(stop, self._starts[0]) if self._starts else stop

    def first_from(self, sample: int) -> int | None:
        """Return the smallest sample >= `sample` in the set, or None."""
        place = bisect_right(self._stops, sample)
        return max(sample, self._starts[place]) if place < len(self._starts) else None

    def forget_before(self, sample: int) -> None:
        """Drop the stretches that end at or before `sample`."""
        place = bisect_right(self._stops, sample)
        del self._starts[:place], self._stops[:place]

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything, for `load`."""
        return {"starts": list(self._starts), "stops": list(self._stops)}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        self._starts, self._stops = list(saved["starts"]), list(saved["stops"])

    def __len__(self) -> int:
        return len(self._starts)
