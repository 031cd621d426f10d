"""Lab Streaming Layer: spikes or binned counts in, predictions out.

LSL has no convention for spikes. Ours, in the stream's description:

* **spikes**: irregular rate, three channels labelled `sequence`, `unit` and `sample`, int32, int64 or double64. A row
  is a spike; `sequence` is 0, 1, 2, ... over all that is pushed, `unit` the place in the list of units, `sample` the
  device's clock. A row with unit -1 is a watermark: no spike before `sample` is still to come. `desc/sample_rate` is
  the device's rate as text ("30000" or "390625/16"), `desc/units/unit/label` are the ids.
* **counts**: regular rate, one channel a unit, its label the id; each row is one bin of spike counts.

LSL itself cannot tell of losses: the sequence does, and for counts the time stamps.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import ConfigError
from nuclr_stream.sources.writer import StreamWriter, printable, stream_id
from nuclr_stream.windows.binning import rational

LABELS = ("sequence", "unit", "sample")
WATERMARK = -1
MAX_BUFFER = 360
"""LSL's buffer: seconds of a regular stream, hundreds of samples of an irregular one; 10 loses 95 % of a burst."""
CHUNK = 4_096
LATENESS_S = 0.05
"""How far behind the newest spike another may come, in a stream of spikes that sends no watermarks."""
GAP_S = 0.25
"""Time stamps of counts that jump by more than this, and by more than a bin, mean bins that never came."""
CLOCK_EVERY_S = 5.0


@dataclass(frozen=True)
class Description:
    """What an inlet's description says: `unit_ids`, the exact rate of its samples, and whether they are `counts`."""

    unit_ids: tuple[str, ...]
    sample_rate: Fraction
    counts: bool


class LslSource:
    """Reads the LSL stream called `name`; waits for it, and for it to come back.

    `counters`: spikes and counts as they came; rows_lost by the sequence; outlets, how often the stream was found.
    Raises ConfigError without pylsl, or when a stream's description is not as above.
    """

    def __init__(self, name: str, *, endpoint: str, lateness_s: float = LATENESS_S) -> None:
        self._lsl = load_pylsl()
        self.name, self._endpoint, self._lateness_s = name, endpoint, lateness_s
        self.counters: Counter[str] = Counter()
        self.clock_offset_s: float | None = None
        self.description = Description((), Fraction(1), counts=False)
        self._started = False
        self.writer: StreamWriter | None = None
        self._inlet: Any = None
        self._notes: list[str] = []
        self._next_row = 0
        self._newest = 0
        self._has_watermarks = False
        self._last_stamp = 0.0
        self._clock_at = 0.0

    # -- finding the stream ------------------------------------------------------------------------------------------

    def turn(self, timeout_s: float) -> bool:
        """Take what has come within `timeout_s`. A live source never ends: always True."""
        if self._inlet is None and not self._find(timeout_s):
            return True
        try:
            rows, stamps = self._pull(timeout_s)
            self._correct_clock()
        except self._lsl.util.LostError:
            self._lose()
            return True
        if stamps:
            values = np.asarray(rows)
            self._take_counts(values, stamps) if self.description.counts else self._take_spikes(values)
        return True

    def _find(self, timeout_s: float) -> bool:
        found = self._lsl.resolve_byprop("name", self.name, minimum=1, timeout=timeout_s)
        if not found:
            return False
        # not recovered by LSL itself: an outlet that comes back may hold other units, and begins a new epoch anyway
        self._inlet = self._lsl.StreamInlet(found[0], max_buflen=MAX_BUFFER, recover=False)
        try:
            self.description = describe(self._inlet.info(timeout=5.0), self._lsl)
            self._inlet.open_stream(timeout=5.0)
        except (self._lsl.util.LostError, self._lsl.util.TimeoutError):
            self._lose()
            return False
        self.counters["outlets"] += 1
        self._next_row = self._newest = 0
        self._has_watermarks, self._last_stamp, self._clock_at = False, 0.0, 0.0
        self._started = False
        return True

    def _pull(self, timeout_s: float) -> tuple[list[list[float]], list[float]]:
        """Return the rows that are there and their time stamps, after waiting for the first of them.

        No more is asked for than is there: where an outlet has gone, LSL raises in the middle of a chunk, and what it
        had put into the chunk would be gone, too.
        """
        row, stamp = self._inlet.pull_sample(timeout=timeout_s)
        if row is None:
            return [], []
        more = min(self._inlet.samples_available(), CHUNK)
        rows, stamps = self._inlet.pull_chunk(timeout=0.0, max_samples=more) if more else ([], [])
        return [row, *rows], [stamp, *stamps]

    def _lose(self) -> None:
        self._notes.append(f"LSL stream {self.name}: its outlet is gone; waiting for it to come back")
        self._inlet = None
        if self.writer is not None and self._started:
            self._advance_to_newest()
            self.writer.finish()
            self._started = False

    def _begin(self, start: int) -> StreamWriter:
        """Begin an epoch at `start` with the units of the description."""
        rate, units = self.description.sample_rate, self.description.unit_ids
        if self.writer is None:
            stream = stream_id(self.name)
            self.writer = StreamWriter(self._endpoint, stream=stream, sample_rate=rate, start=start)
        else:
            if self._started:
                self.writer.finish()
            self.writer.begin(start, sample_rate=rate)
        self.writer.retire(set(self.writer.unit_ids) - set(units))
        for unit_id in units:
            self.writer.add_unit(unit_id)
        self._started, self._newest = True, start
        return self.writer

    # -- spikes ------------------------------------------------------------------------------------------------------

    def _take_spikes(self, rows: npt.NDArray[Any]) -> None:
        for sequence, unit, sample in rows.astype(np.int64).tolist():
            self._follow(sequence, sample)
            writer = self.writer if self.writer is not None and self._started else self._begin(sample)
            if sample < self._newest - self.description.sample_rate:  # a second back is no lateness
                self._notes.append(
                    f"LSL stream {self.name}: the device clock went back from {self._newest} to {sample}"
                )
                writer = self._begin(sample)
            if unit == WATERMARK:
                self._has_watermarks = True
                writer.advance(sample)
            elif 0 <= unit < len(self.description.unit_ids):
                writer.spike(self.description.unit_ids[unit], sample)
            else:
                self.counters["spikes_unknown_unit"] += 1
            self._newest = max(self._newest, sample)
        if not self._has_watermarks and self.writer is not None:
            self.writer.advance(self._newest - int(self._lateness_s * self.description.sample_rate))

    def _follow(self, sequence: int, sample: int) -> None:
        """Count what is missing in the sequence, and declare the stretch to which it belongs."""
        lost, self._next_row = sequence - self._next_row, sequence + 1
        first = not self.counters["rows"]
        self.counters["rows"] += 1
        if lost > 0 and not first and self.writer is not None and self._started:
            self.counters["rows_lost"] += lost
            self.writer.lost(self.writer.watermark, sample)
        elif lost < 0:
            self._notes.append(f"LSL stream {self.name}: its sequence began again")
            self._begin(sample)

    def _advance_to_newest(self) -> None:
        if self.writer is not None:
            self.writer.advance(self._newest + (not self.description.counts))

    # -- counts ------------------------------------------------------------------------------------------------------

    def _take_counts(self, rows: npt.NDArray[Any], stamps: list[float]) -> None:
        rate = float(self.description.sample_rate)
        for row, stamp in zip(rows, stamps, strict=True):
            writer = self.writer if self.writer is not None and self._started else self._begin(0)
            missed = (stamp - self._last_stamp) * rate - 1 if self._last_stamp else 0.0
            if missed / rate > GAP_S and missed >= 1:
                writer.lost(self._newest, self._newest + round(missed))
                self.counters["bins_lost"] += round(missed)
                self._newest += round(missed)
            self._last_stamp = stamp
            self.counters["rows"] += 1
            counts = np.nan_to_num(np.asarray(row, dtype=np.float64), posinf=0.0, neginf=0.0)
            for unit in np.flatnonzero(counts > 0).tolist():
                for _ in range(min(int(counts[unit]), 1_000)):
                    writer.spike(self.description.unit_ids[unit], self._newest)
            self._newest += 1
        assert self.writer is not None
        self.writer.advance(self._newest)

    # -- the rest of a source ----------------------------------------------------------------------------------------

    def _correct_clock(self) -> None:
        """Ask now and then how far the sender's clock is from this host's: it goes into the report, never into bins."""
        if time.monotonic() - self._clock_at >= CLOCK_EVERY_S:
            self._clock_at = time.monotonic()
            try:
                self.clock_offset_s = self._inlet.time_correction(timeout=0.2)
            except self._lsl.util.TimeoutError:
                self.counters["clock_timeouts"] += 1

    def notes(self) -> list[str]:
        """Return what there is to say since it was asked last."""
        notes, self._notes = self._notes, []
        return notes

    def report(self) -> dict[str, Any]:
        """Return what came and what became of it."""
        found: dict[str, Any] = {"counters": dict(self.counters), "clock_offset_s": self.clock_offset_s}
        if self.writer is not None:
            found["streams"] = {self.name: self.writer.report()}
        return found

    def close(self) -> None:
        """Complete the stream and let go of everything."""
        if self.writer is not None:
            if self._started:
                self._advance_to_newest()
                self.writer.finish()
            self.writer.close()
        if self._inlet is not None:
            self._inlet.close_stream()


def load_pylsl() -> Any:
    """Return pylsl. Raises ConfigError with the remedy where it, or the library that it wraps, is not there."""
    try:
        import pylsl
        import pylsl.util
    except (ImportError, RuntimeError) as error:
        raise ConfigError(f"LSL needs pylsl and liblsl ({error}): pip install 'nuclr-stream[lsl]'") from error
    return pylsl


def describe(info: Any, lsl: Any) -> Description:
    """Return what a stream's description says. Raises ConfigError when it is neither spikes nor counts as above."""
    labels = list(info.get_channel_labels() or [])
    labels = [printable(str(label or "")) for label in labels]
    name = info.name()
    if info.nominal_srate() != lsl.IRREGULAR_RATE:
        labels = [label or f"channel{row}" for row, label in enumerate(labels)] or [
            f"channel{row}" for row in range(info.channel_count())
        ]
        if len(set(labels)) < len(labels):
            raise ConfigError(f"LSL stream {name}: two channels have the same label; they are the ids of units")
        return Description(tuple(labels), rational(info.nominal_srate()), counts=True)
    if tuple(labels) != LABELS:
        raise ConfigError(f"LSL stream {name}: its channels are {labels}; a stream of spikes has {', '.join(LABELS)}")
    units, unit = [], info.desc().child("units").child("unit")
    while not unit.empty():
        units.append(printable(unit.child_value("label")))
        unit = unit.next_sibling("unit")
    try:
        rate = rational(info.desc().child_value("sample_rate"))
    except ValueError as error:
        raise ConfigError(f"LSL stream {name}: desc/sample_rate: {error}") from error
    if not units or len(set(units)) < len(units):
        raise ConfigError(f"LSL stream {name}: desc/units must list every unit's label once")
    return Description(tuple(units), rate, counts=False)
