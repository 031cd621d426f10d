"""The one window cutter, for files and streams: what a window holds, which units enter it, why it may be excluded.

A recording gives it all counts at once, a stream what it has kept of them; both say which samples were observed and
which are masked. So a file and the stream that it was played into give the same windows, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nuclr_stream.windows.binning import (
    BoolArray,
    Float32Array,
    Grid,
    Int64Array,
    WindowRules,
    WindowSpec,
    active_units,
    silence_bins,
    touches_silence,
)
from nuclr_stream.windows.interval_set import Stretches
from nuclr_stream.windows.normaliser import RunningNormaliser


@dataclass(frozen=True)
class CutWindow:
    """One window: `counts` (U, T), `eligible` (U,) units that existed throughout it, `active` (U,) the eligible ones
    that enter the encoder, and `missing`, the fraction of it without data.

    `exclusion` says why it must not be embedded (`WindowRules.exclusion`, or "normaliser"); empty when it may.
    `observed` (T,) are the bins with data throughout.
    """

    counts: Float32Array
    eligible: BoolArray
    active: BoolArray
    missing: float
    exclusion: str
    observed: BoolArray


class WindowCutter:
    """Cuts the windows of one recording, or of one epoch of a stream, in the order of their ends.

    The caller keeps `observed` and `masked`, stretches of samples, up to date: samples in neither are missing.
    """

    def __init__(self, spec: WindowSpec, rules: WindowRules, grid: Grid) -> None:
        self.spec, self.rules, self.grid = spec, rules, grid
        self.observed, self.masked = Stretches(), Stretches()
        self._normaliser = RunningNormaliser(spec.normaliser) if spec.normaliser else None

    @property
    def bins_needed(self) -> int:
        """How many bins `cut` looks at: those of the window, and before them those that `touches_silence` needs."""
        return silence_bins(self.spec) + self.spec.bins

    def cut(self, counts: Float32Array, *, end_bin: int, added_bin: Int64Array) -> CutWindow:
        """Return the window that ends before bin `end_bin`.

        `counts` (U, bins_needed) are the last bins before `end_bin`, zero where nothing is known; what is returned may
        be a view on them. `added_bin` (U,) is the first bin in which each unit existed throughout.
        """
        spec, history = self.spec, self.bins_needed - self.spec.bins
        start_bin = end_bin - spec.bins
        start, stop = self.grid.first_sample(start_bin), self.grid.first_sample(end_bin)
        missing = (stop - start - self.observed.inside(start, stop)) / (stop - start)
        exclusion: str = self.rules.exclusion(
            missing=missing,
            masked=self.masked.inside(start, stop) > 0,
            silent=touches_silence(self._totals(counts, start_bin - history), spec, first_bin=start_bin - history),
        )
        window = counts[:, history:]
        if self._normaliser is not None:
            # Excluded windows too: the normaliser sees every frame once, whatever becomes of the window around it.
            real = self._real(start, stop, added_bin)
            window, unready = self._normaliser.normalise(window, real, end_bin=end_bin)
            exclusion = exclusion or unready
        # Membership is causal: a unit enters once it has existed for a whole window. Whether it will fire or vanish
        # later is not known live, so it may not count offline either.
        eligible: BoolArray = added_bin <= start_bin
        active = eligible & active_units(window, spec.input_kind)
        observed = self._observed(start_bin, end_bin) if missing else np.ones(spec.bins, dtype=np.bool_)
        return CutWindow(window, eligible, active, missing, exclusion, observed)

    def forget_before(self, bin_index: int) -> None:
        """Drop what was observed and masked before a bin that no window to come needs."""
        self.observed.forget_before(self.grid.first_sample(bin_index))
        self.masked.forget_before(self.grid.first_sample(bin_index))

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything that cutting changes, for `load`."""
        normaliser = None if self._normaliser is None else self._normaliser.dump()
        return {"observed": self.observed.dump(), "masked": self.masked.dump(), "normaliser": normaliser}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned, of the same spec and grid."""
        self.observed.load(saved["observed"])
        self.masked.load(saved["masked"])
        if self._normaliser is not None:
            self._normaliser.load(saved["normaliser"])

    def _totals(self, counts: Float32Array, first_bin: int) -> Float32Array:
        """Return the spikes of the whole probe per bin, -1 for a bin not wholly observed: no data is no silence."""
        totals: Float32Array = counts.sum(axis=0)
        stop_bin = first_bin + len(totals)
        first, stop = self.grid.first_sample(first_bin), self.grid.first_sample(stop_bin)
        if self.observed.inside(first, stop) < stop - first:
            totals = np.where(self._observed(first_bin, stop_bin), totals, np.float32(-1))
        return totals

    def _observed(self, first_bin: int, stop_bin: int) -> BoolArray:
        """Return which bins of [first_bin, stop_bin) were observed from end to end."""
        edges = np.array([self.grid.first_sample(b) for b in range(first_bin, stop_bin + 1)])
        whole: BoolArray = np.diff(self.observed.before(edges)) == np.diff(edges)
        return whole

    def _real(self, start: int, stop: int, added_bin: Int64Array) -> BoolArray:
        """Return which values (U, frames) of traces are real: observed, not masked, of a unit that existed."""
        frames = np.arange(start, stop)
        seen = self.observed.holds(frames) & ~self.masked.holds(frames)
        return seen & (added_bin[:, None] <= self.grid.bin_of(frames))
