"""A small probe with known spikes: templates of four units on sixteen channels, in noise, as raw samples."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.signal import butter, sosfiltfilt

from nuclr_stream.matching.settings import MatchingSettings
from nuclr_stream.matching.templates import Filtering, Templates

RATE = 30_000
CHANNELS = 16
TROUGH = 20
SAMPLES = 61
NOISE = 8.0
DEPTHS_UM = (40.0, 90.0, 100.0, 140.0)
QUICK = MatchingSettings(calibration_s=0.5)
"""So that a stream of a few seconds is mostly matched."""


@dataclass(frozen=True)
class Made:
    """Raw samples (T, C), and the true spikes: `samples` (N,) ascending and `units` (N,) rows."""

    raw: np.ndarray[Any, np.dtype[np.int16]]
    samples: np.ndarray[Any, np.dtype[np.int64]]
    units: np.ndarray[Any, np.dtype[np.int64]]
    templates: Templates


def positions() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Two columns of sites, 20 um apart."""
    rows = np.arange(CHANNELS)
    return np.stack([16.0 * (rows % 2), 20.0 * (rows // 2)], axis=1).astype(np.float32)


def waveforms() -> np.ndarray[Any, np.dtype[np.float32]]:
    """(U, S, C): a trough and a slower peak, wider from unit to unit, falling off with distance."""
    t = np.arange(SAMPLES) - TROUGH
    found = []
    for unit, depth in enumerate(DEPTHS_UM):
        width = 4.0 + 1.5 * unit
        shape = -np.exp(-((t / width) ** 2)) + 0.4 * np.exp(-(((t - 3 * width) / (2.5 * width)) ** 2))
        distance = np.hypot(positions()[:, 0] - 8.0 * unit / 2, positions()[:, 1] - depth)
        found.append(120.0 * shape[:, None] * np.exp(-distance / 25.0)[None])
    return np.array(found, dtype=np.float32)


def filtered(waves: Any) -> Any:
    """Waveforms as they are in filtered samples, which is where a sorting takes its means."""
    padded = np.pad(waves, ((0, 0), (3_000, 3_000), (0, 0)))
    sections = butter(3, 300, "highpass", fs=RATE, output="sos")
    return sosfiltfilt(sections, padded, axis=1)[:, 3_000:-3_000].astype(np.float32)


def templates(rows: tuple[int, ...] = (0, 1, 2, 3)) -> Templates:
    """The units of those rows, as an earlier sorting would have them."""
    return Templates(
        source="made",
        unit_ids=tuple(f"u{row}" for row in rows),
        waveforms=filtered(waveforms()[list(rows)]),
        trough=TROUGH,
        sample_rate=Fraction(RATE),
        positions_um=positions(),
        shanks=np.zeros(CHANNELS, dtype=np.int32),
        channels=np.arange(CHANNELS, dtype=np.int32),
        unit_of_samples="raw",
        noise=np.full(CHANNELS, NOISE, dtype=np.float32),
        filtering=Filtering(reference=False),
    )


def make(seconds: float = 3.0, *, seed: int = 0, rate_hz: float = 12.0, spikes: Any = None) -> Made:
    """Draw spikes of all four units (or place `spikes`, pairs of sample and row), and the samples that they leave."""
    rng = np.random.default_rng(seed)
    total = int(seconds * RATE)
    if spikes is None:
        spikes = [
            (int(at), unit)
            for unit in range(len(DEPTHS_UM))
            for at in np.cumsum(rng.integers(RATE // 250, int(2 * RATE / rate_hz), int(seconds * rate_hz)))
            if 100 < at < total - 100
        ]
    spikes = sorted(spikes)
    trace = rng.normal(0.0, NOISE, (total, CHANNELS)) + 100.0 * np.arange(CHANNELS)
    for at, unit in spikes:
        trace[at - TROUGH : at - TROUGH + SAMPLES] += waveforms()[unit]
    samples = np.array([at for at, _ in spikes], dtype=np.int64)
    units = np.array([unit for _, unit in spikes], dtype=np.int64)
    return Made(np.rint(trace).astype(np.int16), samples, units, templates())


def share_found(made: Made, samples: Any, units: Any, *, until: int, within: int = 3) -> float:
    """Share of true spikes before `until` that were found as the right unit within a few samples."""
    true = [(s, u) for s, u in zip(made.samples.tolist(), made.units.tolist(), strict=True) if s < until]
    found = {
        (s + d, u) for s, u in zip(samples.tolist(), units.tolist(), strict=True) for d in range(-within, within + 1)
    }
    return sum(spike in found for spike in true) / len(true)
