"""A whole recording in bins, and the stretches of it that windows may be cut from while training.

Shapes: U units, T bins, M stretches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.recordings.recording import require_fit
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array, WindowSpec, grid_of
from nuclr_stream.windows.normaliser import Normalisation, running_scales
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


def bin_recording(recording: AnyRecording, config: TrainConfig) -> BinnedRecording:
    """Count a recording once and find its usable intervals, each at least two windows long.

    Masks, gaps, the dropped end and, where the rules say so, silent seconds with one second around them are cut out; of
    traces also what the running normaliser has no scale for.
    """
    spec = config.window.spec
    require_fit(recording, spec)
    grid = grid_of(recording.sample_rate, spec)
    counts = recording.counts(grid)
    bins = counts.shape[1]
    usable = np.ones(bins, dtype=bool)
    usable[max(0, bins - int(config.training.drop_last_s * spec.bins_per_second)) :] = False
    # A bin that a mask or gap touches at all holds too few spikes or frames: it goes as a whole.
    for start, stop in np.concatenate([recording.mask_samples, recording.gap_samples]).tolist():
        first, last = grid.bin_of([start, stop - 1]).tolist()
        usable[max(0, first) : max(0, last + 1)] = False
    if config.rules.cut_silence and spec.input_kind == "spikes":
        usable &= ~_silent(counts.sum(axis=0), spec)
    scales = None
    if spec.normaliser is not None and isinstance(recording, TraceRecording):
        scales = _scales(recording, counts, spec.normaliser)
        usable &= _has_scale(recording, spec.normaliser, scales)
    intervals = _runs(usable)
    # Two windows long: with one window only, both views of a pair would be the same.
    intervals = intervals[intervals[:, 1] - intervals[:, 0] >= 2 * spec.bins]
    # Whole numbers that fit into a byte take a quarter of the memory; traces are no whole numbers.
    small = spec.input_kind == "spikes" and counts.size and counts.max() <= 255
    return BinnedRecording(counts.astype(np.uint8) if small else counts, intervals, scales)


def _scales(recording: TraceRecording, counts: Float32Array, normaliser: Normalisation) -> Float32Array:
    """What traces are divided by at every bin: the published percentile of the recording, or the running one."""
    if normaliser.trained_with == "running":
        return running_scales(counts, recording.observed, normaliser.quantile)
    return np.full(recording.num_samples + 1, recording.percentile(normaliser.quantile), dtype=np.float32)


def _has_scale(recording: TraceRecording, normaliser: Normalisation, scales: Float32Array) -> BoolArray:
    """Bins (T,) that views may hold: those after `warm_up_frames` observed ones, with a scale above 0 at their end.

    The daemon embeds nothing before either, and a view that ends at a bin is divided by the scale there.
    """
    if normaliser.trained_with == "offline":
        return np.ones(recording.num_samples, dtype=bool)
    before: Int64Array = np.cumsum(recording.observed) - recording.observed
    return np.asarray((before >= normaliser.warm_up_frames) & (scales[1:] > 0))


def _silent(totals: Float32Array, spec: WindowSpec) -> BoolArray:
    """Bins (T,) of whole silent seconds of the grid and of the second before and after each."""
    n, d = spec.bins_per_second.numerator, spec.bins_per_second.denominator
    seconds = len(totals) * d // n
    edges = -(-np.arange(seconds + 1) * n // d)
    # float64: float32 sums of a long recording pass 2^24, and a lone spike would no longer change them.
    sums = np.concatenate([[0], np.cumsum(totals, dtype=np.float64)])
    silent = np.zeros(len(totals), dtype=bool)
    for second in np.flatnonzero((np.diff(sums[edges]) == 0) & (np.diff(edges) > 0)).tolist():
        silent[edges[max(second - 1, 0)] : edges[second + 2] if second + 2 <= seconds else None] = True
    return silent


def _runs(usable: BoolArray) -> Int64Array:
    """Stretches (M, 2) [start, stop) of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], usable, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2).astype(np.int64)
