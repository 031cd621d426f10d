"""The newest of everything that a daemon publishes, received by a thread of its own."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from nuclr_stream.client.subscriber import Query, QueryError, Subscription
from nuclr_stream.errors import DaemonGoneError, WireError
from nuclr_stream.wire import DaemonState, Event, Predictions, RuleFired, StreamState

PLACED_S = 2.0
"""Seconds between questions about where the units of the chosen stream lie."""
POLL_S = 0.25
KEPT_EVENTS = 5


@dataclass(frozen=True)
class Seen:
    """What is known now; values are replaced, never changed. `gone` says that the daemon is, and how, else empty.

    `placement` is that of stream `placed`, `received` the monotonic time of every stream's last predictions.
    """

    daemon: DaemonState | None = None
    states: dict[str, StreamState] = field(default_factory=dict)
    predictions: dict[str, Predictions] = field(default_factory=dict)
    received: dict[str, float] = field(default_factory=dict)
    placed: str = ""
    placement: dict[str, Any] | None = None
    events: tuple[Event | RuleFired, ...] = ()
    gone: str = ""
    lost: int = 0

    @property
    def streams(self) -> list[str]:
        """Names of all streams, in order."""
        return sorted(set(self.states) | set(self.predictions))


class Feed:
    """Receives until `close`; `seen` is the newest of everything, `choose` the stream whose regions are asked for."""

    def __init__(self, *, results: str, query: str) -> None:
        self._where = {"results": results, "query": query}
        self._seen = Seen()
        self._chosen = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    @property
    def seen(self) -> Seen:
        """The newest of everything."""
        return self._seen

    def choose(self, stream: str) -> None:
        """Ask for the regions of this stream from now on."""
        self._chosen = stream

    def close(self) -> None:
        """Stop receiving."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        asked = 0.0
        with Subscription("", **self._where) as subscription:
            while not self._ended.is_set():
                try:
                    message = subscription.receive(POLL_S)
                except DaemonGoneError as error:
                    self._put(gone=str(error))
                    continue
                except WireError as error:
                    self._put(gone=f"the daemon is of another release: {error}")
                    return
                if message is not None:
                    self._take(message, subscription.lost)
                if self._chosen and time.monotonic() - asked >= PLACED_S:
                    asked = time.monotonic()
                    self._place(self._chosen)

    def _take(self, message: object, lost: int) -> None:
        seen = self._seen
        if isinstance(message, DaemonState):
            known = set(message.streams)
            states = {name: state for name, state in seen.states.items() if name in known}
            predictions = {name: one for name, one in seen.predictions.items() if name in known}
            self._put(daemon=message, states=states, predictions=predictions, gone="", lost=lost)
        elif isinstance(message, StreamState):
            self._put(states=seen.states | {message.stream: message}, gone="")
        elif isinstance(message, Predictions):
            received = seen.received | {message.stream: time.monotonic()}
            self._put(predictions=seen.predictions | {message.stream: message}, received=received, gone="", lost=lost)
        elif isinstance(message, Event | RuleFired):
            self._put(events=(*seen.events, message)[-KEPT_EVENTS:])

    def _place(self, stream: str) -> None:
        try:
            with Query(self._where["query"]) as query:
                self._put(placed=stream, placement=query.placement(stream))
        except (QueryError, DaemonGoneError, WireError):  # no regions in the bundle, or nothing predicted yet
            self._put(placed=stream, placement=None)

    def _put(self, **changes: Any) -> None:
        self._seen = Seen(**({name: getattr(self._seen, name) for name in Seen.__dataclass_fields__} | changes))
