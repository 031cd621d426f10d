"""Inter-spike intervals of the units of one probe, counted window by window from spikes that may come late.

Seventeen bins: intervals below 1 ms, which a sorted neuron has next to none of, then 16 log-spaced bins from 1 ms to
3 s. An interval belongs to the window in which its second spike falls; 3 s and more is in no bin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.windows.binning import Int64Array

INTERVAL_BINS = 17
INTERVAL_RANGE_S = (0.001, 3.0)

Int32Array = npt.NDArray[np.int32]
RowsOf = Callable[[Int64Array], Int64Array]
"""Unit indices (N,) -> rows (N,), -1 for a unit that is not there."""


class Intervals:
    """Spikes wait here until the window that they fall into is cut; the last spike of every unit is remembered."""

    def __init__(self, sample_rate: Fraction) -> None:
        log_spaced = np.geomspace(*INTERVAL_RANGE_S, INTERVAL_BINS) * float(sample_rate)
        self._edges_samples = np.append(0.0, log_spaced)
        self._samples: list[Int64Array] = []
        self._units: list[Int64Array] = []
        self._last: dict[int, int] = {}

    def add(self, samples: Int64Array, units: Int64Array) -> None:
        """Take spikes: sample numbers (N,) in any order and unit indices (N,)."""
        self._samples.append(samples)
        self._units.append(units)

    def take(self, end_sample: int, index: Int64Array, rows_of: RowsOf) -> Int32Array:
        """Count the intervals (U, 17) of the units `index` (U,) whose second spike came before `end_sample`.

        Those spikes are forgotten but for each unit's last; spikes of units that are not there count nowhere.
        """
        samples = np.concatenate([np.zeros(0, np.int64), *self._samples])
        units = np.concatenate([np.zeros(0, np.int64), *self._units])
        # Spikes behind this window wait for theirs, in whatever order they came.
        now = samples < end_sample
        self._samples, self._units = [samples[~now]], [units[~now]]
        # By the unit table as it is now: spikes of a merged unit count for its target, those of a retired one nowhere.
        rows = rows_of(units[now])
        known = rows >= 0
        counts = self._count(samples[now][known], rows[known], index)
        if len(self._last) > len(index):  # units that are gone never come back: else these grew with all ever seen
            self._last = {unit: last for unit in index.tolist() if (last := self._last.get(unit)) is not None}
        return counts

    def dump(self) -> dict[str, Any]:
        """Return everything, for `load`; the arrays in it never change."""
        return {
            "samples": list(self._samples),
            "units": list(self._units),
            "last_units": list(self._last),
            "last_samples": list(self._last.values()),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        self._samples, self._units = list(saved["samples"]), list(saved["units"])
        self._last = dict(zip(saved["last_units"], saved["last_samples"], strict=True))

    def _count(self, samples: Int64Array, rows: Int64Array, index: Int64Array) -> Int32Array:
        order = np.argsort(samples, kind="stable")  # next to nothing where they come in order, as they mostly do
        order = order[np.argsort(rows[order].astype(np.uint16), kind="stable")]  # short integers are sorted by radix
        at, row = samples[order], rows[order]
        first = np.ones(len(row), dtype=bool)
        first[1:] = row[1:] != row[:-1]
        before = np.roll(at, 1)
        # The first spike of a unit ends no interval: there is none before it.
        never = np.iinfo(np.int64).min
        before[first] = [self._last.get(int(unit), never) for unit in index[row[first]]]
        seen = before > never
        ends = np.append(first[1:], True)[: len(row)]
        self._last.update(zip(index[row[ends]].tolist(), at[ends].tolist(), strict=True))
        place = np.searchsorted(self._edges_samples, (at - before)[seen], side="right") - 1
        inside = (place >= 0) & (place < INTERVAL_BINS)
        flat = np.bincount(row[seen][inside] * INTERVAL_BINS + place[inside], minlength=len(index) * INTERVAL_BINS)
        return flat.reshape(len(index), INTERVAL_BINS).astype(np.int32)
