"""What tests of the walk send: a source that counts its own messages, and a small random recording."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import rational
from nuclr_stream.wire import End, Heartbeat, MaskInterval, SpikeBatch, TraceBatch, UnitAction, UnitTable

RATE = 1000


class Source:
    """Builds messages of one stream at 1 kHz, numbered as a real source would."""

    def __init__(self, *, epoch: int = 1, sample_rate: Any = RATE, origin: int = 0, stream: str = "probeA") -> None:
        self.seq = -1
        self.version = -1
        self.header = {"stream": stream, "epoch": epoch, "sample_rate": rational(sample_rate), "origin": origin}

    def _next(self) -> dict[str, Any]:
        self.seq += 1
        return self.header | {"seq": self.seq}

    def spikes(self, start: int, stop: int, spikes: list[tuple[int, int]] = ()) -> SpikeBatch:  # type: ignore[assignment]
        return SpikeBatch(
            **self._next(),
            start=start,
            stop=stop,
            table_version=max(self.version, 0),
            samples=np.array([s for s, _ in spikes], dtype=np.int64),
            units=np.array([u for _, u in spikes], dtype=np.uint32),
        )

    def busy(self, start: int, stop: int, units: int = 12) -> SpikeBatch:
        """Every unit fires every 100 samples."""
        return self.spikes(start, stop, [(s, u) for s in range(start, stop) if s % 100 == 0 for u in range(units)])

    def table(self, rows: list[tuple], *, full: bool = False, continues: bool = False, added: int = 0) -> UnitTable:
        """Rows are (action, index, unit_id or into)."""
        self.version += 1
        n = len(rows)
        return UnitTable(
            **self._next(),
            version=self.version,
            full=full,
            sample=0,
            continues=continues,
            action=np.array([a for a, *_ in rows], dtype=np.uint8),
            index=np.array([r[1] for r in rows], dtype=np.uint32),
            into=np.array([r[2] if isinstance(r[2], int) else 0 for r in rows], dtype=np.uint32),
            added=np.full(n, added, dtype=np.int64),
            shank=np.zeros(n, dtype=np.int32),
            x_um=np.zeros(n, dtype=np.float32),
            depth_um=np.arange(n, dtype=np.float32),
            channel=np.zeros(n, dtype=np.int32),
            unit_ids=tuple(r[2] if isinstance(r[2], str) else "" for r in rows),
        )

    def units(self, count: int = 12, **options: Any) -> UnitTable:
        """A whole table of units u0, u1, ..."""
        return self.table([(UnitAction.ADD, i, f"u{i}") for i in range(count)], full=True, **options)

    def mask(self, start: int, stop: int) -> MaskInterval:
        return MaskInterval(**self._next(), start=start, stop=stop, cause="stimulation")

    def heartbeat(self, start: int, stop: int) -> Heartbeat:
        return Heartbeat(**self._next(), start=start, stop=stop)

    def end(self, sample: int) -> End:
        return End(**self._next(), sample=sample)

    def traces(self, first_frame: int, values: np.ndarray) -> TraceBatch:
        units = np.arange(len(values), dtype=np.uint32)
        values = values.astype(np.float32)
        return TraceBatch(**self._next(), first_frame=first_frame, table_version=0, units=units, values=values)


def random_recording(
    seed: int = 0, *, units: int = 15, seconds: int = 30, rate: Any = 30000, gap: bool = False, mask: bool = False
) -> Recording:
    """Poisson units of 1-20 Hz, with a gap of 1.7 s and a mask of 10 ms on demand."""
    rng = np.random.default_rng(seed)
    exact: Fraction = rational(rate)
    total = int(seconds * exact)
    rates = rng.uniform(1, 20, units)
    spikes = rng.poisson(rates * seconds)
    samples = rng.integers(0, total, spikes.sum())
    rows = np.repeat(np.arange(units, dtype=np.int32), spikes)
    stretch = np.array([[int(total * 0.45), int(total * 0.45 + 1.7 * exact)]]) if gap else np.empty((0, 2), np.int64)
    keep = np.ones(len(samples), dtype=bool)
    for start, stop in stretch:
        keep &= (samples < start) | (samples >= stop)
    order = np.argsort(samples[keep], kind="stable")
    return Recording(
        recording_id=f"random_{seed}",
        subject_id="s",
        sample_rate=exact,
        num_samples=total,
        spike_samples=samples[keep][order],
        spike_units=rows[keep][order],
        unit_ids=np.array([f"u{i}" for i in range(units)]),
        gap_samples=stretch,
        mask_samples=np.array([[total // 5, total // 5 + total // 3000]]) if mask else np.empty((0, 2), np.int64),
    )
