"""Spike-train statistics of single units, incremental and over a whole recording in one definition.

The inter-spike-interval (ISI) histogram is the training-free baseline of the field: 128 log-spaced bins from 1 ms to
3 s, divided by their sum. Counts only ever grow, so any chunking of the same spikes gives the same histogram.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.isi import INTERVAL_BINS
from nuclr_stream.features.unit_rows import UnitRows
from nuclr_stream.windows.binning import Float32Array, Int64Array, WindowSpec

ISI_BINS = 128
ISI_RANGE_S = (0.001, 3.0)
STATISTICS = 20
"""Features of `SpikeStatistics`."""


class IsiHistogram:
    """Interval counts of U units on one device clock; spikes come in chunks, in the order of their samples.

    An interval below 1 ms or of 3 s and more is in no bin. It is counted when its second spike arrives.
    """

    def __init__(self, units: int, sample_rate: Fraction) -> None:
        self.counts: Int64Array = np.zeros((units, ISI_BINS), dtype=np.int64)
        self._edges_samples = np.geomspace(*ISI_RANGE_S, ISI_BINS + 1) * float(sample_rate)
        self._last = np.full(units, -1, dtype=np.int64)
        self._seen = np.zeros(units, dtype=bool)

    def push(self, samples: Int64Array, rows: npt.NDArray[np.integer]) -> None:
        """Add spikes: sample numbers (N,) ascending, also from one call to the next, and unit rows (N,) below U.

        Raises ValueError when `samples` goes back and IndexError for a row that is no unit.
        """
        if (np.diff(samples) < 0).any():
            raise ValueError(f"samples go back at position {int(np.argmax(np.diff(samples) < 0)) + 1}; sort them")
        order = np.argsort(rows, kind="stable")
        unit, at = rows[order], samples[order]
        first = np.ones(len(unit), dtype=bool)
        first[1:] = unit[1:] != unit[:-1]
        before = np.where(first, self._last[unit], np.roll(at, 1))
        known = ~first | self._seen[unit]
        self._count(unit[known], (at - before)[known])
        self._last[unit] = at  # units are in blocks, samples ascend within: the last assignment stays
        self._seen[unit] = True

    def normalised(self) -> Float32Array:
        """Return the histograms (U, 128), each with sum 1, or zeros for a unit without a single interval."""
        return l1_normalised(self.counts)

    def _count(self, unit: npt.NDArray[np.integer], interval_samples: Int64Array) -> None:
        index = np.searchsorted(self._edges_samples, interval_samples, side="right") - 1
        inside = (index >= 0) & (index < ISI_BINS)
        np.add.at(self.counts, (unit[inside], index[inside]), 1)


def l1_normalised(counts: npt.NDArray[np.integer] | npt.NDArray[np.floating]) -> Float32Array:
    """Divide every row of counts (U, F), none negative, by its sum; rows of zeros stay zeros."""
    shares: Float32Array = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).astype(np.float32)
    return shares


class SpikeStatistics:
    """What single units' spike trains add up to: intervals, rate, and variability at three time scales, by unit index.

    Everything is a sum over patches (1 s) that were observed, so that stretches of any length are described alike.
    """

    def __init__(self, spec: WindowSpec) -> None:
        patch = spec.bins_per_patch
        tenth = max(k for k in range(1, max(patch // 10, 1) + 1) if patch % k == 0)  # patches are made of whole ones
        self._scales = (1, tenth, patch)
        self._bin_s = float(1 / spec.bins_per_second)
        self._sums = UnitRows(INTERVAL_BINS + 2 + len(self._scales))  # intervals, bins, spikes, squares per scale

    def add_counts(self, indices: Int64Array, counts: Float32Array) -> None:
        """Add counts (U, bins) of whole patches of the units `indices` (U,)."""
        units, bins = counts.shape
        # float64: squares of counts over hours pass 2**24, where float32 loses single spikes.
        exact = counts.astype(np.float64)
        squares = [np.square(exact.reshape(units, -1, k).sum(axis=2)).sum(axis=1) for k in self._scales]
        columns = [np.full(units, bins), exact.sum(axis=1), *squares]
        self._sums.add(indices, np.hstack([np.zeros((units, INTERVAL_BINS)), np.column_stack(columns)]))

    def add_intervals(self, indices: Int64Array, intervals: npt.NDArray[np.integer]) -> None:
        """Add interval counts (U, 17), see `intervals`."""
        rest = self._sums.read(indices[:0]).shape[1] - INTERVAL_BINS
        self._sums.add(indices, np.pad(intervals.astype(np.float64), ((0, 0), (0, rest))))

    def seconds(self, indices: Int64Array) -> npt.NDArray[np.float64]:
        """For how long each unit (U,) has been observed."""
        return self._sums.read(indices)[:, INTERVAL_BINS] * self._bin_s

    def spikes(self, indices: Int64Array) -> npt.NDArray[np.float64]:
        """How many spikes each unit (U,) fired in that time."""
        return self._sums.read(indices)[:, INTERVAL_BINS + 1]

    def intervals(self, indices: Int64Array) -> npt.NDArray[np.float64]:
        """Interval counts (U, 17), see `intervals`."""
        return self._sums.read(indices)[:, :INTERVAL_BINS]

    def features(self, indices: Int64Array) -> Float32Array:
        """Return (U, STATISTICS): square roots of the 16 interval shares, log rate, log Fano factor at three scales.

        Roots tame the counting noise of shares; small constants keep logarithms finite for units of few spikes.
        """
        sums = self._sums.read(indices)
        intervals, bins, spikes = sums[:, 1:INTERVAL_BINS], sums[:, INTERVAL_BINS], sums[:, INTERVAL_BINS + 1]
        seconds = np.maximum(bins, 1) * self._bin_s
        shares = np.sqrt(intervals / np.maximum(intervals.sum(axis=1, keepdims=True), 1))
        columns = [np.log((spikes + 0.5) / seconds)]
        for scale, squares in zip(self._scales, sums[:, INTERVAL_BINS + 2 :].T, strict=True):
            mean = spikes * scale / np.maximum(bins, 1)
            # Clipped: a variance of two large, nearly equal sums can come out just below zero.
            variance = np.maximum(squares * scale / np.maximum(bins, 1) - np.square(mean), 0)
            columns.append(np.log((variance + 0.1 / seconds) / (mean + 0.1 / seconds)))
        features: Float32Array = np.column_stack([shares, *columns]).astype(np.float32)
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
