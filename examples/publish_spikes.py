"""Sorted spikes of any Python program into nuclr-stream: declare the units, then send what fired, block by block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nuclr_stream.client import Publisher

RATE = 30_000
BLOCK = 600  # 20 ms


def my_sorter(units: int, seconds: float) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]]:
    """Stand in for your sorter: sample numbers, rows of units, and the sample up to which all spikes are known."""
    rng = np.random.default_rng(0)
    for start in range(0, int(seconds * RATE), BLOCK):
        spikes = rng.poisson(units * 5 * BLOCK / RATE)
        yield rng.integers(start, start + BLOCK, spikes), rng.integers(0, units, spikes), start + BLOCK


def publish(endpoint: str = "tcp://127.0.0.1:5581", *, seconds: float = 60.0) -> None:
    """Send `seconds` of spikes of 20 units."""
    with Publisher(endpoint, stream="probeA", sample_rate=RATE, start=0) as rig:
        index = rig.units([f"unit{row}" for row in range(20)], depth_um=np.arange(20) * 40.0)
        for samples, rows, stop in my_sorter(20, seconds):
            rig.spikes(samples, index[rows], stop=stop)
        rig.end()


if __name__ == "__main__":
    publish()
