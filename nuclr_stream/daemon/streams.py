"""The streams of one daemon: a Labeler each, its last predictions and its state. No sockets here."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nuclr_stream.config import Settings
from nuclr_stream.daemon.metrics import StreamFigures
from nuclr_stream.inference.model import Model
from nuclr_stream.stream.epoch import Timed
from nuclr_stream.stream.labeler import Labeler, Labelled
from nuclr_stream.stream.window import Window
from nuclr_stream.wire import (
    Abstained,
    Event,
    Input,
    Predictions,
    SpikeBatch,
    StreamState,
    StreamStatus,
    TraceBatch,
)

SILENT_NS = 2 * 10**9
"""A source that sent nothing, not even a heartbeat, for so long makes its stream degraded."""
REJECTED_IN_A_ROW = 3
"""So many messages of a source not taken, one after the other, make its stream degraded: nothing new comes in."""
REJECTED_AT_LEAST_NS = 10**9
"""That is the reason for so long, however soon a message is taken again: two sources by turns do not flood states."""
IDLE_NS = 60 * 10**9
"""A stream that was silent for so long gives its place to a new one when all places are taken."""
OVERDUE_NS = 3 * 10**9
"""A stream from which nothing came for so long, or for two hops, while a window of it is in work is degraded."""
CATCH_UP_AT_LEAST_NS = 5 * 10**9
CATCH_UP_AT_MOST_NS = 30 * 10**9
CATCH_UP_BYTES = 2**26
"""A stream that comes back after a restart labels every window that its source replays instead of the newest alone,
until nothing is left to do, for at least and at most so long, and for so much data at most: then the newest win again.
"""

_LEVELS = defaultdict(lambda: logging.INFO, degraded=logging.WARNING)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Seen:
    """What events are made from: the change of any of these is worth one."""

    epoch: int | None
    version: int
    missing: int
    ended: bool


class Stream:
    """One probe in the daemon: its Labeler, and the latest of what came out of it.

    `owner` is the key that opened it, empty where sources come without; it lasts over a restart.
    """

    def __init__(self, labeler: Labeler, *, instance: int) -> None:
        self.labeler = labeler
        self.name = labeler.stream
        self.latest: Labelled | None = None
        self.last_message_ns = 0
        self.silent = False
        self.rejected = ""
        self.in_work = 0
        self.owner = ""
        self.failed_step = self.overdue = False
        self.troubles: tuple[str, ...] = ()
        self.catching_up = self.saving = False
        self.hop_s = labeler.spec.hop_s
        self._instance = instance
        self._rejected_in_a_row = 0
        self._rejected_ns = 0
        self._seq = 0
        self._skipped = 0
        self._flips: Counter[str] = Counter()
        self._work_since_ns: int | None = None
        self._logged: tuple[str, tuple[str, ...]] = ("", ())
        self._noted_ns = self._catch_up_ns = 0
        self._caught_up_bytes = 0
        self._reported = self._seen()

    def take(self, message: Input, now_ns: int) -> Iterator[Window]:
        """Push one message and yield the windows that it closes, oldest first; all of them are to be taken.

        While `saving` each of them carries the state of the population behind it. A stream that catches up yields
        one at most, and none while one is in work: what came since waits in the population.
        """
        if self.labeler.population.epoch is None and message.seq:
            self.catching_up = True  # its source goes on, this daemon was started in the middle
        self.last_message_ns = now_ns
        self.silent = False
        self.labeler.push(message, now_ns)
        why = self.labeler.population.last_rejection
        if why or isinstance(message, Timed):  # a table that is taken says nothing about data that are not
            self._note_rejection(why, now_ns)
        if self.catching_up:
            self._caught_up_bytes += _bytes_of(message)
        yield from self.cut(now_ns)

    def cut(self, now_ns: int) -> Iterator[Window]:
        """Yield the windows that are due, see `take`."""
        while not (self.catching_up and self.in_work):
            window = self.labeler.cut(now_ns)
            if window is None:
                self._note_catching_up(now_ns, idle=True)
                return
            if self._work_since_ns is None:
                self._work_since_ns = now_ns
            yield replace(window, checkpoint=self.labeler.population.dump()) if self.saving else window
            if self.catching_up:
                self._note_catching_up(now_ns, idle=False)
                return

    def _note_catching_up(self, now_ns: int, *, idle: bool) -> None:
        if not self.catching_up:
            return
        self._catch_up_ns = self._catch_up_ns or now_ns
        lasted_ns = now_ns - self._catch_up_ns
        over = lasted_ns >= CATCH_UP_AT_MOST_NS or self._caught_up_bytes >= CATCH_UP_BYTES
        if over or (idle and lasted_ns >= CATCH_UP_AT_LEAST_NS):
            self.catching_up = False

    def dump(self) -> dict[str, Any]:
        """Return what the daemon adds to the state of its Labeler, for `Streams.restore`."""
        return {
            "owner": self.owner,
            "seq": self._seq,
            "skipped": self._skipped,
            "flips": dict(self._flips),
            "latest": None
            if self.latest is None
            else {
                "predictions": self.latest.predictions,
                "mean": self.latest.mean,
                "last": self.latest.last,
            },
        }

    def load(self, saved: Mapping[str, Any], now_ns: int) -> None:
        """Go on where `dump` was taken: what the source replays now is labelled window by window."""
        self._seq, self._skipped, self._flips = saved["seq"], saved["skipped"], Counter(saved["flips"])
        self.owner = saved["owner"]
        latest = saved["latest"]
        self.latest = latest and Labelled(latest["predictions"], latest["mean"], latest["last"], {}, None)
        self.last_message_ns, self.catching_up = now_ns, True
        self._reported = self._seen()

    def _note_rejection(self, why: str, now_ns: int) -> None:
        """Note whether the source's messages are taken: of one whose clock went back, say, none ever is again."""
        self._rejected_in_a_row = self._rejected_in_a_row + 1 if why else 0
        if self._rejected_in_a_row >= REJECTED_IN_A_ROW:
            self.rejected, self._rejected_ns = why, now_ns
        elif self.rejected and not why and now_ns - self._rejected_ns >= REJECTED_AT_LEAST_NS:
            self.rejected = ""

    def events(self, now_ns: int) -> Iterator[Event]:
        """Yield what has happened to the stream since this was asked last."""
        before, self._reported = self._reported, self._seen()
        now = self._reported
        if now == before:
            return
        happened = []
        if now.epoch != before.epoch:
            happened.append(("new_epoch", ""))
        if now.version != before.version and now.version >= 0:
            happened.append(("units_changed", f"{len(self.labeler.population.units.index)} units"))
        if now.missing > before.missing:
            happened.append(("gap", f"{now.missing - before.missing} samples missing"))
        if now.ended and not before.ended:
            happened.append(("ended", ""))
        for kind, detail in happened:
            yield Event(
                stream=self.name,
                kind=kind,
                detail=detail,
                epoch=now.epoch or 0,
                sample=self._watermark,
                monotonic_ns=now_ns,
            )

    def published(self, labelled: Labelled, now_ns: int) -> Labelled:
        """Return `labelled` with the daemon's own numbers filled in, and keep it as the latest."""
        predictions = labelled.predictions
        if self.latest is None or self.latest.predictions.epoch != predictions.epoch:
            self._skipped = 0
        self._skipped += predictions.skipped_steps
        self._flips.update({task.name: task.flips for task in predictions.tasks})
        self._seq += 1
        self.failed_step = False
        self._work_since_ns = now_ns if self.in_work else None
        predictions = replace(
            predictions, seq=self._seq, instance=self._instance, published_ns=now_ns, skipped_steps=self._skipped
        )
        self.latest = replace(labelled, predictions=predictions)
        return self.latest

    @property
    def standing(self) -> tuple[int, StreamStatus, tuple[str, ...], int]:
        """What is worth publishing at once when it changes: epoch, state, reasons and the number of units."""
        population, predictions = self.labeler.population, self._predictions
        status: StreamStatus = "warming_up" if predictions is None else predictions.state
        reasons = predictions.reasons if predictions else ()
        reasons = (*reasons, self.rejected) if self.rejected else reasons
        if predictions is None and population.taken_over:
            reasons = (*reasons, "epoch_taken_over")
        if population.ended and not self.in_work:
            status = "ended"
        elif self.silent:
            status, reasons = "degraded", (*reasons, "source_silent")
        elif self.rejected:
            status = "degraded"
        found = (("step_overdue", self.overdue), ("step_failed", self.failed_step))
        more = (*(reason for reason, holds in found if holds), *self.troubles)
        if more and status != "ended":
            status, reasons = "degraded", (*reasons, *more)
        return population.epoch or 0, status, reasons, len(population.units.index)

    def note_time(self, now_ns: int) -> None:
        """Note whether the source still sends, and whether the step that runs should have been done long ago.

        The predictions of a silent source are of the past, and so are those before a step that does not end.
        """
        self._noted_ns = now_ns
        self.silent = now_ns - self.last_message_ns > SILENT_NS and not self.in_work
        hop_ns = int(self.hop_s * 1e9)
        self.overdue = self.waits_ns(now_ns) > min(max(OVERDUE_NS, 2 * hop_ns), 10 * OVERDUE_NS)
        _, status, reasons, _ = self.standing
        if (status, reasons) != self._logged:
            self._logged = status, reasons
            why = f" ({', '.join(reasons)})" if reasons else ""
            log.log(_LEVELS[status], "stream %s: %s%s", self.name, status.replace("_", " "), why)

    def waits_ns(self, now_ns: int) -> int:
        """For how long windows have been waiting with nothing coming out, 0 when there is nothing to do."""
        return 0 if self._work_since_ns is None else now_ns - self._work_since_ns

    def note_failed(self, now_ns: int) -> None:
        """Note that a step ended without predictions: those before it are no longer of now."""
        self.failed_step = True
        self._work_since_ns = now_ns if self.in_work else None

    @property
    def state(self) -> StreamState:
        """How the stream is doing now."""
        epoch, status, reasons, units = self.standing
        predictions = self._predictions
        return StreamState(
            stream=self.name,
            epoch=epoch,
            instance=self._instance,
            state=status,
            reasons=reasons,
            progress=self.labeler.population.progress,
            units=units,
            step=predictions.step if predictions else -1,
            end_sample=predictions.end_sample if predictions else 0,
            watermark=self._watermark,
            skipped_steps=predictions.skipped_steps if predictions else 0,
            counters={name: value for name, value in self.labeler.counters.items() if value},
        )

    @property
    def current(self) -> Labelled | None:
        """What came out last, if it is of the epoch that runs: what was known before it is known no more."""
        latest = self.latest
        return latest if latest and latest.predictions.epoch == self.labeler.population.epoch else None

    @property
    def _predictions(self) -> Predictions | None:
        return None if self.current is None else self.current.predictions

    @property
    def _watermark(self) -> int:
        population = self.labeler.population
        return 0 if population.epoch is None else population.watermark or 0

    @property
    def figures(self) -> StreamFigures:
        """The figures of the stream."""
        predictions = self._predictions
        return StreamFigures(
            degraded=self.standing[1] == "degraded",
            waits_seconds=self.waits_ns(self._noted_ns) / 1e9,
            units=len(self.labeler.population.units.index),
            active_units=predictions.active_units if predictions else 0,
            progress=self.labeler.population.progress,
            missing=predictions.missing if predictions else 0.0,
            skipped_steps=predictions.skipped_steps if predictions else 0,
            units_out_of_distribution=int(predictions.out_of_distribution.sum()) if predictions else 0,
            abstained=_abstained(predictions) if predictions else {},
            flips=self._flips.copy(),
        )

    def _seen(self) -> _Seen:
        population = self.labeler.population
        missing = population.counters["samples_missing"]
        return _Seen(population.epoch, population.units.version, missing, population.ended)


def _abstained(predictions: Predictions) -> Counter[tuple[str, str]]:
    """Count the units for which no class is named by task and reason."""
    return Counter((task.name, Abstained(why).word) for task in predictions.tasks for why in task.why.tolist() if why)


def _bytes_of(message: Input) -> int:
    """Return how much a message holds of what can be large."""
    if isinstance(message, SpikeBatch):
        return message.samples.nbytes + message.units.nbytes
    return message.values.nbytes if isinstance(message, TraceBatch) else 0


class Streams:
    """Every stream by name, at most `settings.max_streams`; `dropped` counts messages that found no place.

    `forgotten` names streams that gave up their place since whoever reads it emptied it.

    Raises ConfigError for settings that the bundle cannot take: a hop that is no whole bins, priors of unknown classes.
    """

    def __init__(self, model: Model, settings: Settings, *, instance: int) -> None:
        self._model, self._settings, self._instance = model, settings, instance
        self._labeler("")  # settings that the bundle cannot take fail here, not with the first stream
        self._streams: dict[str, Stream] = {}
        self._gone: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.forgotten: list[str] = []

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._streams.values()))

    def get(self, name: str) -> Stream | None:
        """Return the stream of that name, or None."""
        return self._streams.get(name)

    def of(self, message: Input, now_ns: int) -> Stream | None:
        """Return the stream of a message, made on its first one; None, counted, when every place is taken."""
        stream = self._streams.get(message.stream)
        if stream is None and self._make_room(now_ns):
            stream = Stream(self._labeler(message.stream), instance=self._instance)
            self._streams[message.stream] = stream
        if stream is None:
            self.dropped["too_many_streams"] += 1
        return stream

    @property
    def inputs(self) -> Counter[str]:
        """Messages and spikes of all streams, past ones too, by what became of them."""
        total = self._gone.copy()
        for stream in self:
            total.update(stream.labeler.counters)
        return total

    def restore(self, name: str, saved: Mapping[str, Any], now_ns: int) -> str:
        """Make a stream from its saved state; returns why that is not possible, or an empty string."""
        if len(self._streams) >= self._settings.max_streams:
            return f"all {self._settings.max_streams} places are taken"
        labeler = self._labeler(name)
        for what, now in labeler.fingerprint.items():
            if saved["fingerprint"].get(what) != now:
                return f"it was saved with {what} = {saved['fingerprint'].get(what)}, this daemon has {now}"
        labeler.load(saved["population"], saved["model_side"], now_ns)
        stream = Stream(labeler, instance=self._instance)
        stream.load(saved["daemon"], now_ns)
        self._streams[name] = stream
        return ""

    def _labeler(self, stream: str) -> Labeler:
        settings = self._settings
        return Labeler(
            self._model,
            stream=stream,
            hop_s=settings.hop_s,
            lateness_s=settings.lateness_s,
            max_units=settings.max_units,
            half_life_s=settings.half_life_s,
            priors=settings.priors,
            abstain=settings.abstain,
        )

    def _make_room(self, now_ns: int) -> bool:
        if len(self._streams) < self._settings.max_streams:
            return True
        over = [s for s in self if not s.in_work and (s.standing[1] == "ended" or now_ns - s.last_message_ns > IDLE_NS)]
        if not over:
            return False
        oldest = min(over, key=lambda stream: stream.last_message_ns)
        self._gone.update(oldest.labeler.counters)
        del self._streams[oldest.name]
        self.forgotten.append(oldest.name)
        return True
