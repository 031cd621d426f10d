"""Which messages of a source are taken: those that fit the epoch, its grid and its clock. All others are rejected."""

from __future__ import annotations

from fractions import Fraction

from nuclr_stream.features.coupling import fine_grid
from nuclr_stream.stream.epoch import Epoch, Timed, stretch_of
from nuclr_stream.windows.binning import MAX_SAMPLE, WindowSpec, grid_of, rate_fits
from nuclr_stream.wire import Input, SpikeBatch, TraceBatch

MAX_BLOCK_S = 60
"""Longest stretch that one message may complete: it bounds the rolling counts."""
MAX_JUMP_S = 86_400
"""A message that begins later than this after the watermark is rejected: a wrong clock, not a gap."""
MAX_LOST = 2**20
"""A message number that jumps further is rejected, or everything after it would be taken for a repetition."""


def rejection(message: Input, epoch: Epoch | None, spec: WindowSpec) -> str:
    """Return why a message is rejected while `epoch` runs (None before the first), or an empty string.

    The words are counters of the stream's state: rejected_<why>.
    """
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
        if message.seq - epoch.sequence.next > MAX_LOST:
            return "rejected_jump"
        if message.sample_rate != epoch.sample_rate or message.origin != epoch.grid.origin:
            return "rejected_grid_changed"
        watermark = epoch.watermark
    return _implausible(message, message.sample_rate, watermark) if isinstance(message, Timed) else ""


def _implausible(message: Timed, rate: Fraction, watermark: int | None) -> str:
    start, stop = stretch_of(message)
    if stop < start or stop - start > MAX_BLOCK_S * rate or stop > MAX_SAMPLE:
        return "rejected_block"
    if watermark is not None and start - watermark > MAX_JUMP_S * rate:
        return "rejected_jump"
    return ""
