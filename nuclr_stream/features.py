"""Spike-train statistics of single units, incremental and over a whole recording in one definition.

The inter-spike-interval (ISI) histogram is the training-free baseline of the field: 128 log-spaced bins from 1 ms to
3 s, divided by their sum. Counts only ever grow, so any chunking of the same spikes gives the same histogram.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nuclr_stream.binning import Float32Array, Int64Array

ISI_BINS = 128
ISI_RANGE_S = (0.001, 3.0)


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
