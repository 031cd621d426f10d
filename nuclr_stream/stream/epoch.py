"""Epoch: what a stream has gathered since its source last started, and which window comes next."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, TypeAlias

from nuclr_stream.features.coupling import CouplingCounts
from nuclr_stream.features.isi import Intervals
from nuclr_stream.stream.sequence import SequenceCheck
from nuclr_stream.windows.binning import WindowRules, WindowSpec, first_window_end, grid_of, silence_bins
from nuclr_stream.windows.cutter import WindowCutter
from nuclr_stream.windows.rolling import RollingCounts
from nuclr_stream.wire import End, Heartbeat, SourceHeader, SpikeBatch, TraceBatch

Timed: TypeAlias = SpikeBatch | TraceBatch | Heartbeat | End
"""Messages that say up to which sample the data are complete."""
_SAVED = ("ended", "watermark", "next_end", "step", "first_sample", "_first_bin")


def stretch_of(message: Timed) -> tuple[int, int]:
    """Return the samples [start, stop) that a message completes; for traces a sample is a frame."""
    if isinstance(message, End):
        return message.sample, message.sample
    return message.start, message.stop


class Epoch:
    """One epoch of a stream, started from its first message; a new epoch gets a new one.

    `watermark` is the sample up to which data are complete and `next_end` the end bin of the window to be cut next;
    both are None until a message with data in it decides where the first window lies. `step` counts the windows that
    are closed.
    """

    def __init__(self, first: SourceHeader, spec: WindowSpec, rules: WindowRules, *, lateness_s: float) -> None:
        self.number, self.sample_rate = first.epoch, first.sample_rate
        self.spec = spec
        self.grid = grid_of(first.sample_rate, spec, first.origin)
        self.sequence = SequenceCheck(first.seq)
        self.cutter = WindowCutter(spec, rules, self.grid)
        self.counts = RollingCounts(4 * spec.bins)
        self.intervals = Intervals(first.sample_rate)
        self.coupling = CouplingCounts(self.grid)
        self.ended = False
        self.watermark: int | None = None
        self.next_end: int | None = None
        self.step = 0
        self.first_sample = self._first_bin = 0
        self._lateness = int(lateness_s * self.grid.sample_rate)

    def place_first_window(self, start: int) -> None:
        """Begin at sample `start`, that of the first message with data: no window holds a bin before it."""
        self.watermark = self.first_sample = start
        self._first_bin = int(self.grid.bin_from(start))
        self.next_end = first_window_end(self._first_bin, self.spec)

    @property
    def is_due(self) -> bool:
        """Whether all data of the next window are there, or can come no more."""
        return self.next_end is not None and self._closed_bins >= self.next_end

    @property
    def progress(self) -> float:
        """How much of the first window has been observed, 0 to 1."""
        if self.next_end is None:
            return 0.0
        if self.step:
            return 1.0
        return min(max((self._closed_bins - self._first_bin) / (self.next_end - self._first_bin), 0.0), 1.0)

    @property
    def open_bin(self) -> int:
        """The first bin that no window has been cut from yet: what comes for an earlier one is late."""
        assert self.next_end is not None
        return self.next_end - self.spec.hop_bins if self.step else self._first_bin - silence_bins(self.spec)

    @property
    def oldest_bin(self) -> int:
        """The first bin that the next window, and the second before it, needs."""
        assert self.next_end is not None
        return self.next_end - self.cutter.bins_needed

    def reserve(self, stop_bin: int) -> None:
        """Make room for bins up to `stop_bin`, and keep those that the next window still needs."""
        self.counts.reserve(self.oldest_bin, stop_bin)

    def advance(self) -> int:
        """Go to the next window that holds any data at all; returns how many without any were passed over.

        After a gap of hours those would be thousands of empty windows, cut and embedded for nothing.
        """
        assert self.next_end is not None
        following = self.next_end + self.spec.hop_bins
        observed = self.cutter.observed.first_from(self.grid.first_sample(following - self.spec.bins))
        reached = self._closed_bins  # not beyond it: what is late may still come for the bins behind
        if observed is not None:
            reached = min(reached, int(self.grid.bin_of(observed)))
        # the smallest multiple of the hop that lies beyond the bin of the first observed sample
        jump = max(following, (reached // self.spec.hop_bins + 1) * self.spec.hop_bins)
        self.step += (jump - self.next_end) // self.spec.hop_bins
        self.next_end = jump
        self.cutter.forget_before(self.oldest_bin)
        return (jump - following) // self.spec.hop_bins

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything, for `load`."""
        return {
            "number": self.number,
            "sample_rate": str(self.sample_rate),
            "origin": self.grid.origin,
            "sequence": self.sequence.dump(),
            "cutter": self.cutter.dump(),
            "counts": self.counts.dump(self.oldest_bin if self.next_end is not None else 0),
            "intervals": self.intervals.dump(),
            "coupling": self.coupling.dump(),
            **{name: getattr(self, name) for name in _SAVED},
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any], spec: WindowSpec, rules: WindowRules, *, lateness_s: float) -> Epoch:
        """Return the epoch that `dump` was called of; the lateness may have changed since."""
        first = SourceHeader(
            stream="",
            epoch=saved["number"],
            seq=0,
            sample_rate=Fraction(saved["sample_rate"]),
            origin=saved["origin"],
        )
        epoch = cls(first, spec, rules, lateness_s=lateness_s)
        for part in ("sequence", "cutter", "counts", "intervals", "coupling"):
            getattr(epoch, part).load(saved[part])
        for name in _SAVED:
            setattr(epoch, name, saved[name])
        return epoch

    @property
    def _closed_bins(self) -> int:
        """The end of the bins to which nothing can be added, but for what comes later than the lateness allows."""
        assert self.watermark is not None
        return self.grid.complete_bins(self.watermark - (0 if self.ended else self._lateness))
