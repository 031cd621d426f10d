"""The thread that looks at every prediction with the rules, notes what fires, and hands it on."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from nuclr_stream.bundle.manifest import TaskPart
from nuclr_stream.placement.report import Document, placement_report
from nuclr_stream.rules.engine import Engine, Firing
from nuclr_stream.rules.journal import Journal
from nuclr_stream.rules.settings import Rule, Sink
from nuclr_stream.rules.sinks import SinkThread
from nuclr_stream.windows.binning import Float32Array
from nuclr_stream.wire import Event, Predictions, RuleFired

WAITING = 256
"""Windows that may wait for the rules; the rules see no more, which is counted."""
CLOSE_S = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Window:
    predictions: Predictions
    depth_um: Float32Array
    shank: Float32Array


class RuleRunner:
    """Rules at work. `offer` windows, `messages` gives what is to be published; `counters` says what became of events.

    `part` is the task about regions, None without one. `wake` is called when there is something to publish.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        sinks: Sequence[Sink],
        journal: Journal,
        *,
        part: TaskPart | None,
        wake: Callable[[], None],
    ) -> None:
        self._engine = Engine(rules, journal.fired)
        self._journal, self._part, self._wake = journal, part, wake
        self.counters: Counter[str] = Counter()
        self._closed = False
        self._outbox: deque[RuleFired | Event] = deque()
        self._sinks = {sink.name: SinkThread(sink, self._delivered) for sink in sinks}
        for event, sink_name in journal.unsure:  # in the log and the counters too: nobody may be subscribed yet
            self.counters["rules_unsure"] += 1
            detail = f"{event}: the daemon ended while {sink_name} was sent to; not sent again"
            log.warning(detail)
            self._say("rule_unsure", event, detail)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rules")
        self._looks: deque[Future[None]] = deque()

    @property
    def asks_depth(self) -> bool:
        """Whether windows must come with the places of their units."""
        return self._engine.asks_depth

    def offer(self, predictions: Predictions, depth_um: Float32Array, shank: Float32Array) -> None:
        """Have the rules look at a window; `depth_um` and `shank` (U,) are where its units are now, if they ask."""
        if len(self._looks) >= WAITING:
            self.counters["rules_windows_skipped"] += 1
        else:
            self._looks.append(self._executor.submit(self._look, _Window(predictions, depth_um, shank)))

    def messages(self) -> list[RuleFired | Event]:
        """Return what is to be published, oldest first. Raises what a look at a window raised, once."""
        while self._looks and self._looks[0].done():
            self._looks.popleft().result()
        found = []
        while self._outbox:
            found.append(self._outbox.popleft())
        return found

    def close(self) -> None:
        """Finish what waits, for a moment; what is not delivered by then the next start calls unsure."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + CLOSE_S
        wait(self._looks, CLOSE_S)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._looks = deque(look for look in self._looks if look.done() and not look.cancelled())
        for sink in self._sinks.values():
            sink.close(max(deadline - time.monotonic(), 0.0))
        self._journal.close()

    def _look(self, window: _Window) -> None:
        for firing in self._engine.take(window.predictions, lambda: self._placed(window)):
            self._fire(firing)

    def _placed(self, window: _Window) -> Document:
        if self._part is None:
            return {}
        return placement_report(window.predictions, self._part, depth_um=window.depth_um, shank=window.shank)

    def _fire(self, firing: Firing) -> None:
        """Note an event on disk, then send it: the other way round a crash would let it fire again."""
        try:
            self._journal.fire(firing)
        except OSError as error:
            self.counters["rules_not_noted"] += 1
            self._say("rule_not_fired", firing.event_id, f"{firing.event_id}: journal: {error}; not sent")
            return
        self.counters["rules_fired"] += 1
        now_ns = time.monotonic_ns()
        self._outbox.append(
            RuleFired(
                stream=firing.stream,
                event_id=firing.event_id,
                rule=firing.rule,
                subject=firing.subject,
                value=firing.value,
                epoch=firing.epoch,
                step=firing.step,
                end_sample=firing.end_sample,
                closed_ns=firing.closed_ns,
                fired_ns=now_ns,
            )
        )
        for name in firing.sinks:
            self._sinks[name].offer(firing)
        self._wake()

    def _delivered(self, firing: Firing, sink: str, now_ns: int, problem: str) -> None:
        """Called by a sink's thread when it has sent an event, or could not."""
        try:
            latency_s = (now_ns - firing.closed_ns) / 1e9
            self._journal.delivered(firing.event_id, sink, latency_s=latency_s, error=problem)
        except (OSError, ValueError):  # full, or closed: the next start calls it unsure
            self.counters["rules_not_noted"] += 1
        self.counters["rules_sink_failed" if problem else "rules_sent"] += 1
        if problem:
            self._say("rule_sink_failed", firing.event_id, f"{sink}: {problem}")

    def _say(self, kind: str, event_id: str, detail: str) -> None:
        stream = event_id.split("/")[1]
        self._outbox.append(Event(stream=stream, kind=kind, detail=detail, monotonic_ns=time.monotonic_ns()))
        self._wake()
