"""A command server that speaks SpikeGLX's protocol over TCP, with a run of made samples and a memory that ends."""

from __future__ import annotations

import socketserver
import threading
from typing import Any

import numpy as np

from tests.nuclr_stream.matching.made import RATE, positions


class GlxServer(socketserver.ThreadingTCPServer):
    """Serves `raw` (T, C) int16 as probe 0: samples [first, count) are in its memory, `count` is how many there are.

    The first channel of the stream is one that the templates know nothing of.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, raw: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Commands)
        self.raw, self.first, self.count = raw, 0, 0
        self.refuse_until = 0  # a fetch from before this sample is answered with "Too late"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Commands(socketserver.StreamRequestHandler):
    server: GlxServer

    def handle(self) -> None:
        for line in self.rfile:
            words = line.decode().split()
            answer = self._fetch(words[1:]) if words[0] == "FETCH" else self._facts(words)
            self.wfile.write(answer)

    def _facts(self, words: list[str]) -> bytes:
        shank = [
            f"ch{c}_{name}={value:g}" for c, xy in enumerate(positions()) for name, value in zip("xz", xy, strict=True)
        ]
        lines = {
            "GETSTREAMSAMPLERATE": [f"{RATE}.0"],
            "GETSTREAMI16TOVOLTS": ["2.34375e-06"],
            "GETSTREAMSAMPLECOUNT": [str(self.server.count)],
            "GETGEOMMAP": ["head_partNumber=NP1010", *shank],
        }.get(words[0])
        if lines is None:
            return f"ERROR {words[0]}: Unknown command.\n".encode()
        return "".join(f"{line}\n" for line in [*lines, "OK"]).encode()

    def _fetch(self, words: list[str]) -> bytes:
        js, ip, start, most = (int(word) for word in words[:4])
        channels = sorted(int(channel) for channel in words[4].split("#") if channel)
        if (js, ip) != (2, 0):
            return b"ERROR FETCH: Not running or stream not enabled.\n"
        if start < self.server.refuse_until:
            return b"ERROR FETCH: Too late.\n"
        first = max(start, self.server.first)
        data = self.server.raw[first : max(first, min(first + most, self.server.count))][:, channels]
        header = f"BINARY_DATA {len(channels)} {len(data)} uint64({first})\n".encode()
        return header + np.ascontiguousarray(data).astype("<i2").tobytes() + b"OK\n"
