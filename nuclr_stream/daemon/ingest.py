"""What waits between the data socket and the decoder: a bounded queue for each stream of each connection, by turns.

Overload is counted here, never hidden in ZeroMQ. The newest data count most, so the oldest of a full queue give way,
and a source that sends too much pushes out nothing but its own.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

from nuclr_stream.daemon.receiving import Received, Receiver
from nuclr_stream.errors import DeniedError, WireError

_OVERHEAD_BYTES = 200
_QUEUES_PER_STREAM = 8
"""Queues that may wait at once, for each stream that the daemon takes: connections that were replaced, strays."""


class Waiting(NamedTuple):
    """A message that is not decoded yet, and the monotonic time at which it was taken from the socket."""

    received: Received
    arrived_ns: int
    size: int


class Ingest:
    """Raw messages of every stream, oldest first; `dropped` counts what gave way, what was refused, and why.

    Args:
        receiver: the data socket.
        max_bytes: of all queues together; a stream of one connection has at most its share of it.
        max_streams: streams that the daemon takes.
        stream_of: the stream of a message by its first frame and sender, before anything else of it is looked at.
            Raises WireError or DeniedError for what must not wait here at all; the reason is counted.
    """

    def __init__(
        self, receiver: Receiver, *, max_bytes: int, max_streams: int, stream_of: Callable[[Received], str]
    ) -> None:
        self._receiver = receiver
        self._share_bytes = max_bytes // max_streams
        self._max_bytes = max_bytes
        self._max_queues = _QUEUES_PER_STREAM * max_streams
        self._stream_of = stream_of
        self._queues: OrderedDict[tuple[int, str], deque[Waiting]] = OrderedDict()
        self._bytes: Counter[tuple[int, str]] = Counter()
        self._length = 0
        self._dropped: Counter[str] = Counter()
        self.queued_bytes = 0

    def __len__(self) -> int:
        return self._length

    @property
    def dropped(self) -> Counter[str]:
        """Messages that were not kept, by reason."""
        oversized = self._receiver.oversized
        return self._dropped + Counter({"malformed_frames": oversized} if oversized else {})

    def drain(self, budget_ns: int) -> None:
        """Take what has arrived, for at most `budget_ns`; the rest waits in the network, where it slows its sender."""
        until_ns = time.monotonic_ns() + budget_ns
        while (now_ns := time.monotonic_ns()) < until_ns:
            received = self._receiver.take()
            if received is not None:
                self._keep(received, now_ns)
            elif self._receiver.exhausted:
                return

    def next(self) -> tuple[Received, int]:
        """Return the oldest message of the stream whose turn it is, and when it was taken from the socket."""
        key, queue = self._queues.popitem(last=False)
        first = self._pop(key, queue)
        if queue:
            self._queues[key] = queue  # behind the others
        return first.received, first.arrived_ns

    def _keep(self, received: Received, now_ns: int) -> None:
        try:
            key = received.connection, self._stream_of(received)
        except WireError as error:
            self._dropped[f"malformed_{error.reason}"] += 1
            return
        except DeniedError as error:
            self._dropped[f"denied_{error.reason}"] += 1
            return
        queue = self._queues.get(key)
        if queue is None:
            if len(self._queues) >= self._max_queues:
                self._dropped["too_many_streams"] += 1
                return
            queue = self._queues[key] = deque()
        size = sum(map(len, received.frames)) + _OVERHEAD_BYTES * len(received.frames)
        queue.append(Waiting(received, now_ns, size))
        self._length += 1
        self._bytes[key] += size
        self.queued_bytes += size
        # The newest message itself always stays: it may be larger than the share.
        while self._bytes[key] > self._share_bytes and len(queue) > 1:
            self._give_way(key)
        while self.queued_bytes > self._max_bytes and self._length > 1:
            self._give_way(max(self._queues, key=self._bytes.__getitem__))

    def _give_way(self, key: tuple[int, str]) -> None:
        queue = self._queues[key]
        self._pop(key, queue)
        self._dropped["queue_full"] += 1
        if not queue:
            del self._queues[key]

    def _pop(self, key: tuple[int, str], queue: deque[Waiting]) -> Waiting:
        first = queue.popleft()
        self._length -= 1
        self._bytes[key] -= first.size
        self.queued_bytes -= first.size
        if not queue:
            del self._bytes[key]
        return first
