"""One soak in a process of its own: `python -m tests.faults.soak`. Every 300 steps a line of JSON.

Everything that a daemon does for a window is done for it but sockets: decoding, cutting, labelling, encoding, and every
tenth time a snapshot written to disk. Every 20 s a unit is retired and a new one comes; every ten minutes the sorter
renumbers all of them, every hour acquisition starts a new epoch.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream import wire
from nuclr_stream.config import Settings
from nuclr_stream.daemon.saving import taken
from nuclr_stream.daemon.streams import Streams
from nuclr_stream.snapshots.folder import SnapshotFolder
from nuclr_stream.wire import SpikeBatch, UnitAction, UnitTable
from tests.faults.rig import RATE, model

UNITS = 12
EVERY = 300
LEAK: list[bytes] = []


class Source:
    """Messages of one second each, and the changes of the unit table between them."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._begin(1)

    def second(self, number: int) -> list[wire.Input]:
        """What is sent for second `number`, counted from 0 over all epochs."""
        if number % 3_600 == 3_599:
            self._begin(self._epoch + 1)
        found: list[wire.Input] = []
        if number % 600 == 599:
            self._living = list(range(self._next, self._next + UNITS))
            self._next += UNITS
        elif number % 20 == 19:
            self._living[int(self._rng.integers(UNITS))] = self._next
            self._next += 1
        if number % 20 == 19 or self._version < 0:
            found.append(self._table())
        count = int(self._rng.poisson(8 * UNITS))
        start = self._second * RATE
        spikes = np.sort(self._rng.integers(start, start + RATE, count))
        units = self._rng.choice(np.array(self._living, dtype=np.uint32), count)
        stretch = {"start": start, "stop": start + RATE, "table_version": self._version}
        found.append(SpikeBatch(**self._header(), **stretch, samples=spikes, units=units))
        self._second += 1
        return found

    def _begin(self, epoch: int) -> None:
        self._epoch, self._seq, self._version, self._second = epoch, -1, -1, 0
        self._living, self._next = list(range(UNITS)), UNITS

    def _header(self) -> dict[str, Any]:
        self._seq += 1
        return {"stream": "soak", "epoch": self._epoch, "seq": self._seq, "sample_rate": Fraction(RATE)}

    def _table(self) -> UnitTable:
        self._version += 1
        living = sorted(self._living)
        return UnitTable(
            **self._header(),
            version=self._version,
            full=True,
            sample=0,
            action=np.full(UNITS, UnitAction.ADD, dtype=np.uint8),
            index=np.array(living, dtype=np.uint32),
            into=np.zeros(UNITS, dtype=np.uint32),
            added=np.zeros(UNITS, dtype=np.int64),
            shank=np.zeros(UNITS, dtype=np.int32),
            x_um=np.zeros(UNITS, dtype=np.float32),
            depth_um=np.zeros(UNITS, dtype=np.float32),
            channel=np.zeros(UNITS, dtype=np.int32),
            unit_ids=tuple(f"e{self._epoch}u{index}" for index in living),
        )


def run(*, seed: int, steps: int, leak: int) -> None:
    """Go through so many seconds and print how memory stands."""
    source, took = Source(seed), list[float]()
    streams = Streams(model(), Settings(), instance=1)
    with tempfile.TemporaryDirectory() as path:
        folder = SnapshotFolder(Path(path) / "snapshots")
        for number in range(steps):
            start = time.perf_counter()
            for message in source.second(number):
                _step(streams, wire.encode(message), folder if number % 10 == 0 else None)
            took.append(time.perf_counter() - start)
            if leak:
                LEAK.append(bytes(leak))
            if number % EVERY == EVERY - 1:
                print(json.dumps({"step": number + 1, **_memory(), "step_ms_p99": _p99_ms(took)}), flush=True)
                took.clear()
        folder.close()


def _step(streams: Streams, frames: list[bytes], folder: SnapshotFolder | None) -> None:
    message = wire.decode(frames)
    assert isinstance(message, wire.Input)
    stream = streams.of(message, 0)
    assert stream is not None
    stream.saving = folder is not None
    for window in stream.take(message, 0):
        wire.encode(stream.published(stream.labeler.label(window), 0).predictions)
        if folder is not None and window.checkpoint is not None:
            folder.write("soak", taken(stream, window.checkpoint, stream.labeler.dump_model_side()))
    list(stream.events(0))
    wire.encode(stream.state)


def _memory() -> dict[str, Any]:
    gc.collect()
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "Threads"))}
    return {
        "rss_mb": round(int(values["VmRSS"]) / 1024, 2),
        "threads": int(values["Threads"]),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }


def _p99_ms(took: list[float]) -> float:
    return round(float(np.percentile(took, 99)) * 1e3, 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3_600)
    parser.add_argument("--leak", type=int, default=0, help="bytes that are kept of every step, to try the trial")
    asked = parser.parse_args()
    run(seed=asked.seed, steps=asked.steps, leak=asked.leak)
