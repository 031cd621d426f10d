"""Features of a unit alone: its ISI histogram or its mean rate, over any stretch of a recording.

Both are counted in steps of one window, so that they have seen exactly as much as an encoder with hop = window.
Shapes: K steps, U units, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.accumulator import FeatureSnapshot
from nuclr_stream.features.spike_statistics import IsiHistogram, l1_normalised
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Float32Array, Grid, WindowSpec
from offline_training.evaluation.baselines.one_set import snapshot_of

IntArray = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class CountedSteps:
    """The feature set `name`: counts (K, U, F) that add up over steps, and which units fired in each (K, U).

    `finish` turns a sum of counts (U, F) and the seconds that it covers into features (U, F).
    """

    name: str
    recording_id: str
    subject_id: str
    end_s: npt.NDArray[np.float64]
    counts: IntArray
    fired: npt.NDArray[np.bool_]
    finish: Callable[[IntArray, float], Float32Array]
    steps_per_window: int = 1

    def snapshot(self, first: int, last: int) -> FeatureSnapshot:
        """Features (U, F) from steps [first, last); the exposure is in how many of them the unit fired."""
        seconds = self.end_s[last - 1] - (self.end_s[first - 1] if first else 0.0)
        total = self.counts[first:last].sum(axis=0, dtype=np.int64)
        fired = self.fired[first:last].sum(axis=0).astype(np.float32)
        return snapshot_of(self.name, self.finish(total, float(seconds)), fired)


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
    return _counted("isi", recording, spec, counts, spikes, finish=lambda total, seconds: l1_normalised(total))


def rate_steps(recording: Recording, spec: WindowSpec) -> CountedSteps:
    """The logarithm of the mean rate in Hz, half a spike added so that a silent unit has one."""
    units = len(recording.unit_ids)
    spikes = [np.bincount(rows, minlength=units) for _, rows in _cut(recording, spec)]
    counts = [step[:, None] for step in spikes]
    return _counted("rate", recording, spec, counts, spikes, finish=_log_rate)


def _log_rate(total: IntArray, seconds: float) -> Float32Array:
    rate: Float32Array = np.log((total + 0.5) / seconds).astype(np.float32)
    return rate


def _counted(
    name: str,
    recording: Recording,
    spec: WindowSpec,
    counts: Sequence[IntArray],
    spikes: Sequence[IntArray],
    *,
    finish: Callable[[IntArray, float], Float32Array],
) -> CountedSteps:
    return CountedSteps(
        name=name,
        recording_id=recording.recording_id,
        subject_id=recording.subject_id,
        end_s=np.arange(1.0, len(counts) + 1) * np.float64(spec.window_s),
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
