"""One stream of a source on its way to the daemon: spikes wait until the watermark passes them, and all are counted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from nuclr_stream.client.publisher import Publisher
from nuclr_stream.sources.clock import DeviceClock
from nuclr_stream.windows.binning import MAX_SAMPLE, Int64Array
from nuclr_stream.wire import MAX_UNITS

MAX_BATCH_SPIKES = 32_768
"""Most spikes of one message."""
MAX_BATCH_S = 10.0
"""Longest stretch of one message; the daemon takes no more than a minute."""
MAX_HELD = 2_000_000
"""Most spikes that wait for the watermark; the daemon learns of what is dropped beyond as missing samples."""
MAX_NAME_BYTES = 256
ROOM_WAIT_S = 1.0
"""How long a batch waits for a daemon that is there but does not keep up."""


@dataclass(frozen=True)
class UnitPlace:
    """Where a unit lies, as far as the source knows: -1 and NaN for what it does not."""

    channel: int = -1
    shank: int = -1
    x_um: float = float("nan")
    depth_um: float = float("nan")


NOWHERE = UnitPlace()


def stream_id(name: str) -> str:
    """Return a name of a stream that the protocol takes: no control characters, at most 256 bytes, not empty."""
    return printable(name).encode()[:MAX_NAME_BYTES].decode(errors="ignore") or "unnamed"


def printable(text: str) -> str:
    """Return `text` with "_" for every character that the protocol takes in no name, such as a line break."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "_" for one in text)


class StreamWriter:
    """Writes one stream: `spike` what comes in any order, `advance` the watermark, `begin` a new epoch.

    `counters`: spikes_received = spikes_sent + spikes_unsent + spikes_late + spikes_out_of_range +
    spikes_unit_rejected + spikes_overflow + `held`, at any time; what a source leaves out before it calls `spike` is
    for the source to count.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        stream: str,
        sample_rate: Fraction | int | float | str,
        start: int,
        epoch: int | None = None,
    ) -> None:
        self.stream = stream
        self.counters: Counter[str] = Counter()
        self.epochs = 1
        self._publisher = Publisher(endpoint, stream=stream, sample_rate=sample_rate, start=start, epoch=epoch)
        self._units: dict[str, UnitPlace] = {}
        self._index_of: dict[str, int] = {}
        self._table_is_old = self._continues = False
        self._held_samples: list[int] = []
        self._held_units: list[str] = []
        self._lossy: list[tuple[int, int]] = []
        self._clock = DeviceClock(self._publisher.sample_rate)
        self._last_was_sent = True

    @property
    def watermark(self) -> int:
        """The sample up to which everything has been sent."""
        return self._publisher.watermark

    @property
    def sample_rate(self) -> Fraction:
        """Samples per second, exactly."""
        return self._publisher.sample_rate

    @property
    def held(self) -> int:
        """How many spikes wait for the watermark."""
        return len(self._held_samples)

    @property
    def unit_ids(self) -> tuple[str, ...]:
        """The units of the table, in the order in which they were added."""
        return tuple(self._units)

    # -- units -------------------------------------------------------------------------------------------------------

    def add_unit(self, unit_id: str, place: UnitPlace = NOWHERE) -> bool:
        """Put a unit into the table; it goes out before the next spikes. False if there is no room, or no such id."""
        if unit_id in self._units:
            return True
        if (
            len(self._units) >= MAX_UNITS
            or not unit_id.isprintable()
            or not 0 < len(unit_id.encode()) <= MAX_NAME_BYTES
        ):
            return False  # not cut to fit: two units would become one
        self._units[unit_id] = place
        self._table_is_old = True
        return True

    def retire(self, unit_ids: Iterable[str]) -> None:
        """Take units out of the table."""
        for unit_id in unit_ids:
            self._table_is_old |= self._units.pop(unit_id, None) is not None

    # -- data --------------------------------------------------------------------------------------------------------

    def spike(self, unit_id: str, sample: int) -> None:
        """Take a spike; its unit is added if it is new. It is sent when the watermark has passed it."""
        self.counters["spikes_received"] += 1
        if not -MAX_SAMPLE <= sample < MAX_SAMPLE:
            self.counters["spikes_out_of_range"] += 1
        elif sample < self._publisher.watermark:
            self.counters["spikes_late"] += 1
        elif unit_id not in self._units and not self.add_unit(unit_id):
            self.counters["spikes_unit_rejected"] += 1
        elif len(self._held_samples) >= MAX_HELD:
            self.counters["spikes_overflow"] += 1
            self.lost(self._publisher.watermark, sample + 1)
        else:
            self._held_samples.append(sample)
            self._held_units.append(unit_id)

    def lost(self, start: int, stop: int) -> None:
        """Say that something of [start, stop) was lost: spikes that came of it are kept, the rest counts as missing."""
        start = max(start, self._publisher.watermark)
        merged: list[tuple[int, int]] = []
        for a, b in sorted([*self._lossy, (start, stop)] if start < stop else self._lossy):
            if merged and a <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(b, merged[-1][1])
            else:
                merged.append((a, b))
        self._lossy = merged

    def mask(self, start: int, stop: int) -> None:
        """Say that [start, stop) must not be used: a stimulation, say."""
        self._publisher.mask(start, stop, cause="stimulation")

    def advance(self, watermark: int) -> None:
        """Send everything before sample `watermark`: nothing earlier is still to come."""
        if watermark <= self._publisher.watermark:
            return
        self._renew_units()
        samples, units = self._take(watermark)
        longest = int(MAX_BATCH_S * self._publisher.sample_rate)
        for start, stop, is_lossy in self._pieces(watermark):
            if is_lossy:
                self._send_lossy(samples, units, start, stop)
                continue
            while self._publisher.watermark < stop:
                self._send(samples, units, self._fitting(samples, min(stop, self._publisher.watermark + longest)))
        self._lossy = [(a, b) for a, b in self._lossy if b > watermark]
        self._clock.note(watermark, time.monotonic())

    # -- epochs ------------------------------------------------------------------------------------------------------

    def finish(self, stop: int | None = None) -> None:
        """Send what is held, up to `stop` if that is further, and say that the epoch is complete."""
        last = max(
            [
                self._publisher.watermark,
                *(sample + 1 for sample in self._held_samples),
                *([stop] if stop is not None else []),
            ]
        )
        self.advance(last)
        self._renew_units()
        self._publisher.end()

    def begin(self, start: int, *, sample_rate: Fraction | int | float | str | None = None) -> None:
        """Begin a new epoch at sample `start`, after `finish`; the units are declared again and keep their exposure."""
        self._publisher.restart(start=start, sample_rate=sample_rate)
        self._lossy = []
        self._clock = DeviceClock(self._publisher.sample_rate)
        self._table_is_old = self._continues = True
        self.epochs += 1

    def report(self) -> dict[str, Any]:
        """Return what came and what became of it, as plain values."""
        return {
            "counters": {name: count for name, count in self.counters.items() if count},
            "units": len(self._units),
            "epochs": self.epochs,
            "held": self.held,
            "watermark": self.watermark,
            "messages_unsent": self._publisher.unsent,
            "clock": self._clock.report(),
        }

    def close(self) -> None:
        """Let go of the connection; what was accepted still leaves."""
        self._publisher.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _renew_units(self) -> None:
        if not self._table_is_old:
            return
        places = list(self._units.values())
        index = self._publisher.units(
            list(self._units),
            continues=self._continues,
            depth_um=[place.depth_um for place in places],
            x_um=[place.x_um for place in places],
            shank=[place.shank for place in places],
            channel=[place.channel for place in places],
        )
        # a retired unit keeps its index here: spikes of it that are still held are for the daemon to count
        self._index_of |= dict(zip(self._units, index.tolist(), strict=True))
        self._table_is_old = self._continues = False

    def _take(self, watermark: int) -> tuple[Int64Array, Int64Array]:
        """Take the held spikes before `watermark` out: samples, ascending, and their indices."""
        samples = np.array(self._held_samples, dtype=np.int64)
        due = samples < watermark
        if due.all():
            names, self._held_samples, self._held_units = self._held_units, [], []
        else:
            flags = due.tolist()
            names = [unit for unit, is_due in zip(self._held_units, flags, strict=True) if is_due]
            self._held_units = [unit for unit, is_due in zip(self._held_units, flags, strict=True) if not is_due]
            self._held_samples = samples[~due].tolist()
        index = np.array([self._index_of[name] for name in names], dtype=np.int64)
        order = np.argsort(samples[due], kind="stable")
        return samples[due][order], index[order]

    def _pieces(self, watermark: int) -> list[tuple[int, int, bool]]:
        """Return what is to be sent as [start, stop) pieces, and which of them had losses."""
        pieces, start = [], self._publisher.watermark
        for a, b in self._lossy:
            a, b = max(a, start), min(b, watermark)
            if a < b:
                pieces += [(start, a, False), (a, b, True)]
                start = b
        return [*pieces, (start, watermark, False)]

    def _fitting(self, samples: Int64Array, stop: int) -> int:
        """Return how far towards `stop` one message can reach without too many spikes."""
        first, last = np.searchsorted(samples, [self._publisher.watermark, stop]).tolist()
        if last - first <= MAX_BATCH_SPIKES:
            return stop
        return max(int(samples[first + MAX_BATCH_SPIKES]), int(samples[first]) + 1)

    def _send_lossy(self, samples: Int64Array, units: Int64Array, start: int, stop: int) -> None:
        """Send what came through of a stretch with losses: each spike as all that is known of its own sample."""
        first, last = np.searchsorted(samples, [start, stop])
        for sample in np.unique(samples[first:last]).tolist():
            self._publisher.skip(sample)
            self._send(samples, units, sample + 1)
        self._publisher.skip(stop)
        self.counters["samples_lossy"] += stop - start

    def _send(self, samples: Int64Array, units: Int64Array, stop: int) -> None:
        publisher = self._publisher
        first, last = np.searchsorted(samples, [publisher.watermark, stop]).tolist()
        # wait for a daemon that is slow, not for one that is not there
        publisher.wait_s = ROOM_WAIT_S if self._last_was_sent else 0.0
        self._last_was_sent = publisher.spikes(samples[first:last], units[first:last], stop=stop)
        self.counters["spikes_sent" if self._last_was_sent else "spikes_unsent"] += last - first
