"""The side that receives: iterate predictions, ask for embeddings and status.

>>> for predictions in subscribe("probeA"):
...     print(predictions.unit_ids, predictions.tasks[0].probabilities)
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count
from math import ceil
from typing import Any, TypeVar
from zlib import crc32

import numpy as np
import zmq

from nuclr_stream import wire
from nuclr_stream.config import QUERY_ENDPOINT, RESULTS_ENDPOINT
from nuclr_stream.errors import DaemonGoneError, NuclrStreamError, WireError
from nuclr_stream.sockets import KeyFile, connect, disconnect, give, take
from nuclr_stream.windows.binning import Float32Array

JOIN_AGAIN_S = 10.0
"""Where no snapshot is to be had, a subscription goes on with live messages, and asks again after so long."""
SHOWN = 128
"""So many predictions of a stream are remembered, to know them again when a restarted daemon publishes them again."""
GONE_AFTER_S = 1.0
"""A daemon publishes at least every half second; one that was silent for so long is gone."""

R = TypeVar("R", bound=wire.Reply)


class QueryError(NuclrStreamError):
    """The daemon answered a request with an error; `reason` is the protocol's word for it."""

    def __init__(self, reply: wire.ErrorReply) -> None:
        super().__init__(f"{reply.reason}: {reply.detail}")
        self.reason = reply.reason


def subscribe(
    stream: str, *, results: str = RESULTS_ENDPOINT, query: str = QUERY_ENDPOINT, key: KeyFile = None
) -> Subscription:
    """Return an iterator over the predictions of a stream: first what is known now, then every new one.

    `key` is the key file for a daemon that asks for one; without it the environment's NUCLR_STREAM_KEY counts.
    """
    return Subscription(stream, results=results, query=query, key=key)


class Subscription:
    """Everything that the daemon publishes about one stream ("" means all of them), in order and without repeats.

    Iterating yields Predictions and raises DaemonGoneError once the daemon has been silent for a second; iterate on and
    it comes back by itself. Raises WireError with the reason "version" for a daemon of a release with another protocol
    version. `lost` counts predictions that never arrived: a slow reader, or a daemon that was killed and started again
    in the same epoch. What that one publishes again, bit for bit the same, is passed over. `state` is the last
    StreamState, `daemon` the last DaemonState.
    """

    def __init__(
        self, stream: str = "", *, results: str = RESULTS_ENDPOINT, query: str = QUERY_ENDPOINT, key: KeyFile = None
    ) -> None:
        self.stream = stream
        self.lost = 0
        self.malformed = 0
        self.state: wire.StreamState | None = None
        self.daemon: wire.DaemonState | None = None
        self._results, self._query_endpoint, self._key = results, query, key
        self._instance: int | None = None
        self._last: dict[str, wire.Predictions] = {}
        self._shown: dict[str, deque[tuple[int, ...]]] = {}
        self._pending: deque[wire.Output] = deque()
        self._joined = False
        self._join_from = 0.0
        self._last_message = time.monotonic()
        self._socket = connect(zmq.SUB, results, "results endpoint", max_bytes=wire.MAX_REPLY_BYTES, key=key)
        topics = [wire.topic(kind, stream) for kind in (wire.Predictions, wire.StreamState, wire.RuleFired)]
        for topic in (*topics, wire.topic(wire.Event), wire.topic(wire.DaemonState)):
            self._socket.setsockopt(zmq.SUBSCRIBE, topic)

    def __iter__(self) -> Iterator[wire.Predictions]:
        return self

    def __next__(self) -> wire.Predictions:
        while True:
            message = self.receive(GONE_AFTER_S)
            if isinstance(message, wire.Predictions):
                return message

    def receive(self, timeout_s: float) -> wire.Output | None:
        """Return the next message of any kind, or None after `timeout_s`. Raises DaemonGoneError as iterating does."""
        deadline = time.monotonic() + timeout_s
        while not self._pending:
            wait_s = min(deadline, self._last_message + GONE_AFTER_S) - time.monotonic()
            if self._socket.poll(max(ceil(wait_s * 1000), 0)):
                self._take()
            elif time.monotonic() >= self._last_message + GONE_AFTER_S:
                self._gone(f"silent for {GONE_AFTER_S:g} s")
            elif time.monotonic() >= deadline:
                return None
        message = self._pending.popleft()
        if isinstance(message, wire.Event) and message.kind == "bye" and not message.stream:
            self._gone("it ended (bye)")
        return message

    def close(self) -> None:
        """Close the sockets."""
        disconnect(self._socket)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _gone(self, how: str) -> None:
        self._last_message = time.monotonic()
        self._joined, self._join_from = False, 0.0
        raise DaemonGoneError(f"the daemon at {self._results} is gone: {how}; iterate on to wait for it")

    def _take(self) -> None:
        frames = take(self._socket)
        if frames is None:
            return
        try:
            message = wire.decode(frames)
        except WireError as error:
            if error.reason == "version":  # every message of its kind is like this: silence would look like no data
                raise
            self.malformed += 1
            return
        assert isinstance(message, wire.Output)  # its topic says so
        self._last_message = time.monotonic()
        behind = not self._joined or getattr(message, "instance", self._instance) != self._instance
        if behind and self._last_message >= self._join_from:
            self._join()
        self._keep(message)

    def _join(self) -> None:
        """Take the daemon's snapshot, now that its messages arrive: nothing can be lost between the two."""
        try:
            with Query(self._query_endpoint, timeout_s=GONE_AFTER_S, key=self._key) as query:
                snapshot = query.snapshot(self.stream)
        except (DaemonGoneError, QueryError, WireError):  # live predictions are worth more than those from before
            self._join_from = time.monotonic() + JOIN_AGAIN_S
            return
        self._joined = True
        for message in snapshot.messages:
            self._keep(message)

    def _keep(self, message: wire.Output) -> None:
        self._instance = getattr(message, "instance", self._instance)
        if isinstance(message, wire.DaemonState):
            self.daemon = message
        elif self.stream and message.stream not in (self.stream, ""):
            return  # ZeroMQ matches prefixes
        elif isinstance(message, wire.StreamState):
            self.state = message
        elif isinstance(message, wire.Predictions) and not self._is_new(message):
            return
        self._pending.append(message)

    def _is_new(self, message: wire.Predictions) -> bool:
        """Note predictions; False for those that have been shown. What is missing before them is counted."""
        last, shown = self._last.get(message.stream), self._shown.setdefault(message.stream, deque(maxlen=SHOWN))
        if last is not None and message.instance == last.instance and message.seq <= last.seq:
            return False
        self._last[message.stream] = message
        mark = _mark(message)
        if mark in shown:  # a restarted daemon goes through the last windows again
            return False
        shown.append(mark)
        self.lost += 0 if last is None else _missing_between(last, message)
        return True


def _mark(message: wire.Predictions) -> tuple[int, ...]:
    """Return what tells predictions from others: the window, and a checksum of what is said about it."""
    checksum = crc32(message.exposure.tobytes(), crc32(message.windows.tobytes()))
    for task in message.tasks:
        checksum = crc32(task.probabilities.tobytes(), checksum)
    return message.epoch, message.step, message.end_sample, checksum


def _missing_between(last: wire.Predictions, message: wire.Predictions) -> int:
    """Return how many predictions were published between two, or would have been but for a daemon that was down."""
    if message.instance == last.instance:
        return message.seq - last.seq - 1
    if message.epoch != last.epoch or message.end_sample <= last.end_sample:
        return 0
    hops = (message.end_sample - last.end_sample) / message.sample_rate / message.hop_s
    return max(round(hops) - 1 - max(message.skipped_steps - last.skipped_steps, 0), 0)


class Query:
    """Asks the daemon. Every call raises DaemonGoneError after `timeout_s`, QueryError when the answer is an error.

    `key` is the key file for a daemon that asks for one; without it the environment's NUCLR_STREAM_KEY counts.
    """

    def __init__(self, endpoint: str = QUERY_ENDPOINT, *, timeout_s: float = 1.0, key: KeyFile = None) -> None:
        self.endpoint, self.timeout_s = endpoint, timeout_s
        self._ids = count(1)
        asking = {zmq.IMMEDIATE: 1}
        self._socket = connect(
            zmq.DEALER, endpoint, "query endpoint", max_bytes=wire.MAX_REPLY_BYTES, options=asking, key=key
        )

    def snapshot(self, stream: str = "") -> wire.SnapshotReply:
        """Return the last predictions and states of a stream, or of all."""
        return self._ask(wire.SnapshotRequest(request_id=next(self._ids), stream=stream), wire.SnapshotReply)

    def embeddings(self, stream: str, unit_ids: Sequence[str] = ()) -> wire.EmbeddingsReply:
        """Return mean and last embeddings (U, D) of the named units, or of all; units without a window are left out."""
        request = wire.EmbeddingsRequest(request_id=next(self._ids), stream=stream, unit_ids=tuple(unit_ids))
        return self._ask(request, wire.EmbeddingsReply)

    def embed_window(self, counts: Float32Array) -> wire.EmbedWindowReply:
        """Return the embeddings (U, D) of one window of counts (U, T) that never was in a stream."""
        request = wire.EmbedWindowRequest(request_id=next(self._ids), counts=counts, within_ms=self._within_ms)
        return self._ask(request, wire.EmbedWindowReply)

    def placement(
        self, stream: str, *, task: str = "brain_region", plan: Sequence[tuple[str, float, float]] = ()
    ) -> dict[str, Any]:
        """Return where the units of a stream lie along depth: segments, borders with intervals, every unit's region.

        `plan` is a planned trajectory to compare with: (region, from_um, to_um), depths from the tip.
        """
        request = wire.PlacementRequest(
            request_id=next(self._ids),
            stream=stream,
            task=task,
            within_ms=self._within_ms,
            regions=tuple(region for region, _, _ in plan),
            from_um=np.array([low for _, low, _ in plan], dtype=np.float32),
            to_um=np.array([high for _, _, high in plan], dtype=np.float32),
        )
        document: dict[str, Any] = json.loads(self._ask(request, wire.PlacementReply).placement)
        return document

    def activity(self, stream: str, *, counts: bool = False) -> wire.ActivityReply:
        """Return the units of a stream as they are now, with `counts` also what they did in the last window."""
        return self._ask(
            wire.ActivityRequest(request_id=next(self._ids), stream=stream, counts=counts), wire.ActivityReply
        )

    def evidence(self, stream: str, unit_ids: Sequence[str]) -> dict[str, Any]:
        """Return what the last predictions of the named units rest on; docs/protocol.md has the document."""
        request = wire.EvidenceRequest(request_id=next(self._ids), stream=stream, unit_ids=tuple(unit_ids))
        document: dict[str, Any] = json.loads(self._ask(request, wire.EvidenceReply).evidence)
        return document

    def status(self) -> dict[str, Any]:
        """Return the daemon's status, the same document as HTTP /status."""
        reply = self._ask(wire.StatusRequest(request_id=next(self._ids)), wire.StatusReply)
        document: dict[str, Any] = json.loads(reply.status)
        return document

    def close(self) -> None:
        """Close the socket."""
        disconnect(self._socket)

    def __enter__(self) -> Query:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def _within_ms(self) -> int:
        """What the daemon is not to compute any more: nobody would wait for it."""
        return max(int(self.timeout_s * 1000), 1)

    def _ask(self, request: wire.Request, kind: type[R]) -> R:
        deadline = time.monotonic() + self.timeout_s
        if not give(self._socket, wire.encode(request), wait_s=self.timeout_s):
            raise DaemonGoneError(f"no daemon answers at {self.endpoint}; is nuclr-stream serve running?")
        while self._socket.poll(max(int((deadline - time.monotonic()) * 1000), 0)):
            frames = take(self._socket)
            reply = None if frames is None else wire.decode(frames)
            if isinstance(reply, wire.ErrorReply) and reply.request_id == request.request_id:
                raise QueryError(reply)
            if isinstance(reply, kind) and reply.request_id == request.request_id:
                return reply  # one of an earlier request that timed out is passed over
        raise DaemonGoneError(f"no answer from {self.endpoint} within {self.timeout_s:g} s")
