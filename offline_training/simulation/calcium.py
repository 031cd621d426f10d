"""Calcium traces of the simulated animals: the same cells, labels and activity as `simulate`, seen by a microscope.

Every spike adds a transient that rises and decays exponentially (GCaMP6s-like, each cell has its own), which saturates;
fluorescence bleaches, wanders slowly, is mixed with that of the surround (neuropil: the mean of all cells and a part of
its own) and read with shot noise. dF/F is then computed as from real files
(`nuclr_stream.recordings.readers.fluorescence`).
Frames come every 0.23344 s, as in the published calcium recordings, so millisecond timing is lost by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter

from nuclr_stream.recordings.readers.fluorescence import delta_f_over_f
from nuclr_stream.recordings.traces import TraceRecording
from offline_training.simulation.animals import LEAST_UNITS, SimulationError, fire, unit_columns
from offline_training.simulation.biology import Animal, Rng, draw_animal

FRAME_RATE = Fraction(6250, 1459)
"""One frame every 0.23344 s."""
STEP_S = 0.02
"""Grid of the transients; frames are means over the steps within them."""


@dataclass(frozen=True)
class Imaged:
    """What the microscope saw: fluorescence and surround (U, T) float32 in camera counts, and the session's labels."""

    fluorescence: np.ndarray
    neuropil: np.ndarray
    animal: Animal


def simulate_calcium(seed: int, *, units: int = 120, duration_s: float = 600.0, session: int = 0) -> TraceRecording:
    """One imaged session of the simulated animal `seed`, as dF/F, with the unit columns of `simulate`.

    Raises SimulationError for a negative seed or session, too few units or less than two minutes.
    """
    imaged = image(seed, units=units, duration_s=duration_s, session=session)
    recording_id = f"calcium_{seed:06d}_{session}"
    return TraceRecording(
        recording_id=recording_id,
        subject_id=f"sim_{seed:06d}",
        frame_rate=FRAME_RATE,
        traces=delta_f_over_f(imaged.fluorescence, imaged.neuropil, FRAME_RATE, where=recording_id),
        unit_ids=np.array([f"{recording_id}:{row}" for row in range(units)]),
        units=unit_columns(imaged.animal, units),
    )


def image(seed: int, *, units: int = 120, duration_s: float = 600.0, session: int = 0) -> Imaged:
    """The fluorescence behind `simulate_calcium`, as a microscope and a segmentation would give it."""
    if seed < 0 or session < 0 or units < LEAST_UNITS or not 120.0 <= duration_s < float("inf"):
        raise SimulationError(
            f"seed {seed}, session {session}, units {units}, duration_s {duration_s}: seed and session must be 0 "
            f"or more, with at least {LEAST_UNITS} units and 120 s"
        )
    animal = draw_animal(np.random.default_rng([seed, 0]), units=units, swallowed=0)
    rng = np.random.default_rng([seed, 2, session])
    trains = fire(rng, animal, duration_s)
    frames = int(duration_s * FRAME_RATE)
    calcium = np.stack([_transients(rng, train, frames) for train in trains])
    return _seen(rng, calcium, animal)


def write_simulated_calcium(
    out_dir: Path, *, animals: int, first_seed: int, units: int = 120, duration_s: float = 600.0
) -> list[Path]:
    """Simulate animals first_seed, first_seed + 1, ... and save one calcium_<seed>_0.npz each; returns the paths."""
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(first_seed, first_seed + animals):
        recording = simulate_calcium(seed, units=units, duration_s=duration_s)
        paths.append(out_dir / f"{recording.recording_id}.npz")
        recording.save(paths[-1])
    return paths


def _transients(rng: Rng, train: np.ndarray, frames: int) -> np.ndarray:
    """dF/F (T,) without noise that a spike train in seconds leads to."""
    rise_s, decay_s, amplitude, half = np.exp(rng.normal(np.log([0.12, 0.9, 0.12, 3.0]), [0.2, 0.25, 0.3, 0.2]))
    edges = np.arange(frames + 1) / float(FRAME_RATE)
    steps = int(np.ceil(edges[-1] / STEP_S)) + 1
    spikes = np.bincount((train[train < edges[-1]] / STEP_S).astype(int), minlength=steps)[:steps]
    fast, slow = np.exp(-STEP_S / rise_s), np.exp(-STEP_S / decay_s)
    trace = lfilter([1.0], [1.0, -slow], spikes) - lfilter([1.0], [1.0, -fast], spikes)
    trace = amplitude * trace
    total = np.concatenate([[0.0], np.cumsum(trace / (1 + trace / half))])
    at_edges = np.interp(edges, np.arange(steps + 1) * STEP_S, total)
    return np.asarray(np.diff(at_edges) / np.diff(edges) * STEP_S)


def _seen(rng: Rng, calcium: np.ndarray, animal: Animal) -> Imaged:
    """Fluorescence of cells whose dF/F is `calcium` (U, T): bleached, wandering, mixed with the surround, noisy."""
    units, frames = calcium.shape
    time_s = np.arange(frames) / float(FRAME_RATE)
    resting = rng.lognormal(np.log(400.0), 0.4, (units, 1))
    bleached = 1 - rng.uniform(0.05, 0.2) * (1 - np.exp(-time_s / rng.uniform(300.0, 1200.0)))
    wander = gaussian_filter1d(rng.normal(size=(units, frames)), 60 * float(FRAME_RATE), axis=1, mode="wrap")
    wander = 1 + 0.05 * wander / wander.std()
    surround = 0.5 * calcium.mean(axis=0) + 0.5 * _smoothed_along_depth(calcium, animal)
    neuropil = 250.0 * (1 + surround) * bleached
    pure = resting * (1 + calcium) * wander * bleached + rng.uniform(0.5, 0.9, (units, 1)) * neuropil
    gain = 3.0  # counts per photon: variance of a frame is gain times its mean
    fluorescence = pure + np.sqrt(gain * pure) * rng.normal(size=pure.shape)
    measured = neuropil + np.sqrt(gain * neuropil / 4) * rng.normal(size=neuropil.shape)
    return Imaged(fluorescence.astype(np.float32), measured.astype(np.float32), animal)


def _smoothed_along_depth(calcium: np.ndarray, animal: Animal) -> np.ndarray:
    """The mean of every cell's neighbourhood (U, T), itself left out."""
    depths_um = np.array([cell.depth_um for cell in animal.cells])
    near = np.exp(-0.5 * ((depths_um[:, None] - depths_um) / 60.0) ** 2)
    np.fill_diagonal(near, 0.0)
    return np.asarray(near @ calcium / near.sum(axis=1, keepdims=True))
