"""Spikes on Lab Streaming Layer as `nuclr-stream source lsl probeA` reads them: three channels, a row a spike."""

from __future__ import annotations

import time

import numpy as np
from pylsl import IRREGULAR_RATE, StreamInfo, StreamOutlet

RATE, BLOCK = 30_000, 600
WATERMARK = -1  # as a unit: no spike before this row's sample is still to come


def outlet(name: str, units: list[str]) -> StreamOutlet:
    """Announce a stream of spikes of these units."""
    info = StreamInfo(name, "Spikes", 3, IRREGULAR_RATE, "double64", source_id=name)
    info.set_channel_labels(["sequence", "unit", "sample"])
    info.desc().append_child_value("sample_rate", str(RATE))
    listed = info.desc().append_child("units")
    for unit in units:
        listed.append_child("unit").append_child_value("label", unit)
    return StreamOutlet(info)


def publish(name: str = "probeA", *, seconds: float = 60.0) -> None:
    """Push `seconds` of spikes of 20 units, in real time; `sequence` is what makes losses seen."""
    stream, rng, sequence = outlet(name, [f"unit{row}" for row in range(20)]), np.random.default_rng(0), 0
    stream.wait_for_consumers(30.0)
    for start in range(0, int(seconds * RATE), BLOCK):
        count = rng.poisson(20 * 5 * BLOCK / RATE)
        rows = [(rng.integers(0, 20), rng.integers(start, start + BLOCK)) for _ in range(count)]
        for unit, sample in [*rows, (WATERMARK, start + BLOCK)]:
            stream.push_sample([sequence, unit, sample])
            sequence += 1
        time.sleep(BLOCK / RATE)
    time.sleep(1.0)  # an outlet that goes takes along what nobody has fetched yet


if __name__ == "__main__":
    publish()
