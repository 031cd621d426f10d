"""Labelled populations of E, PV, SST and VIP cells in four regions on one probe, from a mechanistic simulation.

`biology` gives every cell an intensity; here intensities become spikes (gamma renewal in operational time,
bursts, refractoriness) and spikes become what a sorter reports (missed spikes that drift, contamination, merges).
Mean rates overlap between all classes, so rate alone separates them badly; timing and coupling to the population
separate them well.

Seeds are subjects. TRAINING_SEEDS, EVALUATION_SEEDS and DEMO_SEED are disjoint and were fixed before any training.
"""

from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.recordings.recording import Recording
from offline_training.simulation.biology import (
    REGIONS,
    STATE_DEPTH,
    STEP_S,
    Animal,
    Rng,
    TypeParameters,
    brain_states,
    draw_animal,
    event_intensity,
    filtered_drive,
    regional_drive,
)

TRAINING_SEEDS = range(1000, 9000)
EVALUATION_SEEDS = range(9000, 10000)
DEMO_SEED = 424242
SAMPLE_RATE_HZ = 30_000
LEAST_UNITS = 16  # one of each type in each region
MERGED_FRACTION = 0.04
NEIGHBOUR_UM = 60.0


class SimulationError(NuclrStreamError):
    """A population that cannot be simulated."""


def simulate(seed: int, *, units: int = 120, duration_s: float = 600.0, session: int = 0) -> Recording:
    """One recording of the simulated animal `seed`.

    Args:
        seed: the animal; the same seed gives the same cells and regional parameters in every session.
        units: reported units, at least 16; from 96 on every region holds at least 6 units of every type.
        duration_s: length in seconds, at least 1.
        session: 0, 1, ...: same animal and cells, new activity and sorting errors.

    Returns:
        A recording at 30 kHz named sim_<seed>_<session>, with the unit columns brain_region, cell_type, depth_um,
        x_um, shank, channel. Units come in random order.

    Raises:
        SimulationError: for a negative seed or session, too few units or too short a recording.
    """
    _require_possible(seed=seed, units=units, duration_s=duration_s, session=session)
    animal = draw_animal(np.random.default_rng([seed, 0]), units=units, swallowed=round(MERGED_FRACTION * units))
    rng = np.random.default_rng([seed, 1, session])
    sorted_trains = sort_with_errors(rng, animal, fire(rng, animal, duration_s), units=units, duration_s=duration_s)
    return _assemble(animal, sorted_trains, seed=seed, session=session, duration_s=duration_s)


def simulate_subject(seed: int, *, recordings: int = 1, units: int = 120, duration_s: float = 600.0) -> list[Recording]:
    """`recordings` sessions of the animal `seed`; a fresh animal is a fresh seed."""
    return [simulate(seed, units=units, duration_s=duration_s, session=s) for s in range(recordings)]


def write_simulated(
    out_dir: Path,
    *,
    animals: int,
    first_seed: int = TRAINING_SEEDS.start,
    recordings: int = 1,
    units: int = 120,
    duration_s: float = 600.0,
) -> list[Path]:
    """Simulate animals first_seed, first_seed + 1, ... and save one sim_<seed>_<session>.npz per recording.

    Returns the paths written, in order. `out_dir` is created; files of the same name are replaced.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(first_seed, first_seed + animals):
        for recording in simulate_subject(seed, recordings=recordings, units=units, duration_s=duration_s):
            paths.append(out_dir / f"{recording.recording_id}.npz")
            recording.save(paths[-1])
    return paths


def _require_possible(*, seed: int, units: int, duration_s: float, session: int) -> None:
    if seed < 0 or session < 0:
        raise SimulationError(f"seed {seed}, session {session}: both must be 0 or more")
    if units < LEAST_UNITS:
        raise SimulationError(f"units {units}: at least {LEAST_UNITS} are needed (4 cell types in 4 regions)")
    if not 1.0 <= duration_s < float("inf"):
        raise SimulationError(f"duration_s {duration_s}: must be at least 1 second")


def fire(rng: Rng, animal: Animal, duration_s: float) -> list[np.ndarray]:
    """True spike times in seconds of every cell, ascending, all within [0, duration_s)."""
    steps = int(np.ceil(duration_s / STEP_S))
    states = brain_states(rng, steps)
    depth = STATE_DEPTH @ states
    drives = {name: regional_drive(rng, animal.regions[name], steps) for name in REGIONS}
    trains = []
    for cell in animal.cells:
        drive = filtered_drive(cell, drives[cell.region])
        own_depth = depth * animal.regions[cell.region].depth
        intensity = event_intensity(rng, cell, drive=drive, depth=own_depth, states=states)
        train = spike_train(rng, cell.parameters, intensity)
        trains.append(train[train < duration_s])
    return trains


def spike_train(rng: Rng, parameters: TypeParameters, intensity_hz: np.ndarray) -> np.ndarray:
    """Spike times in seconds: gamma intervals in operational time, bursts, absolute refractoriness.

    `intensity_hz` (steps,) counts events per second on the STEP_S grid; after a burst the cell pauses.
    """
    elapsed = np.concatenate([[0.0], np.cumsum(intensity_hz) * STEP_S])  # operational time: one event per unit
    k = parameters.regularity
    candidates = int(elapsed[-1] + 10 * np.sqrt(elapsed[-1] / min(k, 1.0)) + 20)
    extra = np.zeros(candidates, dtype=int)
    if parameters.burst_probability:
        bursts = rng.random(candidates) < parameters.burst_probability
        extra = bursts * rng.geometric(1 / parameters.burst_extra, candidates)
    pause = 0.1 * np.concatenate([[0], extra[:-1]])
    operational = np.cumsum(rng.gamma(k, 1 / k, candidates) * (1 - pause.mean()) + pause) - rng.random() / k
    inside = (operational >= 0) & (operational < elapsed[-1])
    events = np.interp(operational[inside], elapsed, np.arange(len(elapsed)) * STEP_S)
    followers = _burst_spikes(rng, parameters, events, extra[inside])
    return refract(np.sort(np.concatenate([events, followers])), parameters.refractory_s)


def _burst_spikes(rng: Rng, parameters: TypeParameters, events: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """The spikes that follow an event within its burst: the j-th comes j jittered intervals later."""
    position = np.arange(extra.sum()) - np.repeat(np.cumsum(extra) - extra, extra) + 1
    late_s = position * parameters.burst_interval_s * rng.uniform(0.8, 1.2, len(position))
    return np.asarray(np.repeat(events, extra) + late_s)


def refract(times: np.ndarray, refractory_s: float) -> np.ndarray:
    """Ascending `times` without those closer than `refractory_s` to the spike before."""
    while len(times) and (close := np.diff(times) < refractory_s).any():
        first_of_run = close & ~np.concatenate([[False], close[:-1]])  # dropping one may free the next
        times = np.delete(times, np.flatnonzero(first_of_run) + 1)
    return times


def sort_with_errors(
    rng: Rng, animal: Animal, trains: list[np.ndarray], *, units: int, duration_s: float
) -> list[np.ndarray]:
    """What a sorter would report for the first `units` cells; the remaining cells only appear merged into them.

    Missed spikes (2-15 %, slowly drifting), 0-6 % of spikes taken from neighbours, and merges, in which a neighbour
    contributes less than a third of the unit's spikes, so the unit's labels stay those of the majority.
    """
    depths_um = np.array([cell.depth_um for cell in animal.cells])
    reported = [_miss(rng, train, duration_s) for train in trains[:units]]
    for i in range(units):
        near = np.flatnonzero((np.abs(depths_um - depths_um[i]) < NEIGHBOUR_UM) & (np.arange(len(trains)) != i))
        if len(near):
            foreign = trains[rng.choice(near)]
            reported[i] = _add(rng, reported[i], foreign, rng.uniform(0.0, 0.06))
    for j in range(units, len(trains)):
        host = int(np.argmin(np.abs(depths_um[:units] - depths_um[j])))
        reported[host] = _add(rng, reported[host], trains[j], 0.3)
    return reported


def _miss(rng: Rng, train: np.ndarray, duration_s: float) -> np.ndarray:
    mean = rng.uniform(0.02, 0.15)
    drift = 0.7 * np.sin(2 * np.pi * (train / max(duration_s, 300.0) + rng.random()))
    return train[rng.random(len(train)) > mean * (1 + drift)]


def _add(rng: Rng, train: np.ndarray, foreign: np.ndarray, fraction: float) -> np.ndarray:
    """`train` with at most `fraction` of its number of spikes added from `foreign`; the result is ascending."""
    number = min(int(fraction * len(train)), len(foreign))
    return np.sort(np.concatenate([train, rng.choice(foreign, number, replace=False)]))


def _assemble(animal: Animal, trains: list[np.ndarray], *, seed: int, session: int, duration_s: float) -> Recording:
    num_samples = int(duration_s * SAMPLE_RATE_HZ)
    samples = np.concatenate([(train * SAMPLE_RATE_HZ).astype(np.int64) for train in trains])
    rows = np.repeat(np.arange(len(trains), dtype=np.int32), [len(train) for train in trains])
    order = np.argsort(samples, kind="stable")
    order = order[samples[order] < num_samples]
    cells = animal.cells[: len(trains)]
    recording_id = f"sim_{seed:06d}_{session}"
    return Recording(
        recording_id=recording_id,
        subject_id=f"sim_{seed:06d}",
        session_date=(date(2020, 1, 1) + timedelta(days=session)).isoformat(),
        sample_rate=Fraction(SAMPLE_RATE_HZ),
        num_samples=num_samples,
        spike_samples=samples[order],
        spike_units=rows[order],
        unit_ids=np.array([f"{recording_id}:{row}" for row in range(len(cells))]),
        units=unit_columns(animal, len(cells)),
    )


def unit_columns(animal: Animal, units: int) -> dict[str, np.ndarray]:
    """Columns of the unit table for the first `units` cells: labels, and places as a probe would give them."""
    cells = animal.cells[:units]
    depth_um = np.round(np.array([c.depth_um for c in cells], dtype=np.float32))
    x_um = np.round(np.array([c.x_um for c in cells], dtype=np.float32))
    return {
        "brain_region": np.array([c.region for c in cells]),
        "cell_type": np.array([c.cell_type for c in cells]),
        "depth_um": depth_um,
        "x_um": x_um,
        "shank": np.zeros(units, dtype=np.int32),
        "channel": (2 * (depth_um // 20) + (x_um > 30)).astype(np.int32),  # two sites in a row every 20 um
    }
