"""Everything that the page can show, gathered from the daemon's messages. One thread, no sockets.

Every change sets the events of `listeners`; each viewer remembers what it was sent.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nuclr_stream.dashboard.alerts import Alert, alerts_of
from nuclr_stream.dashboard.contacts import Contacts
from nuclr_stream.dashboard.probe import Probe
from nuclr_stream.wire import DaemonState, Event, Output, Predictions, RuleFired, StreamState

EVENTS = 300
"""Events and notes that are kept for the page."""
LOST_S = 60.0
"""For so long after predictions did not reach the page its alert stands."""
ABSENT = 4
"""A probe that so many states of the daemon in a row do not list is gone; one alone may have been made before it."""


@dataclass(frozen=True)
class Happening:
    """An event of the daemon or a note of a viewer; `unix_s` by this server's clock, `sample_s` by the stream's."""

    number: int
    unix_s: float
    stream: str
    kind: str
    detail: str
    sample_s: float | None = None


@dataclass
class Board:
    """What is known now. `source` is the endpoint that it comes from."""

    source: str
    probes: dict[str, Probe] = field(default_factory=dict)
    daemon: DaemonState | None = None
    status: dict[str, Any] = field(default_factory=dict)
    connected: bool = False
    changed_at: float = field(default_factory=time.monotonic)
    error: str = ""
    lost: int = 0
    lost_at: float = -LOST_S
    happenings: deque[Happening] = field(default_factory=lambda: deque(maxlen=EVENTS))
    listeners: set[asyncio.Event] = field(default_factory=set)
    contacts: Mapping[str, Contacts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._absent: Counter[str] = Counter()
        self._numbers = 0

    # -- what comes in -----------------------------------------------------------------------------------------------

    def take(self, message: Output) -> None:
        """Take one message of the daemon."""
        if not self.connected:
            self.connected, self.changed_at, self.error = True, time.monotonic(), ""
        if isinstance(message, DaemonState):
            self._take_daemon(message)
        elif isinstance(message, Event):
            self._take_event(message)
        elif isinstance(message, RuleFired):
            detail = f"{message.rule}{f' for {message.subject}' if message.subject else ''}, {message.value:g}"
            self._add_at(message, kind="rule_fired", detail=detail, sample=message.end_sample)
        elif isinstance(message, Predictions):
            self._probe(message.stream).take_predictions(message)
        elif isinstance(message, StreamState):
            self._probe(message.stream).take_state(message)
        self.changed()

    def missed(self, lost: int) -> None:
        """Note how many predictions did not reach this server since it began."""
        if lost > self.lost:
            self.lost, self.lost_at = lost, time.monotonic()

    def gone(self, error: str = "") -> None:
        """Note that the daemon cannot be received, and why if it is there; what was known stays, marked as old."""
        if self.connected or error != self.error:
            self.connected, self.error, self.changed_at = False, error, time.monotonic()
            self.changed()

    def add(self, *, stream: str, kind: str, detail: str, sample_s: float | None = None) -> Happening:
        """Add to what happened, now."""
        self._numbers += 1
        happening = Happening(self._numbers, time.time(), stream, kind, detail, sample_s)
        self.happenings.append(happening)
        self.changed()
        return happening

    def changed(self) -> None:
        """Wake every viewer."""
        for event in self.listeners:
            event.set()

    def _probe(self, stream: str) -> Probe:
        if stream not in self.probes:
            self.probes[stream] = Probe(stream)
            self.probes[stream].contacts = self.contacts.get(stream)
            self.probes = dict(sorted(self.probes.items()))
        return self.probes[stream]

    def _take_daemon(self, state: DaemonState) -> None:
        restarted = self.daemon is not None and self.daemon.instance != state.instance
        if restarted:
            self.status = {}
            for probe in self.probes.values():
                probe.geometry_is_due = True
        self.daemon = state
        for stream in list(self.probes):
            self._absent[stream] = 0 if stream in state.streams else self._absent[stream] + 1
            if self._absent[stream] >= ABSENT:
                del self.probes[stream], self._absent[stream]

    def _take_event(self, event: Event) -> None:
        probe = self.probes.get(event.stream)
        if event.kind == "units_changed" and probe is not None:
            probe.geometry_is_due = True
        self._add_at(event, kind=event.kind, detail=event.detail, sample=event.sample)

    def _add_at(self, message: Event | RuleFired, *, kind: str, detail: str, sample: int) -> None:
        """Add what happened at a sample; when that was is known only of the epoch that is shown."""
        probe = self.probes.get(message.stream)
        last, sample_s = None if probe is None else probe.predictions, None
        if last is not None and last.epoch == message.epoch:
            sample_s = float((sample - last.origin) / last.sample_rate)
        self.add(stream=message.stream, kind=kind, detail=detail, sample_s=sample_s)

    # -- what goes out -----------------------------------------------------------------------------------------------

    def alerts(self) -> list[Alert]:
        """Return what an experimenter must know now, the worst first."""
        if not self.connected:
            seconds = time.monotonic() - self.changed_at
            old = "What is shown is from before. " if self.probes else ""
            detail = f"{self.error}{old}Is nuclr-stream serve running?"
            return [Alert("error", "", f"No daemon at {self.source} for {seconds:.0f} s", detail)]
        lost = self.lost if time.monotonic() - self.lost_at < LOST_S else 0
        return alerts_of(self.probes.values(), lost=lost)

    def header(self) -> dict[str, Any]:
        """Return the part of a frame that is about the daemon."""
        return {
            "connected": self.connected,
            "source": self.source,
            "unix_s": time.time(),
            "alerts": [asdict(alert) for alert in self.alerts()],
            "streams": list(self.probes),
        }

    def daemon_header(self) -> dict[str, Any]:
        """Return what is known of the daemon and changes seldom."""
        state = self.daemon
        found: dict[str, Any] = {"status": self.status, "lost": self.lost}
        if state is not None:
            found |= {"instance": state.instance, "uptime_s": state.uptime_s, "provider": state.provider}
            found |= {"bundle": state.bundle, "counters": dict(state.counters)}
        return found
