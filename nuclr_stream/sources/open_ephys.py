"""Open Ephys as a source: its ZMQ Interface, or its Event Broadcaster, read into one stream of ours per data stream."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import zmq

from nuclr_stream.sockets import connect, disconnect, give, take
from nuclr_stream.sources.open_ephys_control import (
    EVENT_BROADCASTER,
    ZMQ_INTERFACE,
    ControlError,
    OpenEphysControl,
    SignalChain,
    why_silent,
)
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
SILENT_S = 3.0
"""After so long without a message, say why there is none."""
ASK_AGAIN_S = 1.0
"""The GUI is asked for its configuration no more often than this."""
HEARTBEAT_S = 2.0
LAST_S = 1.0

Parser: TypeAlias = Callable[[Sequence[bytes]], Block | Spike | Ttl | Other]


class OpenEphysMessages:
    """The messages of one GUI, without I/O: `take` them in order.

    `counters`: messages, messages_lost (by the ZMQ Interface's message number), malformed_<reason>, restarts.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        parse: Parser = zmq_interface,
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

    def configure(self, chain: SignalChain) -> None:
        """Take what the GUI's configuration says of rates and units; streams without an electrode are left alone."""
        for name in chain.electrodes:
            stream = self.stream(name)
            if stream is not None:
                if name in chain.rates:
                    stream.set_rate(chain.rates[name])
                stream.declare(chain.units.get(name, {}))

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
        return {
            "counters": dict(self.counters),
            "streams": {name: stream.report() for name, stream in self.streams.items()},
        }

    def notes(self) -> list[str]:
        """Return what there is to say since it was asked last."""
        found = []
        for stream in self.streams.values():
            found += list(stream.notes)
            stream.notes.clear()
        return found


@dataclass(frozen=True)
class Plugin:
    """A plugin that sends: its name in the GUI, and what its messages mean."""

    name: str
    parse: Parser


PLUGINS = {
    "zmq": Plugin(ZMQ_INTERFACE, zmq_interface),
    "broadcaster": Plugin(EVENT_BROADCASTER, event_broadcaster),
}


class OpenEphysSource:
    """Reads one port of the GUI: `turn` again and again, then `close`.

    With `control` the GUI's HTTP server is asked for rates and units: at the beginning, when acquisition starts again
    and when a unit fires that it has not named. With `heartbeat` the GUI shows this program among its clients; a GUI
    without a window crashes at that, so it is off by default.
    """

    def __init__(
        self,
        host: str,
        port: int,
        messages: OpenEphysMessages,
        *,
        plugin: Plugin = PLUGINS["zmq"],
        control: OpenEphysControl | None = None,
        heartbeat: bool = False,
    ) -> None:
        self.messages, self.control = messages, control
        self._host, self._port, self._plugin = host, port, plugin
        self._socket = VendorSocket(f"tcp://{host}:{port}", "Open Ephys address")
        self._heartbeat = Heartbeat(host, port + 1) if heartbeat else None
        self._notes: list[str] = []
        self._ask_from = self._came_at = time.monotonic()
        self._restarts = -1
        self._noted_silence = False
        self._unread = 0

    def turn(self, timeout_s: float) -> bool:
        """Take what has come within `timeout_s`. A live source never ends: always True."""
        self._discover()
        if self._heartbeat is not None:
            self._heartbeat.beat()
        for _ in range(TURN_MESSAGES):
            frames = self._socket.receive(timeout_s)
            if frames is None:
                break
            self.messages.take(frames)
            self._came_at, self._noted_silence = time.monotonic(), False
            timeout_s = 0.0
        if not self._noted_silence and time.monotonic() - self._came_at > SILENT_S:
            self._noted_silence = True
            control = self.control or OpenEphysControl(self._host)
            self._notes.append(why_silent(control, self._port, self._plugin.name))
        return True

    def _discover(self) -> None:
        """Ask for the configuration where something has happened that it should tell more about."""
        messages, now = self.messages, time.monotonic()
        unknown = any(stream.has_unknown_units for stream in messages.streams.values())
        if (
            self.control is None
            or now < self._ask_from
            or (self._restarts == messages.counters["restarts"] and not unknown)
        ):
            return
        try:
            messages.configure(self.control.signal_chain(self._plugin.name))
            self._restarts, self._ask_from = messages.counters["restarts"], now + ASK_AGAIN_S
        except ControlError as error:
            self._notes.append(f"{error}; units are added when they first fire")
            self._ask_from = now + 10 * ASK_AGAIN_S

    def notes(self) -> list[str]:
        """Return what there is to say since it was asked last."""
        notes, self._notes = self._notes + self.messages.notes(), []
        return notes

    def report(self) -> dict[str, Any]:
        """Return what came and what became of it."""
        found = self.messages.report()
        if self._socket.dropped:  # these are among the lost ones by number, too, if any came after them
            found["counters"]["messages_dropped"] = self._socket.dropped
        if self._unread:
            found["counters"]["messages_unread"] = self._unread
        return found

    def close(self) -> None:
        """Read what has come, for a second at most, complete the streams and let go of the sockets."""
        until = time.monotonic() + LAST_S
        while time.monotonic() < until and (frames := self._socket.receive(0.0)) is not None:
            self.messages.take(frames)
        self._unread = self._socket.close()
        self.messages.finish()
        if self._heartbeat is not None:
            self._heartbeat.close()


class Heartbeat:
    """Tells the ZMQ Interface every two seconds that somebody listens; data do not depend on it."""

    def __init__(self, host: str, port: int) -> None:
        # DEALER with the empty frame that REP expects: unlike REQ it may be asked for an answer at any time
        where, options = f"tcp://{host}:{port}", {zmq.IMMEDIATE: 1}
        self._socket = connect(zmq.DEALER, where, "heartbeat port", max_bytes=2**20, options=options)
        self._body = {"application": "nuclr-stream", "uuid": str(uuid.uuid4()), "type": "heartbeat"}
        self._next = time.monotonic()
        self.answers = 0

    def beat(self) -> None:
        """Send one if it is time."""
        self.answers += take(self._socket) is not None
        if time.monotonic() >= self._next and give(self._socket, [b"", json.dumps(self._body).encode()]):
            self._next = time.monotonic() + HEARTBEAT_S

    def close(self) -> None:
        """Let go of the socket."""
        disconnect(self._socket)
