"""Features of a unit alone: its ISI histogram, its mean rate or both, over any stretch of a recording.

Both are counted in steps of one window, so that they have seen exactly as much as an encoder with hop = window.
Shapes: K steps, U units, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.spike_statistics import IsiHistogram, l1_normalised
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Float32Array, Grid, WindowSpec

IntArray = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class CountedSteps:
    """Counts (K, U, F) that add up over steps, and which units fired in each (K, U).

    `finish` turns a sum of counts (U, F) and the seconds that it covers into features (U, F).
    """

    recording_id: str
    subject_id: str
    end_s: npt.NDArray[np.float64]
    counts: IntArray
    fired: npt.NDArray[np.bool_]
    finish: Callable[[IntArray, float], Float32Array]
    steps_per_window: int = 1

    def between(self, first: int, last: int) -> tuple[Float32Array, Float32Array]:
        """Features (U, F) from steps [first, last) and in how many of them (U,) the unit fired."""
        seconds = self.end_s[last - 1] - (self.end_s[first - 1] if first else 0.0)
        total = self.counts[first:last].sum(axis=0, dtype=np.int64)
        return self.finish(total, float(seconds)), self.fired[first:last].sum(axis=0).astype(np.float32)


def isi_steps(recording: Recording, spec: WindowSpec) -> CountedSteps:
    """The 128-bin ISI histogram: an interval belongs to the step in which its second spike falls."""
    histogram = IsiHistogram(len(recording.unit_ids), recording.sample_rate)
    before = histogram.counts.copy()
    counts, spikes = [], []
    for samples, rows in _cut(recording, spec):
        histogram.push(samples, rows)
        counts.append((histogram.counts - before).astype(np.int32))
        spikes.append(np.bincount(rows, minlength=len(recording.unit_ids)))
        before = histogram.counts.copy()
    return _counted(recording, spec, counts, spikes, lambda total, seconds: l1_normalised(total))


def rate_steps(recording: Recording, spec: WindowSpec) -> CountedSteps:
    """The logarithm of the mean rate in Hz, half a spike added so that a silent unit has one."""
    units = len(recording.unit_ids)
    spikes = [np.bincount(rows, minlength=units) for _, rows in _cut(recording, spec)]
    counts = [step[:, None] for step in spikes]
    return _counted(recording, spec, counts, spikes, _log_rate)


def statistics_steps(isi: CountedSteps, rate: CountedSteps) -> CountedSteps:
    """Both of one recording: square roots of the ISI shares, which tame their counting noise, and the log mean rate."""

    def finish(total: IntArray, seconds: float) -> Float32Array:
        shares = isi.finish(total[:, :-1], seconds)
        return np.hstack([np.sqrt(shares), rate.finish(total[:, -1:], seconds)]).astype(np.float32)

    return replace(isi, counts=np.concatenate([isi.counts, rate.counts], axis=2), finish=finish)


def _log_rate(total: IntArray, seconds: float) -> Float32Array:
    return np.log((total + 0.5) / seconds).astype(np.float32)


def _counted(
    recording: Recording,
    spec: WindowSpec,
    counts: list[IntArray],
    spikes: list[IntArray],
    finish: Callable[[IntArray, float], Float32Array],
) -> CountedSteps:
    return CountedSteps(
        recording_id=recording.recording_id,
        subject_id=recording.subject_id,
        end_s=np.arange(1, len(counts) + 1) * spec.window_s,
        counts=np.stack(counts),
        fired=np.stack(spikes) > 0,
        finish=finish,
    )


def _cut(recording: Recording, spec: WindowSpec) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]]:
    """Spikes of every whole window-long step on the grid of the recording."""
    grid = Grid(recording.sample_rate, spec.bins_per_second)
    steps = grid.complete_bins(recording.num_samples) // spec.bins
    edges = np.searchsorted(recording.spike_samples, [grid.first_sample(k * spec.bins) for k in range(steps + 1)])
    return [(recording.spike_samples[a:b], recording.spike_units[a:b]) for a, b in pairwise(edges)]
