"""The units of one probe, their rolling counts, and the windows cut from them. Exact, deterministic, free of I/O.

Messages are admitted one by one (epoch, grid, sequence number), queued, and applied in order only as far as the next
window allows: a window is cut from what stood before it, whatever came in later. So the same messages give the same
windows at any speed.
"""

from __future__ import annotations

from collections import Counter, deque
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from nuclr_stream.features.coupling import CouplingCounts, fine_grid
from nuclr_stream.features.isi import Intervals
from nuclr_stream.stream.sequence import SequenceCheck
from nuclr_stream.stream.units import Operation, Units
from nuclr_stream.stream.window import Window
from nuclr_stream.windows.binning import (
    MAX_SAMPLE,
    BoolArray,
    Float32Array,
    WindowRules,
    WindowSpec,
    active_units,
    first_window_end,
    grid_of,
    rate_fits,
    silence_bins,
    touches_silence,
)
from nuclr_stream.windows.interval_set import Stretches
from nuclr_stream.windows.normaliser import RunningNormaliser
from nuclr_stream.windows.rolling import RollingCounts
from nuclr_stream.wire import End, Heartbeat, Input, MaskInterval, SpikeBatch, TraceBatch, UnitTable

MAX_BLOCK_S = 60
"""Longest stretch that one message may complete: it bounds the rolling counts."""
MAX_JUMP_S = 86_400
"""A message that begins later than this after the watermark is refused: a wrong clock, not a gap."""
MAX_LOST = 2**20
"""A message number that jumps further is refused, or everything after it would be taken for a repetition."""
MAX_PENDING_OPERATIONS = 65_536
MAX_MASKS = 4_096
MAX_STRETCHES = 65_536
"""How many pieces of observed time are kept apart; what comes in more of them stays missing."""

Timed: TypeAlias = SpikeBatch | TraceBatch | Heartbeat | End


class Population:
    """Rolling counts of the units of one probe: `push` messages, then `cut` windows until there is none."""

    def __init__(
        self, spec: WindowSpec, rules: WindowRules, *, stream: str, lateness_s: float = 0.0, max_units: int
    ) -> None:
        self.spec, self.rules, self.stream = spec, rules, stream
        self.lateness_s = lateness_s
        self.counters: Counter[str] = Counter()
        self.units = Units(max_units)
        self._operations: list[Operation] = []
        self._inbox: deque[Input] = deque()
        self.epoch: int | None = None
        self.ended = False

    # -- admission ---------------------------------------------------------------------------------------------------

    def push(self, message: Input) -> bool:
        """Admit one message; whatever is wrong with it is counted in `counters` and the message dropped.

        Returns whether it began a new epoch. received = accepted + duplicate + rejected_* at any time.
        """
        self.counters["received"] += 1
        reason = self._rejection(message)
        if reason:
            self.counters[reason] += 1
            return False
        new_epoch = message.epoch != self.epoch
        if new_epoch:
            self._begin(message)
        if not self._sequence.admit(message.seq):
            self.counters["duplicate"] += 1
            return False
        self.counters["messages_gap"], self.counters["messages_reordered"] = (
            self._sequence.gap,
            self._sequence.reordered,
        )
        self.counters["accepted"] += 1
        self._inbox.append(message)
        return new_epoch

    def _rejection(self, message: Input) -> str:
        if self.epoch is not None and message.epoch < self.epoch:
            return "rejected_stale_epoch"
        traces = self.spec.input_kind == "traces"
        if isinstance(message, SpikeBatch if traces else TraceBatch):
            return "rejected_input_kind"
        rate = message.sample_rate
        grid = grid_of(rate, self.spec)
        if not rate_fits(rate, self.spec) or not (grid.exact and fine_grid(grid).exact):
            return "rejected_rate"
        if message.epoch == self.epoch and self.ended:
            return "rejected_after_end"
        if message.epoch == self.epoch and message.seq - self._sequence.next > MAX_LOST:
            return "rejected_jump"
        if message.epoch == self.epoch and (rate != self.grid_rate or message.origin != self.grid.origin):
            return "rejected_grid_changed"
        if isinstance(message, Timed):
            return self._implausible(*_stretch(message), rate, same_epoch=message.epoch == self.epoch)
        return ""

    def _implausible(self, start: int, stop: int, rate: Fraction, *, same_epoch: bool) -> str:
        if stop < start or stop - start > MAX_BLOCK_S * rate or stop > MAX_SAMPLE:
            return "rejected_block"
        if same_epoch and self.watermark is not None and start - self.watermark > MAX_JUMP_S * rate:
            return "rejected_jump"
        return ""

    def _begin(self, message: Input) -> None:
        """Start an epoch: bins and windows are gone; exposure goes too unless the first unit table says `continues`."""
        spec = self.spec
        self.counters["unapplied"] += len(self._inbox)
        self._inbox.clear()
        self.epoch, self.ended = message.epoch, False
        self.grid_rate = message.sample_rate
        self.grid = grid_of(message.sample_rate, spec, message.origin)
        self._sequence = SequenceCheck(message.seq)
        self.units.begin_epoch()
        self._covered, self._masks = Stretches(), Stretches()
        self.watermark: int | None = None
        self._first_bin = self._first_sample = 0
        self._next_end: int | None = None
        self._step = 0
        self._counts = RollingCounts(4 * spec.bins)
        self._intervals = Intervals(message.sample_rate)
        self._coupling = CouplingCounts(self.grid)
        self._normaliser = RunningNormaliser(spec.normaliser) if spec.normaliser else None

    # -- windows -----------------------------------------------------------------------------------------------------

    def cut(self, now_ns: int) -> Window | None:
        """Return the next complete window, or None when more data are needed. `now_ns` only travels along."""
        while True:
            if self._due():
                return self._window(now_ns)
            if not self._inbox:
                return None
            message = self._inbox[0]
            if isinstance(message, Timed) and self._gap_before(message):
                continue
            self._inbox.popleft()
            self._apply(message)

    @property
    def progress(self) -> float:
        """How much of the first window has been observed, 0 to 1."""
        if self.epoch is None or self._next_end is None:
            return 0.0
        if self._step:
            return 1.0
        return min(max((self._closed_bins() - self._first_bin) / (self._next_end - self._first_bin), 0.0), 1.0)

    def _due(self) -> bool:
        return self.epoch is not None and self._next_end is not None and self._closed_bins() >= self._next_end

    def _closed_bins(self) -> int:
        assert self.watermark is not None
        lateness = 0 if self.ended else int(self.lateness_s * self.grid.sample_rate)
        return self.grid.complete_bins(self.watermark - lateness)

    def _gap_before(self, message: Timed) -> bool:
        """Move the watermark up to a message that begins beyond it; True when windows are due before the message.

        The first message of an epoch decides where the first window lies.
        """
        start, _ = _stretch(message)
        if self.watermark is None:
            self.watermark = self._first_sample = start
            self._first_bin = int(self.grid.bin_from(start))
            self._next_end = first_window_end(self._first_bin, self.spec)
        if start <= self.watermark:
            return False
        if isinstance(message, Heartbeat) and message.start == message.stop:
            return False  # a sign of life says nothing about the samples before it
        self.counters["samples_missing"] += start - self.watermark
        self.watermark = start
        return self._due()

    def _window(self, now_ns: int) -> Window:
        assert self._next_end is not None and self.epoch is not None
        end, spec = self._next_end, self.spec
        start, history = end - spec.bins, silence_bins(spec)
        self._reserve(end)
        counts = self._counts.read(start, end).copy()
        first, stop = self.grid.first_sample(start), self.grid.first_sample(end)
        missing = (stop - first - self._covered.inside(first, stop)) / (stop - first)
        exclusion: str = self.rules.exclusion(
            missing=missing,
            masked=self._masks.inside(first, stop) > 0,
            silent=touches_silence(self._totals(start - history, end), spec, first_bin=start - history),
        )
        if self._normaliser is not None:
            counts, unready = self._normaliser.normalise(counts, self._observed(first, stop), end_bin=end)
            exclusion = exclusion or unready
        eligible = self.units.added_bin <= start
        window = Window(
            stream=self.stream,
            epoch=self.epoch,
            step=self._step,
            end_bin=end,
            end_sample=stop,
            sample_rate=self.grid_rate,
            origin=self.grid.origin,
            closed_ns=now_ns,
            unit_index=self.units.index,
            unit_ids=self.units.ids,
            counts=counts,
            eligible=eligible,
            active=eligible & active_units(counts, spec.input_kind),
            intervals=self._intervals.take(stop, self.units.index, self.units.rows),
            coupling=self._coupling.take(first, stop, self.units.index, self.units.rows),
            missing=missing,
            exclusion=exclusion,
            operations=tuple(self._operations),
        )
        self._operations = []
        self._advance(end)
        return window

    def _advance(self, end: int) -> None:
        """Go to the next window that holds any data at all; those without are counted, not cut one by one."""
        following = end + self.spec.hop_bins
        observed = self._covered.first_from(self.grid.first_sample(following - self.spec.bins))
        reached = self._closed_bins()  # not beyond it: what is late may still come for the bins behind
        if observed is not None:
            reached = min(reached, int(self.grid.bin_of(observed)))
        # the smallest multiple of the hop that lies beyond the bin of the first observed sample
        jump = max(following, (reached // self.spec.hop_bins + 1) * self.spec.hop_bins)
        self.counters["windows_without_data"] += (jump - following) // self.spec.hop_bins
        self._step += (jump - end) // self.spec.hop_bins
        self._next_end = jump
        keep = self.grid.first_sample(jump - self.spec.bins - silence_bins(self.spec))
        self._covered.forget_before(keep)
        self._masks.forget_before(keep)

    def _observed(self, first: int, stop: int) -> BoolArray:
        """Return which values (U, frames) of traces are real: seen, not masked, and of a unit that existed."""
        frames = np.arange(first, stop)
        seen = self._covered.holds(frames) & ~self._masks.holds(frames)
        return seen & (self.units.added_bin[:, None] <= self.grid.bin_of(frames))

    def _totals(self, first: int, stop: int) -> Float32Array:
        """Return the spikes of the whole probe per bin of [first, stop), -1 where a bin was not wholly observed."""
        totals: Float32Array = self._counts.read(first, stop).sum(axis=0)
        if self._covered.inside(self.grid.first_sample(first), self.grid.first_sample(stop)) < (
            self.grid.first_sample(stop) - self.grid.first_sample(first)
        ):
            edges = [self.grid.first_sample(b) for b in range(first, stop + 1)]
            whole = [self._covered.inside(a, b) == b - a for a, b in pairwise(edges)]
            totals = np.where(whole, totals, np.float32(-1))
        return totals

    # -- applying messages -------------------------------------------------------------------------------------------

    def _apply(self, message: Input) -> None:
        if isinstance(message, UnitTable):
            self._apply_table(message)
        elif isinstance(message, MaskInterval):
            self._apply_mask(message)
        elif isinstance(message, End):
            self.ended = True
        else:
            if isinstance(message, SpikeBatch):
                self._apply_spikes(message)
            elif isinstance(message, TraceBatch):
                self._apply_traces(message)
            elif self.spec.input_kind == "traces":
                return  # nothing follows from a sign of life: where no unit fired a trace still has values
            start, stop = _stretch(message)
            if start < stop:
                self._observe(start, stop)

    def _apply_table(self, table: UnitTable) -> None:
        now = None if self.watermark is None else int(self.grid.bin_from(self.watermark))
        before = self.units.index
        operations = self.units.apply(table, self.grid.bin_from(table.added), now, self.counters)
        self._operations += operations
        if len(self._operations) > MAX_PENDING_OPERATIONS:  # no window takes them up: forget what no unit stands for
            self._operations = [Operation.forget_all()]
            self.counters["operations_overflow"] += 1
        if before is not self.units.index:
            merges = [(op.source, op.target) for op in operations if op.kind == "merge"]
            adds_up = self.spec.input_kind == "spikes"  # spikes of one cell do, two traces of it do not
            self._counts.rearrange(before, self.units.index, merges if adds_up else [])

    def _apply_mask(self, mask: MaskInterval) -> None:
        start, stop = mask.start, mask.stop
        if len(self._masks) >= MAX_MASKS:  # what lies between is masked too: more than was asked for, never less
            self.counters["masks_melted"] += 1
            start, stop = self._masks.reaching(start, stop)
        self._masks.add(start, stop)

    def _apply_spikes(self, batch: SpikeBatch) -> None:
        self.counters["spikes_received"] += len(batch.samples)
        if batch.table_version > self.units.version:
            self.counters["table_behind"] += 1
        if not len(batch.samples):
            return
        rows = self.units.rows(batch.units)
        known = rows >= 0
        inside = (batch.samples >= batch.start) & (batch.samples < batch.stop)
        bins = self.grid.bin_of(np.where(inside, batch.samples, batch.start))
        on_time = bins >= self._frozen
        good = known & inside & on_time
        if self._covered.inside(batch.start, batch.stop):
            good &= ~self._covered.holds(batch.samples)
        if not good.all():
            self.counters["spikes_out_of_range"] += int((~inside).sum())
            self.counters["spikes_unknown_unit"] += int((inside & ~known).sum())
            self.counters["spikes_late"] += int((inside & known & ~on_time).sum())
            self.counters["spikes_repeated"] += int((inside & known & on_time & ~good).sum())
            rows, bins = rows[good], bins[good]
        self.counters["spikes_accepted"] += len(rows)
        self._intervals.add(batch.samples[good], batch.units[good].astype(np.int64))
        self._coupling.add(batch.samples[good], batch.units[good].astype(np.int64))
        needed = bins >= self._oldest  # with a hop longer than a window no window takes some of them up
        if needed.any():
            self._reserve(int(bins.max()) + 1)
            self._counts.add_spikes(rows[needed], bins[needed])

    def _apply_traces(self, batch: TraceBatch) -> None:
        rows, frames = self.units.rows(batch.units), np.arange(batch.start, batch.stop)
        bins, repeated = self.grid.bin_of(frames), self._covered.holds(frames)
        on_time = bins >= self._frozen
        self.counters["frames_received"] += len(frames)
        self.counters["frames_late"] += int((~on_time).sum())
        self.counters["frames_repeated"] += int((on_time & repeated).sum())
        self.counters["traces_unknown_unit"] += int((rows < 0).sum())
        self.counters["traces_absent_unit"] += len(self.units.index) - len(np.unique(rows[rows >= 0]))
        taken = on_time & ~repeated & (bins >= self._oldest)
        if taken.any():
            self._reserve(int(bins[-1]) + 1)
            self._counts.set_frames(rows[rows >= 0], bins[taken], batch.values[rows >= 0][:, taken])

    def _observe(self, start: int, stop: int) -> None:
        """Note that [start, stop) was seen."""
        assert self.watermark is not None
        if self._step:  # what comes for a bin that a window has been cut from is late, and stays missing
            start = max(start, self.grid.first_sample(self._frozen))
        if start < stop and len(self._covered) >= MAX_STRETCHES:
            self.counters["stretches_dropped"] += 1
        elif start < stop:
            a, b = max(start, self._first_sample), min(stop, self.watermark)
            self.counters["samples_recovered"] += max(b - a, 0) - self._covered.inside(a, b) if a < b else 0
            self._covered.add(start, stop)
        self.watermark = max(self.watermark, stop)

    @property
    def _frozen(self) -> int:
        """The first bin that no window has been cut from yet."""
        assert self._next_end is not None
        return self._next_end - self.spec.hop_bins if self._step else self._first_bin - silence_bins(self.spec)

    @property
    def _oldest(self) -> int:
        """The first bin that the next window, and the second before it, needs."""
        assert self._next_end is not None
        return self._next_end - self.spec.bins - silence_bins(self.spec)

    def _reserve(self, stop: int) -> None:
        """Make room for bins up to `stop`, and keep those that the next window still needs."""
        self._counts.reserve(self._oldest, stop)


def _stretch(message: Timed) -> tuple[int, int]:
    """Return the samples [start, stop) that a message completes; for traces a sample is a frame."""
    if isinstance(message, End):
        return message.sample, message.sample
    return message.start, message.stop
