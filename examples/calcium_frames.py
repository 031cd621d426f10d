"""Calcium traces of any program into nuclr-stream, frame by frame; the daemon needs a bundle for traces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nuclr_stream.client import Publisher


def publish(
    frames: Iterable[tuple[Sequence[str], Sequence[float]]],
    endpoint: str = "tcp://127.0.0.1:5581",
    *,
    rate_hz: str = "4.2837",
) -> None:
    """Send frames: the ids of the units that there are by now, and a value such as dF/F for each of them."""
    with Publisher(endpoint, stream="plane0", sample_rate=rate_hz, start=0, wait_s=1.0) as rig:
        known: list[str] = []
        for unit_ids, values in frames:
            if list(unit_ids) != known:  # a unit appeared or went: it counts from now on
                known = list(unit_ids)
                index = rig.units(known)
            rig.traces([[value] for value in values], index)
        rig.end()
