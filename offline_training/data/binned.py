"""A whole recording in bins, and the stretches of it that windows may be cut from while training.

Shapes: U units, T bins, M stretches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nuclr_stream.recordings.recording import Recorded, require_fit
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array, WindowSpec, grid_of
from nuclr_stream.windows.normaliser import running_scales
from offline_training.config import TrainConfig

Counts = npt.NDArray[np.uint8] | Float32Array


@dataclass(frozen=True)
class BinnedRecording:
    """Counts of a whole recording (U, all bins), as small integers where they fit, and its usable bins (M, 2).

    `scales` (all bins + 1,) are what traces of a view that ends at that bin are divided by; None for counts.
    """

    counts: Counts
    intervals: Int64Array
    scales: Float32Array | None = None

    def view(self, start: int, bins: int) -> Counts:
        """What the encoder gets of all units in bins [start, start + bins)."""
        values = self.counts[:, start : start + bins]
        return values if self.scales is None else values / self.scales[start + bins]


def bin_recording(recording: Recorded, config: TrainConfig) -> BinnedRecording:
    """Count a recording once and find its usable intervals, each at least two windows long.

    Masks, gaps, the dropped end and, where the rules say so, silent seconds with one second around them are cut out.
    """
    spec = config.window.spec
    require_fit(recording, spec)
    grid = grid_of(recording.sample_rate, spec)
    counts = recording.counts(grid)
    bins = counts.shape[1]
    usable = np.ones(bins, dtype=bool)
    usable[max(0, bins - int(config.training.drop_last_s * spec.bins_per_second)) :] = False
    for start, stop in np.concatenate([recording.mask_samples, recording.gap_samples]):
        usable[max(0, grid.bin_of(start)) : max(0, grid.bin_of(stop - 1) + 1)] = False
    if config.rules.cut_silence and spec.input_kind == "spikes":
        usable &= ~_silent(counts.sum(axis=0), spec)
    scales = _scales(recording, counts, spec)
    if scales is not None and spec.normaliser.trained_with == "running":
        usable[: spec.normaliser.warm_up_frames] = False
    intervals = _runs(usable)
    small = spec.input_kind == "spikes" and counts.size and counts.max() <= 255
    intervals = intervals[intervals[:, 1] - intervals[:, 0] >= 2 * spec.bins]
    return BinnedRecording(counts.astype(np.uint8) if small else counts, intervals, scales)


def _scales(recording: Recorded, counts: Float32Array, spec: WindowSpec) -> Float32Array | None:
    """What traces are divided by at every bin: the published percentile of the recording, or the running one."""
    if spec.normaliser is None:
        return None
    if spec.normaliser.trained_with == "running":
        return running_scales(counts, recording.observed, spec.normaliser.quantile)
    return np.full(counts.shape[1] + 1, recording.percentile(spec.normaliser.quantile), dtype=np.float32)


def _silent(totals: Float32Array, spec: WindowSpec) -> BoolArray:
    """Bins (T,) of whole silent seconds of the grid and of the second before and after each."""
    n, d = spec.bins_per_second.numerator, spec.bins_per_second.denominator
    seconds = len(totals) * d // n
    edges = -(-np.arange(seconds + 1) * n // d)
    sums = np.concatenate([[0], np.cumsum(totals, dtype=np.float64)])
    silent = np.zeros(len(totals), dtype=bool)
    for second in np.flatnonzero((np.diff(sums[edges]) == 0) & (np.diff(edges) > 0)):
        silent[edges[max(second - 1, 0)] : edges[second + 2] if second + 2 <= seconds else None] = True
    return silent


def _runs(usable: BoolArray) -> Int64Array:
    """Stretches (M, 2) [start, stop) of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], usable, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2).astype(np.int64)
