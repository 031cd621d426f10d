"""A stand-in for the Open Ephys GUI: the frames that its plugins publish, block by block, and a socket to publish on.

The frames are laid out as in captures of the real GUI (tests of the captures hold the source to those); the stand-in is
for what nobody recorded: loops of any length, lost messages, names outside ASCII, 10,000 spikes a second.
"""

from __future__ import annotations

import json
import lzma
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

CAPTURES = Path(__file__).parents[4] / "shared" / "data" / "open_ephys"
STREAM = "Probe-A"
WAVEFORM = np.zeros((4, 40), dtype="<f4").tobytes()

SpikeRow = tuple[int, int, str]
"""sample, sorted id, electrode"""


def captured(name: str) -> list[list[bytes]]:
    """The messages of a capture of the real GUI, in order."""
    path = CAPTURES / name
    if not path.is_file():
        pytest.skip(f"no capture of the real GUI at {path}")
    content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    unpacker = msgpack.Unpacker(raw=True, max_buffer_size=2**30)
    unpacker.feed(content)
    return [frames for _, frames in unpacker]


class Gui:
    """Makes the messages of a ZMQ Interface; `number` is that of the last one. `block` is n samples of the stream."""

    def __init__(self, *, block: int = 696, rate: float = 30_000.0, stream: str = STREAM, channels: int = 1) -> None:
        self.block_samples, self.rate, self.stream, self.channels = block, rate, stream, channels
        self.number = 0
        self.sample = 0

    def start(self, *, sample: int | None = None) -> None:
        """Acquisition starts (again): numbers from 1, the samples go on unless they are set."""
        self.number = 0
        self.sample = self.sample if sample is None else sample

    def block(self, spikes: Sequence[SpikeRow] = (), *, ttl: Sequence[tuple[int, int, bool]] = ()) -> list[list[bytes]]:
        """The messages of the next block: TTL, spikes electrode by electrode, then DATA of each channel."""
        messages = [self.ttl(*one) for one in ttl]
        messages += [self.spike(*one) for one in sorted(spikes, key=lambda one: one[2])]
        messages += [self.data(channel) for channel in range(self.channels)]
        self.sample += self.block_samples
        return messages

    def data(self, channel: int = 0) -> list[bytes]:
        content = {"stream": self.stream, "channel_num": channel, "channel_name": f"CH{channel + 1}"}
        content |= {"num_samples": self.block_samples, "sample_num": self.sample, "sample_rate": self.rate}
        header = self._header("data", {"content": content, "data_size": 4 * self.block_samples})
        return [b"DATA\0", header, bytes(4 * self.block_samples)]

    def spike(self, sample: int, sorted_id: int, electrode: str = "Tetrode 1", *, node: int = 102) -> list[bytes]:
        body = {"stream": self.stream, "source_node": node, "electrode": electrode, "sample_num": sample}
        body |= {"num_channels": 4, "num_samples": 40, "sorted_id": sorted_id, "threshold": [-70.0] * 4}
        return [b"EVENT\0", self._header("spike", {"spike": body}), WAVEFORM]

    def ttl(self, sample: int, line: int, is_on: bool) -> list[bytes]:
        content = {"stream": self.stream, "source_node": 100, "type": 3, "sample_num": sample}
        header = self._header("event", {"content": content, "data_size": 10})
        return [b"EVENT\0", header, struct.pack("<BBQ", line, is_on, is_on << line)]

    def _header(self, kind: str, body: dict[str, Any]) -> bytes:
        self.number += 1
        content = {"message_num": self.number, "type": kind} | body | {"timestamp": 1795430975281}
        text = json.dumps(content, indent=2, ensure_ascii=False).replace("\n", "\r\n")
        # the GUI counts characters instead of bytes: what they are too many is cut off at the end
        return text.encode(errors="surrogatepass")[: len(text)]


@contextmanager
def publishing(port: int = 0) -> Iterator[tuple[str, Any]]:
    """A PUB socket of a GUI: host:port, and a function that publishes once somebody listens."""
    context = zmq.Context()
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVTIMEO, 60_000)
    bound = (
        socket.bind_to_random_port("tcp://127.0.0.1") if not port else socket.bind(f"tcp://127.0.0.1:{port}") and port
    )
    listened = []

    def publish(messages: Sequence[Sequence[bytes]]) -> None:
        if not listened:
            listened.append(socket.recv())
        for frames in messages:
            socket.send_multipart(frames)

    try:
        yield f"127.0.0.1:{bound}", publish
    finally:
        context.destroy(linger=1_000)
