"""The process around the labelers: one thread owns the sockets, another runs the model.

PULL takes what sources push, XPUB publishes predictions, states and events, ROUTER answers clients. The loop polls,
takes what can be decoded in the time that a turn has, stream by stream, hands complete windows to the worker, and
publishes what comes back. Nothing that arrives can end it: malformed messages are counted by reason and dropped.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import Any

import zmq

from nuclr_stream import wire
from nuclr_stream.config import Settings
from nuclr_stream.daemon import queries, status
from nuclr_stream.daemon.asks import AskDone
from nuclr_stream.daemon.doors import Doors
from nuclr_stream.daemon.health import Board, HealthServer
from nuclr_stream.daemon.ingest import Ingest
from nuclr_stream.daemon.keeping import TROUBLES, Keeping
from nuclr_stream.daemon.metrics import Figures, Metrics
from nuclr_stream.daemon.receiving import Received
from nuclr_stream.daemon.rules import NOWHERE, start_rules
from nuclr_stream.daemon.streams import Stream, Streams
from nuclr_stream.daemon.supervisor import Supervisor
from nuclr_stream.daemon.worker import LabelDone, Worker
from nuclr_stream.errors import WireError
from nuclr_stream.inference.model import Model
from nuclr_stream.stream.window import Window

DRAIN_NS = 500_000
"""How long a turn takes messages from the socket: a fourth of the time to decode them. Taking more than can be decoded
takes the time to decode from those that are there."""
DECODE_NS = 2_000_000
ANSWER_NS = 2_000_000
"""How long a turn decodes, and answers, before the others get their turn: about what one prediction takes."""
LAST_STEP_S = 1.2
"""How long a step that runs may still take when the daemon is asked to end."""
GREETING_NS = 10_000_000
"""A new subscriber gets all states at once, but no more often than this."""

log = logging.getLogger(__name__)


class Daemon:
    """Binds everything on creation, serves in `run`, ends after `stop`. `endpoints` says where it can be reached.

    Raises EndpointError when an endpoint is taken or leaves this machine, NuclrStreamError for an unusable record file.
    """

    def __init__(self, settings: Settings, model: Model) -> None:
        self.settings, self.model = settings, model
        self.instance = time.time_ns() // 1_000
        self._started_ns = time.monotonic_ns()
        self._counters: Counter[str] = Counter()
        self._stopping = self._finished = self._greet = False
        self._in_time = True
        self._next_report_ns = self._greeted_ns = self._logged_ns = 0
        self._logged_states: dict[str, tuple[object, ...]] = {}
        self._embeddings = queries.EncodedEmbeddings()
        self._owners: dict[str, str] = {}  # the key that opened each stream, empty where sources come without
        self._streams = Streams(model, settings, instance=self.instance)
        self._board = Board()
        self._supervisor = Supervisor()
        self.metrics = Metrics(provider=model.provider, bundle=model.bundle_id)
        with ExitStack() as stack:
            self._bind(stack)  # first: a daemon that finds its ports taken must not touch the record of the other
            self._keeping = Keeping(settings, stack)
            self._keeping.restore(self._streams, time.monotonic_ns())
            self._owners |= {stream.name: stream.owner for stream in self._streams}
            self._rules = start_rules(settings, model, self._wake)
            if self._rules is not None:
                stack.callback(self._rules.close)
            self._cleanup = stack.pop_all()

    def _bind(self, stack: ExitStack) -> None:
        settings = self.settings
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
            stack.enter_context(end)
        self._doors = Doors(settings, window_bytes=queries.window_bytes(self.model), look=self._wake)
        stack.callback(self._doors.close)
        self.endpoints = dict(self._doors.endpoints)
        self._data, self._results, self._query = (
            receiver.socket for receiver in (self._doors.data, self._doors.results, self._doors.query)
        )
        health = HealthServer(settings.http_port, self._board, self.metrics.text)
        stack.callback(health.close)
        self.endpoints["http"] = health.endpoint
        self._ingest = Ingest(
            self._doors.data,
            max_bytes=settings.queue_bytes,
            max_streams=settings.max_streams,
            stream_of=self._stream_of,
        )
        self._worker = Worker(self._wake, embed_queue=settings.embed_queue)
        stack.callback(self._worker.close)
        self._poller = zmq.Poller()
        for readable in (self._data, self._results, self._query, self._wake_read):
            self._poller.register(readable, zmq.POLLIN)

    # -- life --------------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Serve until `stop`; then finish the running step, publish the last states and "bye", and close everything.

        Returns whether the last step ended in time; if not, its thread still runs.
        """
        with self._cleanup:
            self._board.not_ready = ()
            self._supervisor.ready()
            while not self._finished:
                try:
                    self._finish() if self._stopping else self._turn()
                except Exception:  # a bug in one message's path must not end the predictions of a whole rig
                    self._note_error()
        return self._in_time

    def stop(self) -> None:
        """Ask `run` to end; from any thread or signal handler."""
        self._stopping = True
        self._wake()

    def close(self) -> None:
        """Free everything without ever having run."""
        self._cleanup.close()

    def _wake(self) -> None:
        with suppress(OSError):  # full: it wakes anyway; closed: nobody is left to wake
            self._wake_write.send(b"!")

    def _note_error(self) -> None:
        self.metrics.failed()
        self._counters["loop_errors"] += 1
        now_ns = time.monotonic_ns()
        if now_ns - self._logged_ns >= 1_000_000_000:
            self._logged_ns = now_ns
            log.exception("error in the main loop; it goes on")

    def _finish(self) -> None:
        self._board.not_ready = ("stopping",)
        self._supervisor.stopping()
        self._data.close()
        self._worker.stop()
        try:
            done = self._worker.done(LAST_STEP_S)
            if isinstance(done, LabelDone):
                self._publish_labelled(done)
        except TimeoutError:
            self._in_time = False
            log.warning("the last step took longer than %s s; it is lost", LAST_STEP_S)
        self._finished = True
        if self._in_time:
            self._keeping.save_last(self._streams, time.monotonic_ns())
        if self._rules is not None:
            self._rules.close()
            self._publish_rules()
        self._report(time.monotonic_ns())
        self._publish(wire.Event(stream="", kind="bye", monotonic_ns=time.monotonic_ns()))

    # -- one turn of the loop ----------------------------------------------------------------------------------------

    def _turn(self) -> None:
        ready = dict(self._poller.poll(self._timeout_ms()))
        now_ns = time.monotonic_ns()
        self._board.tick_ns = now_ns
        self._supervisor.alive(waits_ns=max((stream.waits_ns(now_ns) for stream in self._streams), default=0))
        if self._wake_read.fileno() in ready:
            self._wake_read.recv(4096)
        self._ingest.drain(DRAIN_NS)
        if self._results in ready:
            self._note_subscriptions()
        self._take_results()
        self._publish_rules()
        until_ns = time.monotonic_ns() + DECODE_NS
        while len(self._ingest) and time.monotonic_ns() < until_ns:
            self._take_input(*self._ingest.next())
        self._take_queries()
        now_ns = time.monotonic_ns()
        if now_ns >= self._next_report_ns or (self._greet and now_ns - self._greeted_ns >= GREETING_NS):
            self._report(now_ns)

    def _timeout_ms(self) -> int:
        if len(self._ingest) or not self._doors.query.exhausted:
            return 0
        left_ms = (min(self._next_report_ns, self._worker.start_ns) - time.monotonic_ns()) // 1_000_000
        return int(min(max(left_ms, 0), GREETING_NS // 1_000_000 if self._greet else 500))

    def _stream_of(self, received: Received) -> str:
        """Return the stream that a message is for. Raises WireError or DeniedError when it may not even wait."""
        stream = wire.input_stream(received.frames[0])
        self._doors.may_publish(received, stream, self._owners.get(stream))
        return stream

    def _take_input(self, received: Received, arrived_ns: int) -> None:
        try:
            message = wire.decode(received.frames)
        except WireError as error:
            self._counters[f"malformed_{error.reason}"] += 1
            return
        if not isinstance(message, wire.Input):
            self._counters["malformed_kind"] += 1
            return
        stream = self._streams.of(message, arrived_ns)
        self._keeping.forget(self._streams)
        if stream is None:
            return
        if self._owners.get(stream.name) != received.key:  # may_publish has seen to it that it may be taken over
            self._owners[stream.name] = stream.owner = received.key
        self._keeping.prepare(stream, arrived_ns)
        self._label(stream, stream.take(message, arrived_ns))
        for event in stream.events(arrived_ns):
            self._publish(event)
        self._publish_state(stream)

    def _label(self, stream: Stream, windows: Iterable[Window]) -> None:
        skipped = self._worker.label(stream, windows)
        if skipped:
            self.metrics.skipped(skipped)

    def _take_results(self) -> None:
        while (done := self._worker.done()) is not None:
            if isinstance(done, AskDone):
                self._reply(done.identity, done.reply)
            else:
                self._publish_labelled(done)

    def _publish_labelled(self, done: LabelDone) -> None:
        now_ns = time.monotonic_ns()
        predictions = done.stream.published(done.labelled, now_ns).predictions
        frames = wire.encode(predictions)
        self._results.send_multipart(frames)
        self.metrics.predicted(latency_s=(now_ns - predictions.closed_ns) / 1e9, label_s=done.label_s)
        self._keeping.published(done, frames, now_ns)
        if done.stream.catching_up and not self._stopping:
            self._keeping.prepare(done.stream, now_ns)
            self._label(done.stream, done.stream.cut(now_ns))
        self._publish_state(done.stream)
        if self._rules is not None:
            where = queries.places(done.stream, predictions) if self._rules.asks_depth else NOWHERE
            self._rules.offer(predictions, *where)

    def _publish_rules(self) -> None:
        """Publish what the rules have fired since the last turn, and what became of it."""
        for message in self._rules.messages() if self._rules is not None else ():
            self._publish(message)

    def _note_subscriptions(self) -> None:
        until_ns = time.monotonic_ns() + ANSWER_NS
        while time.monotonic_ns() < until_ns:
            received = self._doors.results.take()
            if received is not None:
                self._greet = self._doors.subscribed(received) or self._greet
            elif self._doors.results.exhausted:
                return

    # -- queries -----------------------------------------------------------------------------------------------------

    def _take_queries(self) -> None:
        until_ns = time.monotonic_ns() + ANSWER_NS
        while time.monotonic_ns() < until_ns:
            received = self._doors.query.take()
            if received is None:
                if self._doors.query.exhausted:
                    return
                continue
            identity, *frames = received.frames
            if not self._doors.may_ask(received):
                continue
            try:
                request = wire.decode(frames)
            except WireError as error:
                self._counters[f"malformed_{error.reason}"] += 1
                continue
            reply = self._answer(identity, request)
            if reply is not None:
                self._reply(identity, reply)

    def _answer(self, identity: bytes, request: wire.Message) -> wire.Reply | None:
        """Return the reply to a client, or None when it comes later or the message is no request."""
        if not isinstance(request, wire.Request):
            self._counters["malformed_kind"] += 1
            return None
        self.metrics.queried(type(request).__name__)
        if isinstance(request, wire.SnapshotRequest):
            return queries.snapshot(request, self._streams, self._state())
        if isinstance(request, wire.ReceivedRequest):
            return queries.received(request, self._streams.get(request.stream), instance=self.instance)
        if isinstance(request, wire.EmbeddingsRequest):
            stream = self._streams.get(request.stream)
            try:
                frames = None if stream is None else self._embeddings.reply(request, stream)
            except WireError:  # too large to be encoded
                self._counters["replies_lost"] += 1
                return None
            if frames is not None:
                self._send_reply(identity, frames)
                return None
            return queries.embeddings(request, stream)
        if isinstance(request, wire.StatusRequest):
            return queries.status(request, self._status())
        if isinstance(request, wire.ActivityRequest):
            return queries.activity(request, self._streams.get(request.stream))
        if isinstance(request, wire.EvidenceRequest):
            return queries.evidence(request, self._streams.get(request.stream))
        if isinstance(request, wire.PlacementRequest):
            answer = queries.placement(request, self._streams.get(request.stream), self.model)
        else:
            answer = queries.window(request, self.model)
        if isinstance(answer, wire.ErrorReply):
            return answer
        turned_away = self._worker.answer(queries.ask(identity, request, answer))
        if turned_away is not None:
            self._reply(turned_away.identity, queries.busy(turned_away.request_id))
        return None

    def _reply(self, identity: bytes, reply: wire.Reply) -> None:
        try:
            self._send_reply(identity, wire.encode(reply))
        except WireError:  # too large to be encoded
            self._counters["replies_lost"] += 1

    def _send_reply(self, identity: bytes, frames: list[bytes]) -> None:
        try:
            self._query.send_multipart([identity, *frames], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:  # the client is gone, or does not read
            self._counters["replies_lost"] += 1

    # -- reporting the state -----------------------------------------------------------------------------------------

    def _publish(self, message: wire.Output) -> None:
        self._results.send_multipart(wire.encode(message))

    def _publish_state(self, stream: Stream) -> None:
        """Publish a stream's state if it changed in what matters; the rest waits for the next report."""
        if self._logged_states.get(stream.name) != stream.standing:
            self._logged_states[stream.name] = stream.standing
            self._publish(stream.state)

    def _report(self, now_ns: int) -> None:
        """Publish every state, and pin up what the HTTP thread shows."""
        self._next_report_ns = now_ns + int(self.settings.state_interval_s * 1e9)
        self._greeted_ns, self._greet = now_ns, False
        troubles = self._keeping.troubles(now_ns)
        for stream in self._streams:
            stream.note_time(now_ns)
            stream.troubles = troubles
        self._embeddings.keep([stream.name for stream in self._streams])
        self._owners = {stream.name: self._owners.get(stream.name, "") for stream in self._streams}
        if not self._stopping:
            overdue = tuple(f"stream {stream.name}: step overdue" for stream in self._streams if stream.overdue)
            closed = (self._doors.problem,) if self._doors.problem else ()
            self._board.not_ready = (*closed, *overdue, *(TROUBLES[trouble] for trouble in troubles))
        self.metrics.figures = Figures(
            inputs=self._streams.inputs,
            dropped=self._dropped(),
            streams={stream.name: stream.figures for stream in self._streams},
            queue_bytes=self._ingest.queued_bytes,
            ready=not self._board.not_ready,
            not_recorded=self._keeping.not_recorded,
            snapshots=self._keeping.snapshot_figures,
        )
        self._board.status = self._status()
        self._logged_states.clear()
        for stream in self._streams:
            self._publish_state(stream)
        self._publish(self._state())

    def _dropped(self) -> Counter[str]:
        lost = Counter(not_recorded=self._keeping.not_recorded)
        fired = Counter[str]() if self._rules is None else self._rules.counters
        return self._counters + self._ingest.dropped + self._doors.dropped + self._streams.dropped + lost + fired

    def _state(self) -> wire.DaemonState:
        return wire.DaemonState(
            instance=self.instance,
            uptime_s=(time.monotonic_ns() - self._started_ns) / 1e9,
            provider=self.model.provider,
            bundle=self.model.bundle_id,
            streams=tuple(stream.name for stream in self._streams),
            counters=self._dropped(),
        )

    def _status(self) -> dict[str, Any]:
        return status.setup(self.model, self.settings) | {
            "instance": self.instance,
            "pid": os.getpid(),
            "uptime_s": (time.monotonic_ns() - self._started_ns) / 1e9,
            "ready": not self._board.not_ready,
            "reasons": list(self._board.not_ready),
            "endpoints": self.endpoints,
            "counters": dict(self._dropped()),
            "streams": {stream.name: status.readable(stream.state) for stream in self._streams},
        }
