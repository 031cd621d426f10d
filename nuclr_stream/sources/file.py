"""A recording played as if it were live, at any speed, from any place, once or for ever."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from nuclr_stream.client.publisher import TABLE_EVERY_S
from nuclr_stream.client.replay import Received, replay
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.sockets import connect_source, disconnect, give
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.wire import Input, SpikeBatch, TraceBatch, UnitTable, encode

BLOCK_S = 0.05
"""Length of the blocks that are sent, in recording time."""
ROOM_WAIT_S = 1.0


class FileSource:
    """Plays `recording` at `speed` times real time from sample `start` on; with `loop` again and again.

    It never waits for predictions, as no rig does: a daemon that cannot follow skips windows. Each pass is an epoch;
    units keep their exposure from one to the next. `counters`: messages, messages_unsent, spikes, passes.
    """

    def __init__(
        self,
        recording: Recording | TraceRecording,
        *,
        endpoint: str,
        stream: str = "",
        speed: float = 1.0,
        start: int = 0,
        loop: bool = False,
    ) -> None:
        self.recording, self.stream = recording, stream or recording.recording_id
        self.counters: Counter[str] = Counter()
        self._speed, self._start, self._loop = speed, start, loop
        self._socket = connect_source(endpoint, wait_s=1.0)
        self._epoch = 0
        self._table: UnitTable | None = None
        self._was_sent = True
        self._begin()

    def _begin(self) -> None:
        """Begin a pass."""
        self._epoch = max(time.time_ns() // 1_000_000, self._epoch + 1)
        block = max(1, int(BLOCK_S * self.recording.sample_rate))
        self._messages: Iterator[Input] = recording_messages(
            self.recording, stream=self.stream, block_samples=block, epoch=self._epoch, start=self._start
        )
        self._next: Input | None = next(self._messages, None)
        self._seq = 0
        self._began = time.monotonic()
        self.counters["passes"] += 1

    def turn(self, timeout_s: float) -> bool:
        """Send what is due within `timeout_s`; False when the recording is over."""
        until = time.monotonic() + timeout_s
        while self._next is not None:
            due = self._began + self._due_s(self._next)
            if due > until:
                time.sleep(max(until - time.monotonic(), 0.0))
                return True
            time.sleep(max(due - time.monotonic(), 0.0))
            self._send(self._next)
            self._next = next(self._messages, None)
        if self._loop:
            self._begin()
        return self._loop

    def _due_s(self, message: Input) -> float:
        """Return how long after the beginning a message is sent: data when they are complete, as by a rig."""
        if not isinstance(message, SpikeBatch | TraceBatch):
            return 0.0
        return float((message.stop - self._start) / self.recording.sample_rate) / self._speed

    def _send(self, message: Input) -> None:
        if isinstance(message, UnitTable):
            self._table = message = replace(message, continues=self.counters["passes"] > 1)
            self._table_at = time.monotonic()
        elif self._table is not None and time.monotonic() - self._table_at >= TABLE_EVERY_S:
            self._send(self._table)
        message = replace(message, seq=self._seq)
        self._seq += 1
        self._was_sent = give(self._socket, encode(message), wait_s=ROOM_WAIT_S if self._was_sent else 0.0)
        self.counters["messages" if self._was_sent else "messages_unsent"] += 1
        if isinstance(message, SpikeBatch):
            self.counters["spikes" if self._was_sent else "spikes_unsent"] += len(message.samples)

    def notes(self) -> list[str]:
        """A recording has nothing to say."""
        return []

    def report(self) -> dict[str, Any]:
        """Return what was sent."""
        return {"recording_id": self.recording.recording_id, "stream": self.stream, "counters": dict(self.counters)}

    def close(self) -> None:
        """Let go of the connection; what was accepted still leaves."""
        disconnect(self._socket, linger_s=1.0)


class FollowedFileSource:
    """Plays `recording` as fast as the daemon labels: what closes a window is sent when all before it are back.

    Raises DaemonGoneError when there is no daemon.
    """

    def __init__(
        self,
        recording: Recording | TraceRecording,
        *,
        endpoints: dict[str, str],
        stream: str = "",
        start: int = 0,
        loop: bool = False,
    ) -> None:
        self.recording, self.stream = recording, stream or recording.recording_id
        self.counters: Counter[str] = Counter()
        self._endpoints, self._start, self._loop = endpoints, start, loop
        self._begin()

    def _begin(self) -> None:
        self._received: Iterator[Received] = replay(
            self.recording,
            stream=self.stream,
            start=self._start,
            data=self._endpoints["data"],
            results=self._endpoints["results"],
            query=self._endpoints["query"],
        )
        self.counters["passes"] += 1

    def turn(self, timeout_s: float) -> bool:
        """Send until the next prediction is back, however long that takes; False when the recording is over."""
        if next(self._received, None) is not None:
            self.counters["predictions"] += 1
            return True
        if self._loop:
            self._begin()
        return self._loop

    def notes(self) -> list[str]:
        """A recording has nothing to say."""
        return []

    def report(self) -> dict[str, Any]:
        """Return what came back."""
        return {"recording_id": self.recording.recording_id, "stream": self.stream, "counters": dict(self.counters)}

    def close(self) -> None:
        """Let go of the connections."""
        close = getattr(self._received, "close", None)
        if close is not None:
            close()
