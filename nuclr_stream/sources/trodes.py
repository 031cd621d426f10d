"""SpikeGadgets Trodes as a source: its sorted spikes, found through its discovery service.

Trodes publishes every stream on a PUB socket of its own: a first PUB repeats where a name server answers, and that
tells where a stream is. A message is one msgpack map. `source.spikes` holds one spike a message, without a number: what
is lost on the way cannot be seen, so the queue of this source never overflows without being counted.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgpack
import zmq

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.sockets import Socket, connect, disconnect, give, take
from nuclr_stream.sources.vendor_socket import VendorSocket
from nuclr_stream.sources.writer import StreamWriter, printable
from nuclr_stream.windows.binning import MAX_SAMPLE, rational

SERVER = "tcp://127.0.0.1:49152"
STREAM = "trodes"
LATENESS_S = 0.05
"""How far behind the newest spike another may come; nTrodes are processed side by side."""
BACK_S = 1.0
"""A spike further back than this is of another epoch."""
IDLE_S = 0.25
"""After so long without a spike the hardware's time is asked for: no spikes is not no data."""
TURN_MESSAGES = 2_000
ASK_S = 1.0


class TrodesError(NuclrStreamError):
    """Trodes, or one of its services, does not answer."""


@dataclass(frozen=True)
class Network:
    """The discovery service at `server`; every call raises TrodesError when it does not answer within a second."""

    server: str = SERVER

    def find(self, name: str) -> str:
        """Return the endpoint of a stream or service, empty while there is none."""
        socket = connect(zmq.SUB, self.server, "Trodes server", max_bytes=2**20)
        socket.subscribe(b"")
        try:
            told = _received(socket, f"nothing at {self.server}; is Trodes running, with its network on?")
        finally:
            disconnect(socket)
        found = _asked(str(told["replyEndpoint"]), {"tag": "get", "name": name, "endpoint": ""})
        return str(found or "")

    def info(self, item: str) -> Any:
        """Return what the service trodes.info knows of `item`: "timerate" or "time"."""
        endpoint = self.find("trodes.info")
        if not endpoint:
            raise TrodesError(f"{self.server} has no trodes.info")
        return self.ask_info(endpoint, item)

    @staticmethod
    def ask_info(endpoint: str, item: str) -> Any:
        """Ask the service at `endpoint`."""
        answer = _asked(endpoint, {"request": item})
        try:
            return answer[2][item]
        except (IndexError, KeyError, TypeError) as error:
            raise TrodesError(f"trodes.info answers {answer!r} to {item!r}") from error


class TrodesSource:
    """Reads `source.spikes`; waits for Trodes, and for its spikes.

    `counters`: spikes_seen = spikes_unsorted + spikes_out_of_range + those of the writer; epochs begin when acquisition
    plays again or seeks, and when the hardware's clock goes back.
    """

    def __init__(self, server: str = SERVER, *, endpoint: str, stream: str = STREAM) -> None:
        self._network, self._endpoint, self._stream = Network(server), endpoint, stream
        self.counters: Counter[str] = Counter()
        self.unsorted: Counter[str] = Counter()
        self.writer: StreamWriter | None = None
        self._spikes: VendorSocket | None = None
        self._acquisition: VendorSocket | None = None
        self._info = ""
        self._notes: list[str] = []
        self._running = False
        self._newest = 0
        self._came_at = self._look_from = 0.0
        self._said = ""

    # -- finding Trodes ----------------------------------------------------------------------------------------------

    def turn(self, timeout_s: float) -> bool:
        """Take what has come within `timeout_s`. A live source never ends: always True."""
        if self._spikes is None and not self._find(timeout_s):
            return True
        assert self._spikes is not None
        if self._acquisition is not None:
            while (frames := self._acquisition.receive(0.0)) is not None:
                self._take(frames, self._command)
        for _ in range(TURN_MESSAGES):
            frames = self._spikes.receive(timeout_s)
            if frames is None:
                break
            timeout_s = 0.0
            self._take(frames, self._spike)
        self._advance()
        return True

    def _find(self, timeout_s: float) -> bool:
        if time.monotonic() < self._look_from:
            time.sleep(min(timeout_s, self._look_from - time.monotonic()))
            return False
        self._look_from = time.monotonic() + ASK_S
        try:
            self._info = self._network.find("trodes.info")
            self._rate = rational(self._network.info("timerate"))
            spikes = self._network.find("source.spikes")
            acquisition = self._network.find("trodes.acquisition")
        except (TrodesError, ValueError) as error:
            self._say(str(error))
            return False
        if not spikes:
            self._say(f"Trodes at {self._network.server} has no source.spikes yet: add nTrodes, then press play")
            return False
        self._spikes = VendorSocket(spikes, "Trodes spikes")
        self._acquisition = VendorSocket(acquisition, "Trodes acquisition") if acquisition else None
        self._came_at = time.monotonic()
        return True

    def _say(self, note: str) -> None:
        if note != self._said:
            self._notes.append(note)
            self._said = note

    # -- messages ----------------------------------------------------------------------------------------------------

    def _take(self, frames: list[bytes], what: Any) -> None:
        try:
            message = msgpack.unpackb(frames[0], raw=False)
            what(message)
        except (ValueError, KeyError, TypeError, msgpack.exceptions.UnpackException):
            self.counters["malformed"] += 1

    def _command(self, message: dict[str, Any]) -> None:
        command = str(message["command"])
        self.counters[f"acquisition_{command}" if command in ("play", "record", "stop", "seek") else "malformed"] += 1
        if command in ("stop", "seek"):
            self._end_epoch(f"acquisition: {command}")

    def _spike(self, message: dict[str, Any]) -> None:
        sample, ntrode, cluster = int(message["localTimestamp"]), message["nTrodeId"], int(message["cluster"])
        self.counters["spikes_seen"] += 1
        self._came_at = time.monotonic()
        if not -MAX_SAMPLE <= sample < MAX_SAMPLE:
            self.counters["spikes_out_of_range"] += 1
            return
        if self._running and sample < self._newest - BACK_S * self._rate:
            self._end_epoch(f"the hardware's clock went back from {self._newest} to {sample}")
        if not self._running:
            self._begin(sample)
        self._newest = max(self._newest, sample)
        if cluster:
            assert self.writer is not None
            self.writer.spike(printable(f"{ntrode}/{cluster}"), sample)
        else:
            self.counters["spikes_unsorted"] += 1
            self.unsorted[f"nTrode {ntrode}"] += 1

    def _begin(self, sample: int) -> None:
        """Begin an epoch so far before its first spike as another may still come."""
        start = max(sample - int(LATENESS_S * self._rate), min(sample, 0))  # the hardware counts from 0
        if self.writer is None:
            self.writer = StreamWriter(self._endpoint, stream=self._stream, sample_rate=self._rate, start=start)
        else:
            self.writer.begin(start, sample_rate=self._rate)
        self._running, self._newest = True, sample

    def _end_epoch(self, why: str) -> None:
        if self._running and self.writer is not None:
            self.writer.finish(self._newest + 1)
            self._notes.append(f"stream {self._stream}: {why}")
        self._running = False

    def _advance(self) -> None:
        """Move the watermark: behind the newest spike, or behind the hardware's time where none comes."""
        if not self._running or self.writer is None:
            return
        if time.monotonic() - self._came_at > IDLE_S:
            self._came_at = time.monotonic()
            try:
                now = int(self._network.ask_info(self._info, "time"))
            except (TrodesError, TypeError, ValueError) as error:
                self._say(str(error))
            else:
                self._newest = max(self._newest, now)
        self.writer.advance(self._newest - int(LATENESS_S * self._rate))

    # -- the rest of a source ----------------------------------------------------------------------------------------

    def notes(self) -> list[str]:
        """Return what there is to say since it was asked last."""
        notes, self._notes = self._notes, []
        return notes

    def report(self) -> dict[str, Any]:
        """Return what came and what became of it."""
        found: dict[str, Any] = {"counters": dict(self.counters), "unsorted": dict(self.unsorted)}
        if self.writer is not None:
            found["streams"] = {self._stream: self.writer.report()}
        return found

    def close(self) -> None:
        """Complete the stream and let go of everything."""
        self._end_epoch("the source ended")
        if self.writer is not None:
            self.writer.close()
        for socket in (self._spikes, self._acquisition):
            if socket is not None:
                socket.close()


def _received(socket: Socket, otherwise: str) -> Any:
    if not socket.poll(int(ASK_S * 1000)):
        raise TrodesError(otherwise)
    frames = take(socket)
    try:
        return msgpack.unpackb(frames[0], raw=False) if frames else None
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise TrodesError(f"{otherwise} ({error})") from error


def _asked(endpoint: str, request: dict[str, Any]) -> Any:
    socket = connect(zmq.REQ, endpoint, "Trodes service", max_bytes=2**26, options={zmq.IMMEDIATE: 1})
    try:
        if not give(socket, [msgpack.packb(request)], wait_s=ASK_S):
            raise TrodesError(f"nothing answers at {endpoint}")
        return _received(socket, f"no answer from {endpoint}")
    finally:
        disconnect(socket)
