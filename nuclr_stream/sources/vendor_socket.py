"""A socket that takes what an acquisition system publishes, however long this process was held up."""

from __future__ import annotations

import time

import zmq

from nuclr_stream.daemon.ingest import Ingest
from nuclr_stream.sockets import connect, disconnect

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
        self._socket = connect(zmq.SUB, endpoint, what, max_bytes=2**26, options=_OPTIONS | {zmq.SUBSCRIBE: b""})
        self._ingest = Ingest(self._socket, max_bytes=max_bytes)

    @property
    def dropped(self) -> int:
        """Messages that found no room."""
        return self._ingest.dropped["queue_full"]

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """Return the next message, or None when none has come within `timeout_s`."""
        # drained first, so that what waits is bounded by our own limit and counted, not by ZeroMQ's
        if len(self._ingest) == 0 and not self._socket.poll(int(timeout_s * 1000)):
            return None
        self._ingest.drain(time.monotonic_ns())
        return self._ingest.next()[0] if len(self._ingest) else None

    def close(self) -> None:
        """Close it."""
        disconnect(self._socket)
