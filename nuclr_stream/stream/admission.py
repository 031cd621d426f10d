"""Which messages of a source are taken: those that fit the epoch, its grid and its clock. All others are rejected.

Two rejections are not for ever, for one wrong message must not make a stream deaf. A jump that stays is a gap. And an
epoch that is smaller than the one that runs takes over when that one has fallen silent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from nuclr_stream.features.coupling import fine_grid
from nuclr_stream.stream.epoch import Epoch, Timed, stretch_of
from nuclr_stream.windows.binning import MAX_SAMPLE, WindowSpec, grid_of, rate_fits
from nuclr_stream.wire import Input, SpikeBatch, TraceBatch

MAX_BLOCK_S = 60
"""Longest stretch that one message may complete: it bounds the rolling counts."""
MAX_JUMP_S = 86_400
"""A message that begins later than this after the watermark is rejected, unless others follow: see STAYS."""
MAX_EPOCH = 4_102_444_800_000
"""The year 2100 in Unix ms. A larger epoch is none that a source has: after it no other could ever be larger."""
STAYS = 3
"""So many messages in a row behind the same jump, and it is a gap: the device's counter leapt, or ran on unseen."""
SILENT_NS = 3 * 10**9
"""An epoch without a message for so long gives way to a smaller one: a clock was set back, or this one was a stray."""
REMEMBERED_EPOCHS = 64
MAX_LOST = 2**20
"""A message number that jumps further is rejected, or everything after it would be taken for a repetition."""


class Admission:
    """Judges the messages of one stream, one after the other; `seen` notes those that were taken."""

    def __init__(self, spec: WindowSpec) -> None:
        self._spec = spec
        self._taken_ns = 0
        self._past: OrderedDict[int, int] = OrderedDict()  # epochs that ran, and the message number expected next
        self._jump: tuple[int, int, int] | None = None  # sample, message number, and how many in a row behind a jump

    def rejection(self, message: Input, epoch: Epoch | None, now_ns: int) -> str:
        """Return why a message is rejected while `epoch` runs (None before the first), or an empty string.

        The words are counters of the stream's state: rejected_<why>. `now_ns` only ever goes up.
        """
        why = rejection(message, epoch, self._spec)
        if why == "rejected_stale_epoch" and self._takes_over(message, now_ns):
            return rejection(message, None, self._spec)
        if why == "rejected_jump" and self._stays(message):
            return rejection(message, epoch, self._spec, leapt=True)
        if not why and isinstance(message, Timed):  # a table in between says nothing about the samples
            self._jump = None
        return why

    def taken(self, now_ns: int) -> None:
        """Note that a message of the epoch that runs was taken."""
        self._taken_ns = now_ns

    def ended(self, epoch: Epoch) -> None:
        """Note that another epoch follows on this one."""
        self._past[epoch.number] = epoch.sequence.next
        self._past.move_to_end(epoch.number)
        while len(self._past) > REMEMBERED_EPOCHS:
            self._past.popitem(last=False)
        self._jump = None

    def dump(self) -> dict[str, Any]:
        """Return a copy of what lasts, for `load`: the epochs that ran."""
        return {"past": list(self._past.items())}

    def load(self, saved: Mapping[str, Any], now_ns: int) -> None:
        """Become what `dump` returned; the epoch that runs was heard of at `now_ns`."""
        self._past = OrderedDict(saved["past"])
        self._taken_ns = now_ns

    def _takes_over(self, message: Input, now_ns: int) -> bool:
        """Whether a smaller epoch is a source that lives on, and no message from the past that comes again."""
        silent = now_ns - self._taken_ns >= SILENT_NS
        return silent and message.seq >= self._past.get(message.epoch, 0)

    def _stays(self, message: Input) -> bool:
        """Whether a message lies close behind others that were rejected for a jump, as those of a live source do."""
        start = stretch_of(message)[0] if isinstance(message, Timed) else None
        before, self._jump = self._jump, None
        if before is None:
            self._jump = (start or 0, message.seq, 1)
            return False
        sample, seq, count = before
        if start is None:
            start = sample
        near = 0 <= start - sample <= MAX_BLOCK_S * message.sample_rate and 0 < message.seq - seq <= MAX_LOST
        if near and count + 1 >= STAYS:
            return True
        self._jump = (start, message.seq, count + 1 if near else 1)
        return False


def rejection(message: Input, epoch: Epoch | None, spec: WindowSpec, *, leapt: bool = False) -> str:
    """Return why a message on its own is rejected while `epoch` runs; `leapt` says that a jump is none."""
    if message.epoch > MAX_EPOCH:
        return "rejected_epoch"
    if epoch is not None and message.epoch < epoch.number:
        return "rejected_stale_epoch"
    if isinstance(message, SpikeBatch if spec.input_kind == "traces" else TraceBatch):
        return "rejected_input_kind"
    if not rate_fits(message.sample_rate, spec):
        return "rejected_rate"
    if epoch is None or message.epoch != epoch.number:
        grid = grid_of(message.sample_rate, spec)
        if not (grid.exact and fine_grid(grid).exact):
            return "rejected_rate"
        watermark = None
    else:
        if epoch.ended:
            return "rejected_after_end"
        if message.seq - epoch.sequence.next > MAX_LOST and not leapt:
            return "rejected_jump"
        if message.sample_rate != epoch.sample_rate or message.origin != epoch.grid.origin:
            return "rejected_grid_changed"
        watermark = None if leapt else epoch.watermark
    return _implausible(message, message.sample_rate, watermark) if isinstance(message, Timed) else ""


def _implausible(message: Timed, rate: Fraction, watermark: int | None) -> str:
    start, stop = stretch_of(message)
    if stop < start or stop - start > MAX_BLOCK_S * rate or stop > MAX_SAMPLE:
        return "rejected_block"
    if watermark is not None and start - watermark > MAX_JUMP_S * rate:
        return "rejected_jump"
    return ""
