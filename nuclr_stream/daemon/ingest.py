"""The bounded queue between the data socket and the decoder: overload is counted here, never hidden in ZeroMQ."""

from __future__ import annotations

from collections import Counter, deque

from nuclr_stream.sockets import Socket, take

DRAIN_MESSAGES = 2_000
_OVERHEAD_BYTES = 200


class Ingest:
    """Raw messages in order of arrival, at most `max_bytes` of them; `dropped` counts what did not fit."""

    def __init__(self, socket: Socket, *, max_bytes: int) -> None:
        self._socket = socket
        self._max_bytes = max_bytes
        self._queue: deque[tuple[list[bytes], int, int]] = deque()
        self.queued_bytes = 0
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._queue)

    def drain(self, now_ns: int) -> None:
        """Take what has arrived, up to a bound, so that other sockets get their turn."""
        for _ in range(DRAIN_MESSAGES):
            frames = take(self._socket)
            if frames is None:
                return
            size = sum(map(len, frames)) + _OVERHEAD_BYTES * len(frames)
            if self.queued_bytes + size > self._max_bytes:
                self.dropped["queue_full"] += 1
                continue
            self._queue.append((frames, now_ns, size))
            self.queued_bytes += size

    def next(self) -> tuple[list[bytes], int]:
        """Return the oldest message and the monotonic time at which it was taken from the socket."""
        frames, arrived_ns, size = self._queue.popleft()
        self.queued_bytes -= size
        return frames, arrived_ns
