"""The units of one probe, their rolling counts, and the windows cut from them. Exact, deterministic, free of I/O.

Messages are admitted one by one (epoch, grid, sequence number), queued, and applied in order only as far as the next
window allows: a window is cut from what stood before it, whatever came in later. So the same messages give the same
windows at any speed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from nuclr_stream.stream.admission import Admission
from nuclr_stream.stream.epoch import Epoch, Timed, stretch_of
from nuclr_stream.stream.units import Operation, Units
from nuclr_stream.stream.window import Window
from nuclr_stream.windows.binning import WindowRules, WindowSpec
from nuclr_stream.wire import End, Heartbeat, Input, MaskInterval, SpikeBatch, TraceBatch, UnitTable

MAX_PENDING_OPERATIONS = 65_536
MAX_MASKS = 4_096
MAX_STRETCHES = 65_536
"""How many pieces of observed time are kept apart; what comes in more of them stays missing."""


class Population:
    """Rolling counts of the units of one probe: `push` messages, then `cut` windows until there is none."""

    def __init__(
        self, spec: WindowSpec, rules: WindowRules, *, stream: str, lateness_s: float = 0.0, max_units: int
    ) -> None:
        self.spec, self.rules, self.stream = spec, rules, stream
        self.lateness_s = lateness_s
        self.counters: Counter[str] = Counter()
        self.last_rejection = ""  # the counter of the last message if that was not taken, else empty
        self.units = Units(max_units)
        self._operations: list[Operation] = []
        self._inbox: deque[Input] = deque()
        self._epoch: Epoch | None = None
        self._admission = Admission(spec)
        self.taken_over = False  # whether the epoch that runs is smaller than the one before it, which fell silent

    @property
    def epoch(self) -> int | None:
        """The number of the epoch that runs, None before any message."""
        return None if self._epoch is None else self._epoch.number

    @property
    def ended(self) -> bool:
        """Whether the source has ended the epoch, and everything before that was applied."""
        return self._epoch is not None and self._epoch.ended

    @property
    def watermark(self) -> int | None:
        """The sample up to which data are complete, None before any data."""
        return None if self._epoch is None else self._epoch.watermark

    @property
    def next_seq(self) -> int:
        """The number of the message that is expected next; what comes before it has arrived, or is counted missing."""
        return 0 if self._epoch is None else self._epoch.sequence.next

    @property
    def waiting(self) -> int:
        """How many messages were admitted and not applied yet."""
        return len(self._inbox)

    @property
    def progress(self) -> float:
        """How much of the first window has been observed, 0 to 1."""
        return 0.0 if self._epoch is None else self._epoch.progress

    # -- admission ---------------------------------------------------------------------------------------------------

    def push(self, message: Input, now_ns: int = 0) -> bool:
        """Admit one message; whatever is wrong with it is counted in `counters` and the message dropped.

        Returns whether it began a new epoch. received = accepted + duplicate + rejected_* at any time. By `now_ns`
        (monotonic) an epoch that has fallen silent is told from one that runs.
        """
        self.counters["received"] += 1
        self.last_rejection = self._admission.rejection(message, self._epoch, now_ns)
        if self.last_rejection:
            self.counters[self.last_rejection] += 1
            return False
        epoch, is_new = self._epoch, False
        if epoch is None or message.epoch != epoch.number:
            epoch, is_new = self._begin(message), True
        if not epoch.sequence.admit(message.seq):
            self.last_rejection = "duplicate"
            self.counters["duplicate"] += 1
            return False
        self.counters["messages_gap"] = epoch.sequence.gap
        self.counters["messages_reordered"] = epoch.sequence.reordered
        self.counters["accepted"] += 1
        self._admission.taken(now_ns)
        self._inbox.append(message)
        return is_new

    def _begin(self, message: Input) -> Epoch:
        """Start an epoch: bins and windows are gone; exposure goes too unless the first unit table says `continues`."""
        if self._epoch is not None:
            self._admission.ended(self._epoch)
            self.taken_over = message.epoch < self._epoch.number
            self.counters["epochs_taken_over"] += self.taken_over
        self.counters["unapplied"] += len(self._inbox)
        self._inbox.clear()
        self.units.begin_epoch()
        self._epoch = Epoch(message, self.spec, self.rules, lateness_s=self.lateness_s)
        return self._epoch

    # -- windows -----------------------------------------------------------------------------------------------------

    def cut(self, now_ns: int) -> Window | None:
        """Return the next complete window, or None when more data are needed. `now_ns` only travels along."""
        epoch = self._epoch
        while epoch is not None:
            if epoch.is_due:
                return self._window(epoch, now_ns)
            if not self._inbox:
                return None
            message = self._inbox[0]
            # a message that begins beyond the watermark says that what lies before it will not come: windows may be
            # due for that alone, and they must not hold anything of the message
            if isinstance(message, Timed) and self._gap_before(epoch, message):
                continue
            self._inbox.popleft()
            self._apply(epoch, message)
        return None

    def _gap_before(self, epoch: Epoch, message: Timed) -> bool:
        """Move the watermark up to a message that begins beyond it; True when windows are due before the message."""
        start, _ = stretch_of(message)
        if epoch.watermark is None:
            epoch.place_first_window(start)
        assert epoch.watermark is not None
        if start <= epoch.watermark:
            return False
        if isinstance(message, Heartbeat) and message.start == message.stop:
            return False  # a sign of life says nothing about the samples before it
        self.counters["samples_missing"] += start - epoch.watermark
        epoch.watermark = start
        return epoch.is_due

    def _window(self, epoch: Epoch, now_ns: int) -> Window:
        assert epoch.next_end is not None
        end, units = epoch.next_end, self.units
        epoch.reserve(end)
        cut = epoch.cutter.cut(epoch.counts.read(epoch.oldest_bin, end), end_bin=end, added_bin=units.added_bin)
        first_sample, end_sample = epoch.grid.first_sample(end - self.spec.bins), epoch.grid.first_sample(end)
        window = Window(
            stream=self.stream,
            epoch=epoch.number,
            step=epoch.step,
            end_bin=end,
            end_sample=end_sample,
            sample_rate=epoch.sample_rate,
            origin=epoch.grid.origin,
            closed_ns=now_ns,
            unit_index=units.index,
            unit_ids=units.ids,
            counts=cut.counts.copy(),  # the block that it is a view on goes on changing
            eligible=cut.eligible,
            active=cut.active,
            intervals=epoch.intervals.take(end_sample, units.index, units.rows),
            coupling=epoch.coupling.take(first_sample, end_sample, units.index, units.rows),
            missing=cut.missing,
            exclusion=cut.exclusion,
            operations=tuple(self._operations),
            observed=cut.observed,
        )
        self._operations = []
        self.counters["windows_without_data"] += epoch.advance()
        return window

    # -- over a restart ----------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything but the settings, for `load`. The messages in it are as they came."""
        return {
            "counters": dict(self.counters),
            "units": self.units.dump(),
            "operations": [[op.kind, op.source, op.target, list(op.index_of.items())] for op in self._operations],
            "inbox": list(self._inbox),
            "epoch": None if self._epoch is None else self._epoch.dump(),
            "admission": self._admission.dump(),
            "taken_over": self.taken_over,
        }

    def load(self, saved: Mapping[str, Any], now_ns: int = 0) -> None:
        """Become what `dump` returned, of the same spec and rules; silence is counted from `now_ns` (monotonic) on."""
        self.counters = Counter(saved["counters"])
        self.units.load(saved["units"])
        self._operations = [Operation(kind, a, b, dict(index_of)) for kind, a, b, index_of in saved["operations"]]
        self._inbox = deque(saved["inbox"])
        self._admission.load(saved["admission"], now_ns)
        self.taken_over = saved["taken_over"]
        epoch = saved["epoch"]
        self._epoch = epoch and Epoch.load(epoch, self.spec, self.rules, lateness_s=self.lateness_s)

    # -- applying messages -------------------------------------------------------------------------------------------

    def _apply(self, epoch: Epoch, message: Input) -> None:
        if isinstance(message, UnitTable):
            self._apply_table(epoch, message)
        elif isinstance(message, MaskInterval):
            self._apply_mask(epoch, message)
        elif isinstance(message, End):
            epoch.ended = True
        elif isinstance(message, SpikeBatch):
            self._apply_spikes(epoch, message)
            self._observe(epoch, message.start, message.stop)
        elif isinstance(message, TraceBatch):
            self._apply_traces(epoch, message)
            self._observe(epoch, message.start, message.stop)
        elif self.spec.input_kind == "spikes":
            # of traces nothing follows from a sign of life: where no unit fired a trace still has values
            self._observe(epoch, message.start, message.stop)

    def _apply_table(self, epoch: Epoch, table: UnitTable) -> None:
        now = None if epoch.watermark is None else int(epoch.grid.bin_from(epoch.watermark))
        before = self.units.index
        operations = self.units.apply(table, epoch.grid.bin_from(table.added), now, self.counters)
        self._operations += operations
        if len(self._operations) > MAX_PENDING_OPERATIONS:  # no window takes them up: forget what no unit stands for
            self._operations = [Operation.forget_all()]
            self.counters["operations_overflow"] += 1
        if before is not self.units.index:
            merges = [(op.source, op.target) for op in operations if op.kind == "merge"]
            adds_up = self.spec.input_kind == "spikes"  # spikes of one cell do, two traces of it do not
            epoch.counts.rearrange(before, self.units.index, merges if adds_up else [])

    def _apply_mask(self, epoch: Epoch, mask: MaskInterval) -> None:
        masked, start, stop = epoch.cutter.masked, mask.start, mask.stop
        if len(masked) >= MAX_MASKS:  # what lies between is masked too: more than was asked for, never less
            self.counters["masks_melted"] += 1
            start, stop = masked.reaching(start, stop)
        masked.add(start, stop)

    def _apply_spikes(self, epoch: Epoch, batch: SpikeBatch) -> None:
        self.counters["spikes_received"] += len(batch.samples)
        if batch.table_version > self.units.version:
            self.counters["table_behind"] += 1
        if not len(batch.samples):
            return
        # Every spike is accepted or counted under the first of four reasons why it is not.
        rows = self.units.rows(batch.units)
        known = rows >= 0
        inside = (batch.samples >= batch.start) & (batch.samples < batch.stop)
        bins = epoch.grid.bin_of(np.where(inside, batch.samples, batch.start))
        on_time = bins >= epoch.open_bin
        good = known & inside & on_time
        if epoch.cutter.observed.inside(batch.start, batch.stop):
            good &= ~epoch.cutter.observed.holds(batch.samples)
        if not good.all():
            self.counters["spikes_out_of_range"] += int((~inside).sum())
            self.counters["spikes_unknown_unit"] += int((inside & ~known).sum())
            self.counters["spikes_late"] += int((inside & known & ~on_time).sum())
            self.counters["spikes_repeated"] += int((inside & known & on_time & ~good).sum())
            rows, bins = rows[good], bins[good]
        self.counters["spikes_accepted"] += len(rows)
        # Intervals take them all, whatever the hop; bins that no window takes up (a hop longer than it) are left out.
        samples, units = batch.samples[good], batch.units[good].astype(np.int64)
        epoch.intervals.add(samples, units)
        epoch.coupling.add(samples, units)
        needed = bins >= epoch.oldest_bin
        if needed.any():
            epoch.reserve(int(bins.max()) + 1)
            epoch.counts.add_spikes(rows[needed], bins[needed])

    def _apply_traces(self, epoch: Epoch, batch: TraceBatch) -> None:
        rows, frames = self.units.rows(batch.units), np.arange(batch.start, batch.stop)
        bins, repeated = epoch.grid.bin_of(frames), epoch.cutter.observed.holds(frames)
        on_time = bins >= epoch.open_bin
        self.counters["frames_received"] += len(frames)
        self.counters["frames_late"] += int((~on_time).sum())
        self.counters["frames_repeated"] += int((on_time & repeated).sum())
        self.counters["traces_unknown_unit"] += int((rows < 0).sum())
        self.counters["traces_absent_unit"] += len(self.units.index) - len(np.unique(rows[rows >= 0]))
        taken = on_time & ~repeated & (bins >= epoch.oldest_bin)
        if taken.any():
            epoch.reserve(int(bins[-1]) + 1)
            epoch.counts.set_frames(rows[rows >= 0], bins[taken], batch.values[rows >= 0][:, taken])

    def _observe(self, epoch: Epoch, start: int, stop: int) -> None:
        """Note that [start, stop) was seen, if there is anything in it."""
        if start >= stop:
            return
        assert epoch.watermark is not None
        if epoch.step:  # what comes for a bin that a window has been cut from is late, and stays missing
            start = max(start, epoch.grid.first_sample(epoch.open_bin))
        observed = epoch.cutter.observed
        if start < stop and len(observed) >= MAX_STRETCHES:
            self.counters["stretches_dropped"] += 1
        elif start < stop:
            a, b = max(start, epoch.first_sample), min(stop, epoch.watermark)
            self.counters["samples_recovered"] += max(b - a, 0) - observed.inside(a, b) if a < b else 0
            observed.add(start, stop)
        epoch.watermark = max(epoch.watermark, stop)
