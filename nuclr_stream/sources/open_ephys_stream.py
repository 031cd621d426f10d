"""One data stream of the Open Ephys GUI: when it has come how far, where its epochs begin, which spikes are whose.

Spikes come in bursts per processing block, electrode by electrode, and may come one block late, so nothing follows from
"a later spike has arrived". Two things do tell how far the stream has come:

* a DATA block [S, S + n): no spike before S + n - LOOK_BACK is still to come. The Spike Detector looks that far back
  across the edge of a block.
* a spike or TTL at sample s, where no channel is selected: no spike before s - n - max(n, LOOK_BACK) is to come.

The device clock going backwards is a new epoch, whatever message shows it.
"""

from __future__ import annotations

from collections import Counter, deque
from fractions import Fraction
from typing import Any

from nuclr_stream.sources.open_ephys_wire import Block, Spike, Ttl
from nuclr_stream.sources.writer import StreamWriter, UnitPlace, printable, stream_id
from nuclr_stream.windows.binning import MAX_SAMPLE, rational

LOOK_BACK = 128
"""Samples that a spike may lie before the end of the last block; 100 in the Spike Detector's source, 97 seen."""
BLOCK_S = 0.0233
"""A processing block of the GUI's default audio buffer, where no DATA message tells."""
CERTAIN_SPIKES = 4
"""So many spikes, over more than a block, that agree with each other and not with the epoch are another one."""
MAX_RUN = 256
LEAP_S = 2.0
"""Without DATA, a stretch without spikes longer than this was not observed, for all that is known."""
SMALL_BLOCK = 200
"""With blocks of so few samples the Spike Detector loses spikes before anybody is sent them (112 of 240 at 174)."""
SILENT_LEAD_S = 10.0
"""Before its first unit a stream has nothing to tell; no more than this of it is told after all."""
MAX_WAITING = 200_000
"""Most spikes that wait for the sample rate of their stream."""


class OpenEphysStream:
    """One stream of the GUI on its way to the daemon; `writer` is None until its rate and its first unit are known.

    Spikes that come = spikes_unsorted + spikes_late + spikes_out_of_range + spikes_waiting_dropped + `waiting` + those
    that the writer received, which has counters of its own.
    """

    def __init__(self, name: str, *, endpoint: str, sample_rate: Fraction | None = None, mask_line: int = -1) -> None:
        self.name, self._endpoint, self._mask_line = name, endpoint, mask_line
        self.sample_rate = sample_rate
        self._last_rate = float("nan")
        self.writer: StreamWriter | None = None
        self.counters: Counter[str] = Counter()
        self.unsorted: Counter[str] = Counter()
        self.notes: deque[str] = deque(maxlen=100)
        self.has_unknown_units = False  # whether a unit fired that the configuration has not been asked about
        self._unlisted: set[str] = set()
        self._places: dict[str, UnitPlace] = {}  # units that the configuration names
        self._block = 0  # samples of a block
        if sample_rate is not None:
            self._guess_block(sample_rate)
        self._between_epochs()

    def _between_epochs(self) -> None:
        self._start: int | None = None  # where the running epoch begins, None between epochs
        self._mark = 0  # no spike before this sample is still to come
        self._block_start: int | None = None
        self._block_end: int | None = None
        self._newest: int | None = None  # the largest sample of a spike or TTL
        self._early_ttl: deque[Ttl] = deque(maxlen=MAX_RUN)
        self._doubtful: list[Spike] = []  # spikes that do not fit the epoch, or come before it has begun
        self._lossy_from: int | None = None
        self._masked_from: int | None = None

    @property
    def waiting(self) -> int:
        """How many spikes wait for something that says where they belong."""
        return len(self._doubtful)

    def report(self) -> dict[str, Any]:
        """Return what came and what became of it, as plain values."""
        found: dict[str, Any] = {"counters": {}} if self.writer is None else self.writer.report()
        found["counters"] |= {name: count for name, count in self.counters.items() if count}
        found["waiting"] = self.waiting
        if self.unsorted:
            found["unsorted_electrodes"] = dict(self.unsorted)
        return found

    # -- what comes in -----------------------------------------------------------------------------------------------

    def block(self, block: Block) -> None:
        """Take a DATA message: the exact measure of how far the stream has come."""
        self.counters["blocks"] += 1
        self.set_rate(block.sample_rate)
        if block.start == self._block_start or block.start >= block.stop or self.sample_rate is None:
            return  # another channel of the same block
        self._block = block.stop - block.start
        if self._block <= SMALL_BLOCK and self.counters["blocks"] == 1:
            self.notes.append(
                f"stream {self.name}: blocks of {self._block} samples, of which the GUI's Spike Detector loses spikes "
                f"(up to {SMALL_BLOCK}); choose a larger audio buffer in the GUI"
            )
        reached = self._block_end
        if self._start is None:
            self._begin(block.start)
        elif reached is None:  # the first DATA message of an epoch that spikes began
            if block.stop <= self._mark:
                self._turn_back(block)
        elif block.start < reached:
            self._turn_back(block)
        elif block.start > reached:
            self._lost(reached, block.start)
            self.counters["samples_skipped"] += block.start - reached
        self._block_start, self._block_end = block.start, block.stop
        self._settle_loss(block.stop)
        self._place_doubtful()
        for ttl in [self._early_ttl.popleft() for _ in range(len(self._early_ttl))]:
            self.counters["ttl_events"] -= 1
            self.ttl(ttl)
        self._early_ttl.clear()
        self._advance(block.stop - LOOK_BACK)

    def spike(self, spike: Spike) -> None:
        """Take a spike."""
        self.counters["spikes_seen"] += 1
        if spike.sample_rate is not None:
            self.set_rate(spike.sample_rate)
        if not -MAX_SAMPLE < spike.sample < MAX_SAMPLE:
            self.counters["spikes_out_of_range"] += 1
        elif self._fits(spike.sample):
            self._place_doubtful()
            self._place(spike)
            self._note_evidence(spike.sample)
        elif len(self._doubtful) >= MAX_WAITING:
            self.counters["spikes_waiting_dropped"] += 1
        else:
            self._doubtful.append(spike)
            self._settle_without_data(spike)

    def ttl(self, ttl: Ttl) -> None:
        """Take a TTL: it is counted, and while the mask line is on, data are masked."""
        self.counters["ttl_events"] += 1
        if ttl.sample_rate is not None:
            self.set_rate(ttl.sample_rate)
        if not self._fits(ttl.sample):
            self._early_ttl.append(ttl)  # it comes before the block that begins its epoch
            return
        if ttl.line == self._mask_line:
            self._send_mask(ttl.sample)
            self._masked_from = ttl.sample if ttl.is_on else None
        self._note_evidence(ttl.sample)

    def messages_lost(self) -> None:
        """Take note that messages were lost: spikes of this stream may have been among them."""
        if self._start is not None and self._lossy_from is None:
            self._lossy_from = self._mark

    def set_rate(self, sample_rate: float) -> None:
        """Take the sample rate that a message or the configuration tells; another one than before is a new epoch."""
        if sample_rate == self._last_rate:
            return
        self._last_rate = sample_rate
        try:
            rate = rational(sample_rate)
        except ValueError:
            self.counters["rates_rejected"] += 1
            return
        if rate == self.sample_rate:
            return
        if self._start is not None:
            self.end_epoch(f"the sample rate changed from {self.sample_rate} to {rate}")
        self.sample_rate = rate
        self._guess_block(rate)

    def _guess_block(self, rate: Fraction) -> None:
        """Take the length of a block for that of the GUI's default, until a DATA message tells."""
        self._block = int(BLOCK_S * rate) + 1

    def declare(self, units: dict[str, UnitPlace]) -> None:
        """Take the units that the configuration names: they are in the table before they fire; others are retired."""
        gone = set(self._places) - set(units)
        self._places = dict(units)
        self.has_unknown_units = False
        if self.writer is not None:
            self.writer.retire(gone)
            for unit_id, place in units.items():
                self.writer.add_unit(unit_id, place)

    def end_epoch(self, why: str) -> None:
        """Complete the epoch: acquisition stopped, restarted, or its clock jumped. The next message begins another."""
        self._settle_without_data(None)
        if self._start is not None and self.writer is not None:
            self._settle_loss(self._end)
            self._send_mask(self._end)
            self.writer.finish(self._end)
            self.notes.append(f"stream {self.name}: {why}")
        self.counters["spikes_waiting_dropped"] += len(self._doubtful)
        self._between_epochs()

    # -- epochs ------------------------------------------------------------------------------------------------------

    @property
    def _end(self) -> int:
        """Where the running epoch ends if nothing more comes."""
        newest = self._mark if self._newest is None else self._newest + 1
        return max(self._mark, newest if self._block_end is None else self._block_end)

    @property
    def _reach(self) -> int:
        """How far behind the newest spike another may still come, where no DATA message tells."""
        return self._block + max(self._block, LOOK_BACK)

    def _begin(self, start: int) -> None:
        self._start = self._mark = start
        if self.writer is not None:
            self.writer.begin(start, sample_rate=self.sample_rate)
        elif self._places:
            self._open_writer()

    def _open_writer(self) -> StreamWriter:
        """Begin to write: with the first unit, and from not longer ago than a window, for nothing was there to tell."""
        assert self._start is not None and self.sample_rate is not None
        start = max(self._start, self._mark - int(SILENT_LEAD_S * self.sample_rate))
        self.writer = StreamWriter(
            self._endpoint, stream=stream_id(self.name), sample_rate=self.sample_rate, start=start
        )
        for unit_id, place in self._places.items():
            self.writer.add_unit(unit_id, place)
        return self.writer

    def _turn_back(self, block: Block) -> None:
        """Begin the epoch of a block before what was reached: a file that loops, or a clock that was reset."""
        doubtful, self._doubtful = self._doubtful, []
        early = self._early_ttl
        self.end_epoch(f"the device clock went back from sample {self._end} to {block.start}")
        # The detector looks back across the seam: such spikes carry numbers before the block, negative ones too.
        self._begin(block.start - LOOK_BACK)
        self._doubtful, self._early_ttl = doubtful, early

    # -- spikes ------------------------------------------------------------------------------------------------------

    def _fits(self, sample: int) -> bool:
        """Return whether a sample is where the next spikes of the epoch should be."""
        if self._start is None or self.sample_rate is None or sample < self._mark:
            return False
        if self._block_end is not None:
            return sample < self._block_end + 2 * self._block
        return self._newest is None or sample < self._newest + LEAP_S * self.sample_rate

    def _place(self, spike: Spike) -> None:
        if not spike.sorted_id:
            self.counters["spikes_unsorted"] += 1
            self.unsorted[spike.electrode] += 1
            return
        writer = self.writer or self._open_writer()
        unit_id = printable(f"{spike.source_node}/{spike.electrode}/{spike.sorted_id}")
        if unit_id not in self._places and unit_id not in self._unlisted:
            self._unlisted.add(unit_id)
            self.has_unknown_units = True
        writer.spike(unit_id, spike.sample)

    def _place_doubtful(self) -> None:
        """Place the doubtful spikes that fit by now; the others are late, or at no sample of this epoch."""
        doubtful, self._doubtful = self._doubtful, []
        for spike in doubtful:
            if self._fits(spike.sample):
                self._place(spike)
            else:
                self.counters["spikes_late" if spike.sample < self._mark else "spikes_out_of_range"] += 1

    def _settle_without_data(self, spike: Spike | None) -> None:
        """Decide about doubtful spikes where no DATA message does: a block full of them is no accident.

        With `spike` None nothing more comes to wait for.
        """
        if not self._doubtful or self.sample_rate is None:
            return
        samples = self._run_of_doubtful()
        is_certain = len(samples) >= CERTAIN_SPIKES and max(samples) - min(samples) > self._reach
        if not is_certain and (spike is not None or self._start is not None):
            return
        doubtful, self._doubtful = self._doubtful, []
        if self._start is not None and samples[-1] < self._mark:
            self.end_epoch(f"the device clock went back from sample {self._end} to {min(samples)}")
        if self._start is None:
            self._begin(min(samples))
        else:
            self._lost(self._end, min(samples))
        self._block_start = self._block_end = None
        self._newest = max(samples)
        self._doubtful = doubtful
        self._place_doubtful()
        self._note_evidence(self._newest)

    def _run_of_doubtful(self) -> list[int]:
        """Return the samples of the last doubtful spikes that are in order, as far as spikes of one clock are."""
        run: list[int] = []
        earliest = MAX_SAMPLE
        for spike in reversed(self._doubtful[-MAX_RUN:]):
            is_behind = spike.sample < self._mark
            if run and (spike.sample > earliest + self._reach or is_behind != (run[0] < self._mark)):
                break
            run.append(spike.sample)
            earliest = min(earliest, spike.sample)
        return run[::-1]

    def _note_evidence(self, sample: int) -> None:
        """Take a sample number as a sign of how far the stream has come."""
        self._newest = sample if self._newest is None else max(self._newest, sample)
        if self._block_end is None:
            self._settle_loss(sample + self._block)
        self._advance(self._newest - self._reach)

    # -- watermark, losses and masks ---------------------------------------------------------------------------------

    def _advance(self, mark: int) -> None:
        if mark <= self._mark:
            return
        self._send_mask(mark)
        self._mark = mark
        if self.writer is not None:
            self.writer.advance(mark)

    def _lost(self, start: int, stop: int) -> None:
        if self.writer is not None:
            self.writer.lost(start, stop)

    def _settle_loss(self, stop: int) -> None:
        """End the stretch in which spikes may have been lost."""
        if self._lossy_from is not None:
            self._lost(self._lossy_from, stop)
            self._lossy_from = None

    def _send_mask(self, stop: int) -> None:
        """Mask what came since the line went on, before its spikes are sent."""
        if self._masked_from is not None and self._masked_from < stop:
            if self.writer is not None:
                self.writer.mask(self._masked_from, stop)
            self._masked_from = stop
