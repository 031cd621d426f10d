"""Open Ephys as a source: its ZMQ Interface, or its Event Broadcaster, read into one stream of ours per data stream."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from nuclr_stream.sources.open_ephys_stream import OpenEphysStream
from nuclr_stream.sources.open_ephys_wire import (
    Block,
    Other,
    Spike,
    Ttl,
    VendorMessageError,
    event_broadcaster,
    zmq_interface,
)
from nuclr_stream.sources.vendor_socket import VendorSocket

MAX_STREAMS = 16
TURN_MESSAGES = 2_000
"""Messages that one turn takes before signals are looked at."""
MAX_LOST = 2**20
"""A message number that jumps further ahead is that of another acquisition."""


class OpenEphysMessages:
    """The messages of one GUI, without I/O: `take` them in order.

    `counters`: messages, messages_lost (by the ZMQ Interface's message number), malformed_<reason>, restarts.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        parse: Callable[[Sequence[bytes]], Block | Spike | Ttl | Other] = zmq_interface,
        only: Sequence[str] = (),
        sample_rate: Fraction | None = None,
        mask_line: int = -1,
    ) -> None:
        self.streams: dict[str, OpenEphysStream] = {}
        self.counters: Counter[str] = Counter()
        self._endpoint, self._parse, self._only = endpoint, parse, tuple(only)
        self._sample_rate, self._mask_line = sample_rate, mask_line
        self._last_number: int | None = None

    def take(self, frames: Sequence[bytes]) -> None:
        """Take one multipart message. What is wrong with it is counted, and nothing is raised."""
        self.counters["messages"] += 1
        try:
            message = self._parse(frames)
        except VendorMessageError as error:
            self.counters[f"malformed_{error.reason}"] += 1
            return
        if message.number is not None:
            self._follow(message.number)
        if isinstance(message, Other):
            return
        stream = self.stream(message.stream)
        if stream is None:
            self.counters["other_streams"] += 1
        elif isinstance(message, Block):
            stream.block(message)
        elif isinstance(message, Spike):
            stream.spike(message)
        else:
            stream.ttl(message)

    def stream(self, name: str) -> OpenEphysStream | None:
        """Return the stream of that name, made when it is seen first; None for one that is not asked for."""
        found = self.streams.get(name)
        if found is None and len(self.streams) < MAX_STREAMS and (not self._only or name in self._only):
            found = OpenEphysStream(
                name, endpoint=self._endpoint, sample_rate=self._sample_rate, mask_line=self._mask_line
            )
            self.streams[name] = found
        return found

    def _follow(self, number: int) -> None:
        """Follow the 32-bit number of all messages: +1 each, 1 again when acquisition starts."""
        last, self._last_number = self._last_number, number
        if last is None:
            return  # joined while it ran, most likely: nothing is known of what came before
        ahead = (number - last) % 2**32
        if 1 <= ahead <= MAX_LOST:
            lost = ahead - 1
        else:
            self.counters["restarts"] += 1
            for stream in self.streams.values():
                stream.end_epoch("acquisition started again")
            lost = max(number - 1, 0) if number <= MAX_LOST else 0
        if lost:
            self.counters["messages_lost"] += lost
            for stream in self.streams.values():
                stream.messages_lost()

    def finish(self) -> None:
        """Complete every stream: nothing more comes."""
        for stream in self.streams.values():
            stream.end_epoch("the source ended")
            if stream.writer is not None:
                stream.writer.close()

    def report(self) -> dict[str, Any]:
        """Return what came and what became of it, as plain values."""
        return {"counters": dict(self.counters), "streams": {name: _report(s) for name, s in self.streams.items()}}

    def notes(self) -> list[str]:
        """Return what there is to say since it was asked last."""
        found = []
        for stream in self.streams.values():
            found += list(stream.notes)
            stream.notes.clear()
        return found


class OpenEphysSource:
    """Reads one port of the GUI: `turn` again and again, then `close`."""

    def __init__(self, address: str, messages: OpenEphysMessages) -> None:
        self.messages = messages
        self._socket = VendorSocket(address, "Open Ephys address")
        self._notes: deque[str] = deque()

    def turn(self, timeout_s: float) -> bool:
        """Take what has come within `timeout_s`. A live source never ends: always True."""
        for _ in range(TURN_MESSAGES):
            frames = self._socket.receive(timeout_s)
            if frames is None:
                break
            self.messages.take(frames)
            timeout_s = 0.0
        return True

    def notes(self) -> list[str]:
        """Return what there is to say since it was asked last."""
        return self.messages.notes()

    def report(self) -> dict[str, Any]:
        """Return what came and what became of it."""
        found = self.messages.report()
        if self._socket.dropped:
            found["counters"]["messages_dropped"] = self._socket.dropped
        return found

    def close(self) -> None:
        """Complete the streams and let go of the sockets."""
        self.messages.finish()
        self._socket.close()


def _report(stream: OpenEphysStream) -> dict[str, Any]:
    writer = stream.writer
    counters = stream.counters + (Counter() if writer is None else writer.counters)
    found: dict[str, Any] = {"counters": {name: n for name, n in counters.items() if n}, "waiting": stream.waiting}
    if writer is not None:
        found |= {"units": len(writer.unit_ids), "epochs": writer.epochs, "held": writer.held}
        found |= {"watermark": writer.watermark, "messages_unsent": writer.unsent_messages}
    if stream.unsorted:
        found["unsorted_electrodes"] = dict(stream.unsorted)
    return found


PARSERS = {"zmq": zmq_interface, "broadcaster": event_broadcaster}
