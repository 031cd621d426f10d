"""What the encoder trains on: pairs of windows ("views") of one recording, as a pure function of (seed, epoch, index).

View 1 comes from tiling every usable interval by windows, from a random offset anew in each epoch; view 2 starts
uniformly within a maximum distance and may overlap it (NuCLR, Arora et al. 2025). Each view keeps its own random share
of the units, then the membership rules of `nuclr_stream.windows.binning` apply. Shapes: N windows, U units, T bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.windows.binning import BoolArray, Int64Array, active_units
from offline_training.config import TrainConfig
from offline_training.data.binned import Counts, bin_recording

BATCHES_SORTED_TOGETHER = 8
"""Pairs are ordered by population size within so many batches: less padding, still mixed recordings."""


class Views(NamedTuple):
    """A batch of pairs: counts (N, U, T) and presence (N, U) bool of both views, in one unit order.

    Counts are small integers where all fit, a quarter of what float32 takes on the way to a device, else float32.
    `units` (N, U) are rows of the unit table of recording `recordings` (N,), -1 at padding; `starts` (N, 2) first bins.
    """

    counts1: Counts
    counts2: Counts
    present1: BoolArray
    present2: BoolArray
    units: Int64Array
    recordings: Int64Array
    starts: Int64Array


class ViewSampler:
    """Batches of view pairs of many recordings: `batch(epoch, index)` is a pure function of them and the config's seed.

    Of several processes each draws every `processes`-th pair of a batch, from its `rank` on: what they draw is disjoint
    and together what a lone process would have drawn. Raises ConfigError when no recording has a usable interval of two
    windows and enough units.
    """

    def __init__(
        self, recordings: Sequence[AnyRecording], config: TrainConfig, *, rank: int = 0, processes: int = 1
    ) -> None:
        self.config = config
        self.rank, self.processes = rank, processes
        self.spec = config.window.spec
        self.binned = [bin_recording(recording, config) for recording in recordings]
        enough = [len(binned.counts) >= config.rules.min_population for binned in self.binned]
        rows = [(r, a, b) for r, one in enumerate(self.binned) if enough[r] for a, b in one.intervals]
        if not rows:
            raise ConfigError(
                f"none of {len(recordings)} recordings has {config.rules.min_population} units and a usable stretch "
                f"of two windows ({2 * self.spec.window_s:g} s); give longer recordings or a shorter window"
            )
        self.intervals = np.array(rows, dtype=np.int64)  # (M, 3) recording, first bin, end bin
        self._ordered: tuple[int, Int64Array] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches in every epoch, at least one: tiles that any offset leaves room for."""
        lengths = self.intervals[:, 2] - self.intervals[:, 1]
        tiles = int(((lengths + 1) // self.spec.bins - 1).sum())
        return max(1, tiles // self.config.training.batch_windows)

    def tiles(self, epoch: int) -> Int64Array:
        """View 1 of one epoch, in the order of the recordings: (K, 2) interval, first bin; disjoint windows."""
        rng = np.random.default_rng([self.config.training.seed, epoch])
        found = []
        for i, (_, first, end) in enumerate(self.intervals):
            offset = rng.integers(self.spec.bins)
            starts = np.arange(first + offset, end - self.spec.bins + 1, self.spec.bins)
            found.append(np.stack([np.full(len(starts), i), starts], axis=1))
        return np.concatenate(found)

    def order(self, epoch: int) -> Int64Array:
        """The tiles of an epoch as shuffled batches (batches_per_epoch, N, 2); similar population sizes go together."""
        # Another stream of numbers than that of the tiles: how many offsets were drawn must not move the order.
        size, whole = self.config.training.batch_windows, self.batches_per_epoch
        rng = np.random.default_rng([self.config.training.seed, epoch, 1])
        tiles = rng.permutation(self.tiles(epoch))
        tiles = tiles[np.arange(whole * size) % len(tiles)]  # few tiles are repeated until a batch is full
        groups = np.split(tiles, range(BATCHES_SORTED_TOGETHER * size, len(tiles), BATCHES_SORTED_TOGETHER * size))
        units = np.array([len(self.binned[r].counts) for r in self.intervals[:, 0]])
        ordered = np.concatenate([group[np.argsort(units[group[:, 0]], kind="stable")] for group in groups])
        return rng.permutation(ordered.reshape(whole, size, 2))

    def batch(self, epoch: int, index: int) -> Views | None:
        """This process's part of batch `index` of an epoch, padded; pairs with too few active units are left out, None
        when all are."""
        if self._ordered is None or self._ordered[0] != epoch:
            self._ordered = (epoch, self.order(epoch))
        pairs = []
        for position in range(self.rank, self.config.training.batch_windows, self.processes):
            interval, start = self._ordered[1][index, position]
            # A pair depends on its place alone: whichever process or worker draws it, it is the same.
            rng = np.random.default_rng([self.config.training.seed, epoch, 2, index, position])
            pair = self._pair(rng, int(interval), int(start))
            if pair is not None:
                pairs.append(pair)
        return _pad(pairs, self.spec.bins) if pairs else None

    def _pair(self, rng: np.random.Generator, interval: int, start1: int) -> _Pair | None:
        recording, first, end = (int(v) for v in self.intervals[interval])
        reach = int(self.config.training.max_pair_distance_s * self.spec.bins_per_second)
        low, high = max(first, start1 - reach), min(end - self.spec.bins, start1 + reach)
        start2 = int(rng.integers(low, high + 1))
        # Dropout first, then activity: as for a daemon, a unit that is silent in the window is no member of it.
        window1, window2 = (self.binned[recording].view(start, self.spec.bins) for start in (start1, start2))
        present1 = self._kept(rng, len(window1)) & active_units(window1, self.spec.input_kind)
        present2 = self._kept(rng, len(window2)) & active_units(window2, self.spec.input_kind)
        # A unit in one view only is kept: it is a negative for the others and context for its view.
        order = rng.permutation(len(window1))
        units = order[(present1 | present2)[order]][: self.config.training.max_units_per_view]
        present1, present2 = present1[units], present2[units]
        if min(present1.sum(), present2.sum()) < self.config.rules.min_population:
            return None
        return _Pair(window1[units], window2[units], present1, present2, units, recording, (start1, start2))

    def _kept(self, rng: np.random.Generator, units: int) -> BoolArray:
        """Unit dropout: a uniform share of all units of the recording, silent ones included (U,)."""
        kept = np.zeros(units, dtype=bool)
        kept[rng.permutation(units)[: round(units * rng.uniform(*self.config.training.unit_keep))]] = True
        return kept


class _Pair(NamedTuple):
    window1: Counts
    window2: Counts
    present1: BoolArray
    present2: BoolArray
    units: Int64Array
    recording: int
    starts: tuple[int, int]


def _pad(pairs: list[_Pair], bins: int) -> Views:
    shape = (len(pairs), max(len(pair.units) for pair in pairs))
    kind = np.result_type(*(pair.window1 for pair in pairs))
    views = Views(
        counts1=np.zeros((*shape, bins), dtype=kind),
        counts2=np.zeros((*shape, bins), dtype=kind),
        present1=np.zeros(shape, dtype=bool),
        present2=np.zeros(shape, dtype=bool),
        units=np.full(shape, -1, dtype=np.int64),
        recordings=np.array([pair.recording for pair in pairs], dtype=np.int64),
        starts=np.array([pair.starts for pair in pairs], dtype=np.int64),
    )
    for i, pair in enumerate(pairs):
        n = len(pair.units)
        views.counts1[i, :n], views.counts2[i, :n] = pair.window1, pair.window2
        views.present1[i, :n], views.present2[i, :n] = pair.present1, pair.present2
        views.units[i, :n] = pair.units
    return views
