"""Coupling of single units to their population at millisecond lags: who fires before whom.

What the rest of the population does within 50 ms of a unit's spikes (its spike-triggered population rate) tells a
fast-spiking interneuron, which excitatory spikes lead by a few milliseconds, from its neighbours; bins of 20 ms cannot.
Everything is kept as sums of integers, so that any chunking of the same spikes gives the same numbers.
Shapes: U units, L lags, B fine bins.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.isi import RowsOf
from nuclr_stream.features.unit_rows import UnitRows
from nuclr_stream.windows.binning import Float32Array, Grid, Int64Array

FINE_BINS_PER_SECOND = 500
REACH = 25
"""Lags go from -REACH to +REACH fine bins, 50 ms to either side; at a positive lag the unit fires first."""
LAG_EDGES = (-25, -20, -15, -10, -7, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 21, 26)
"""Fine bins whose lags are added up in the features: single ones near 0, wider ones far from it."""
COUPLING = len(LAG_EDGES) - 1
"""Features of `Coupling`."""
COUPLING_SUMS = 2 * REACH + 1 + 3
"""Per unit: spikes of the others by lag; its own spikes, the spikes of the others, and the fine bins counted."""

_LAGS = 2 * REACH + 1
_CHUNK = 500
"""Fine bins of one matrix product: sums of float32 stay exact integers."""
_PRIOR_SPIKES = 2.0
"""Spikes, as many as expected, that are added to both sides of a ratio: few spikes say little."""


def fine_grid(grid: Grid) -> Grid:
    """Return the grid of 2 ms bins on the same clock and with the same origin as the grid of windows."""
    return Grid(grid.sample_rate, Fraction(FINE_BINS_PER_SECOND), grid.origin)


class CouplingCounts:
    """Spikes wait here until the window that they fall into is cut, as in `isi.Intervals`.

    A spike is a reference once REACH fine bins after it are known, so the last 50 ms of a window count in the next one.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = fine_grid(grid)
        self._bins: list[Int64Array] = []
        self._units: list[Int64Array] = []
        self._next: int | None = None  # the first fine bin that was no reference yet

    def add(self, samples: Int64Array, units: Int64Array) -> None:
        """Take spikes: sample numbers (N,) in any order and unit indices (N,)."""
        self._bins.append(self._grid.bin_of(samples))
        self._units.append(units)

    def take(self, first_sample: int, end_sample: int, index: Int64Array, rows_of: RowsOf) -> Int64Array:
        """Return the sums (U, COUPLING_SUMS) of the units `index` (U,) over the window's bins that are new.

        The window holds samples [first_sample, end_sample). Spikes of units that are not there count nowhere.
        """
        # Lags reach REACH bins ahead, so the last 50 ms of a window can be no references yet: the next window counts
        # them.
        stop = int(self._grid.bin_of([end_sample])[0]) - REACH
        start = int(self._grid.bin_of([first_sample])[0])
        # Never before what was counted already (windows overlap), never before the window (what lies there was not
        # cut).
        start = min(max(start, start if self._next is None else self._next), stop)
        bins = np.concatenate([np.zeros(0, np.int64), *self._bins])
        units = np.concatenate([np.zeros(0, np.int64), *self._units])
        kept = bins >= stop - REACH  # those of the next references, and what comes before them
        self._bins, self._units, self._next = [bins[kept]], [units[kept]], stop
        rows = rows_of(units)
        inside = (rows >= 0) & (bins >= start - REACH) & (bins < stop + REACH)
        bins, rows = bins[inside] - start, rows[inside]
        sums = np.zeros((len(index), COUPLING_SUMS), dtype=np.int64)
        if not len(bins):  # traces, and silence
            sums[:, -1] = stop - start
            return sums
        order = np.lexsort((bins, rows))
        bins, rows = bins[order], rows[order]
        # In pieces: float32 products are exact and fast as long as no sum reaches 2**24.
        for first in range(0, stop - start, _CHUNK):
            last = min(first + _CHUNK, stop - start)
            near = (bins >= first - REACH) & (bins < last + REACH)
            _count(sums, bins[near] - first, rows[near], last - first)
        return sums

    def dump(self) -> dict[str, Any]:
        """Return everything, for `load`; the arrays in it never change."""
        return {"bins": list(self._bins), "units": list(self._units), "next": self._next}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        self._bins, self._units, self._next = list(saved["bins"]), list(saved["units"]), saved["next"]


def _count(sums: Int64Array, bins: Int64Array, rows: Int64Array, references: int) -> None:
    """Add to sums (U, COUPLING_SUMS) what spikes at fine bins [0, references) see from -REACH to +REACH around them.

    `bins` (N,) reach from -REACH to references + REACH - 1; spikes are sorted by row, then bin.
    """
    width = references + 2 * REACH
    flat = np.bincount(rows * width + bins + REACH, minlength=len(sums) * width)
    counts = flat.reshape(len(sums), width).astype(np.float32)
    around = np.lib.stride_tricks.sliding_window_view(counts.sum(axis=0), _LAGS)  # (references, L)
    own_counts = counts[:, REACH : REACH + references]
    # One product of what all units do together, minus each unit's own: a product per pair of units would be U times
    # more.
    everyone = (own_counts @ around).astype(np.int64)
    everyone -= _own(bins, rows, len(sums), references)
    spikes = own_counts.sum(axis=1).astype(np.int64)
    sums[:, :_LAGS] += everyone
    sums[:, _LAGS] += spikes
    sums[:, _LAGS + 1] += spikes.sum() - spikes
    sums[:, _LAGS + 2] += references


def _own(bins: Int64Array, rows: Int64Array, units: int, references: int) -> Int64Array:
    """Return how often each unit sees its own spikes (U, L), itself at lag 0 included."""
    reference = (bins >= 0) & (bins < references)
    found = np.bincount(rows[reference] * _LAGS + REACH, minlength=units * _LAGS)
    # Spikes are sorted by unit and time: the k-th neighbours of all spikes in one go, until none lies within reach.
    for step in range(1, len(bins)):
        lag = bins[step:] - bins[:-step]
        pair = (rows[step:] == rows[:-step]) & (lag <= REACH)
        if not pair.any():
            break
        row, lag = rows[step:][pair], lag[pair]
        first, second = reference[:-step][pair], reference[step:][pair]
        found += np.bincount(row[first] * _LAGS + REACH + lag[first], minlength=units * _LAGS)
        found += np.bincount(row[second] * _LAGS + REACH - lag[second], minlength=units * _LAGS)
    return found.reshape(units, _LAGS)


class Coupling:
    """What the couplings of single units add up to, by unit index."""

    def __init__(self) -> None:
        self._sums = UnitRows(COUPLING_SUMS)

    def add(self, indices: Int64Array, sums: npt.NDArray[np.integer]) -> None:
        """Add sums (U, COUPLING_SUMS) of the units `indices` (U,), see `CouplingCounts.take`."""
        self._sums.add(indices, sums.astype(np.float64))

    def spikes(self, indices: Int64Array) -> npt.NDArray[np.float64]:
        """Return how many reference spikes of each unit (U,) were counted."""
        return self._sums.read(indices)[:, _LAGS]

    def features(self, indices: Int64Array) -> Float32Array:
        """Return (U, COUPLING): the logarithm of the others' rate at every lag over their mean rate.

        Two spikes as expected are added to both, which keeps the logarithm finite and few spikes near 0.
        """
        sums = self._sums.read(indices)
        spikes, others, bins = sums[:, _LAGS, None], sums[:, _LAGS + 1, None], sums[:, _LAGS + 2, None]
        width = np.diff(LAG_EDGES)
        seen = np.add.reduceat(sums[:, :_LAGS], np.array(LAG_EDGES[:-1]) + REACH, axis=1)
        # What the others would fire around as many random moments: with it, busy and quiet populations are comparable.
        expected = spikes * others / np.maximum(bins, 1) * width
        features: Float32Array = np.log((seen + _PRIOR_SPIKES) / (expected + _PRIOR_SPIKES)).astype(np.float32)
        return features

    def merge(self, source: int, target: int) -> None:
        """Add what unit `source` has gathered to unit `target` and forget `source`."""
        self._sums.merge(source, target)

    def forget(self, indices: Collection[int]) -> None:
        """Drop what units have gathered."""
        self._sums.forget(indices)

    def reindex(self, index_of: Mapping[int, int]) -> None:
        """Keep only the units named in `index_of` (old index -> new index), under their new indices."""
        self._sums.reindex(index_of)

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything, for `load`."""
        return self._sums.dump()

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        self._sums.load(saved)
