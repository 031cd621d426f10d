"""A socket that takes what an acquisition system publishes, however long this process was held up."""

from __future__ import annotations

import time
from collections import deque

import zmq

from nuclr_stream.sockets import connect, disconnect, take

DRAIN_EVERY = 500
DRAIN_S = 0.5
QUEUE_BYTES = 2**28
"""Most bytes that wait to be looked at; what is beyond is dropped and counted."""
_OPTIONS = {
    # The default of 1,000 messages is a tenth of a second of spikes, and what is beyond it is lost without a word.
    zmq.RCVHWM: 0,
    # A heartbeat's time to live would make the sender drop us when this process is stopped for a second.
    zmq.HEARTBEAT_IVL: 0,
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 5,
}


class VendorSocket:
    """Subscribes to everything at `endpoint` and gives it out message by message; `dropped` counts what found no room.

    Raises EndpointError when `endpoint` is none.
    """

    def __init__(self, endpoint: str, what: str, *, max_bytes: int = QUEUE_BYTES) -> None:
        self.endpoint = endpoint
        self._socket = connect(zmq.SUB, endpoint, what, max_bytes=2**26, options=_OPTIONS)
        self._socket.subscribe(b"")
        self.dropped = 0
        self._max_bytes = max_bytes
        self._waiting: deque[list[bytes]] = deque()
        self._waiting_bytes = 0
        self._since_drained = 0

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """Return the next message, or None when none has come within `timeout_s`."""
        # Drained now and then, so that what waits is bounded by our own limit and counted, not by ZeroMQ's; but not
        # with every message, or a process that is behind would spend its time on taking in what it has to drop.
        if not self._waiting and not self._socket.poll(int(timeout_s * 1000)):
            return None
        self._since_drained += 1
        if not self._waiting or self._since_drained >= DRAIN_EVERY:
            self._drain()
            self._since_drained = 0
        return self._pop() if self._waiting else None

    def _drain(self) -> None:
        """Take in what has come. The oldest that wait give way: the newest count most, and what is lost is a gap."""
        until = time.monotonic() + DRAIN_S
        while time.monotonic() < until and (frames := take(self._socket)) is not None:
            self._waiting.append(frames)
            self._waiting_bytes += sum(map(len, frames))
            while self._waiting_bytes > self._max_bytes and len(self._waiting) > 1:
                self._pop()
                self.dropped += 1

    def _pop(self) -> list[bytes]:
        frames = self._waiting.popleft()
        self._waiting_bytes -= sum(map(len, frames))
        return frames

    def close(self) -> int:
        """Close it; returns how many messages had come that nobody received, as far as a second is enough to count."""
        unread, until = 0, time.monotonic() + 1.0
        while time.monotonic() < until and self.receive(0.0) is not None:
            unread += 1
        disconnect(self._socket)
        return unread
