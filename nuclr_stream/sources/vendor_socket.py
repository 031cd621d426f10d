"""A socket that takes what an acquisition system publishes, however long this process was held up."""

from __future__ import annotations

import time

import zmq

from nuclr_stream.daemon.ingest import Ingest
from nuclr_stream.sockets import connect, disconnect

DRAIN_EVERY = 500
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
        self._ingest = Ingest(self._socket, max_bytes=max_bytes)

        self._since_drained = 0

    @property
    def dropped(self) -> int:
        """Messages that found no room."""
        return self._ingest.dropped["queue_full"]

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """Return the next message, or None when none has come within `timeout_s`."""
        # Drained now and then, so that what waits is bounded by our own limit and counted, not by ZeroMQ's; but not
        # with every message, or a process that is behind would spend its time on taking in what it has to drop.
        if not len(self._ingest) and not self._socket.poll(int(timeout_s * 1000)):
            return None
        self._since_drained += 1
        if not len(self._ingest) or self._since_drained >= DRAIN_EVERY:
            self._ingest.drain(time.monotonic_ns())
            self._since_drained = 0
        return self._ingest.next()[0] if len(self._ingest) else None

    def close(self) -> int:
        """Close it; returns how many messages had come that nobody received, as far as a second is enough to count."""
        unread, until = 0, time.monotonic() + 1.0
        while time.monotonic() < until and self.receive(0.0) is not None:
            unread += 1
        disconnect(self._socket)
        return unread
