"""Labelled populations of a simulated network: a hard test of mechanism, one animal a session.

About 800 to 1700 conductance-coupled adaptive exponential integrate-and-fire cells of two to four regions along a
probe, with E, PV, SST and VIP motifs, delays and short-term plasticity, driven by arousal, stimuli, rhythms and events;
then a spike sorter's errors. Rates are set by group and overlap, so single-cell statistics separate the classes only in
part; coupling to the others separates them further. Figures on it predict no figures on real recordings.

A session depends on (seed, index, duration) alone, on one kind of processor (see `network_kernel`).
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nuclr_stream.recordings.recording import Recording
from offline_training.simulation import network_biology as biology
from offline_training.simulation.animals import SimulationError
from offline_training.simulation.network_cells import (
    Neurons,
    draw_coupling_to_drives,
    draw_neurons,
    draw_parameters,
    draw_wiring,
    receptors,
)
from offline_training.simulation.network_drive import (
    ROW_MS,
    NetworkAnimal,
    Rng,
    draw_channels,
    draw_network_animal,
    log_normal,
    network_rng,
)
from offline_training.simulation.network_sorting import SAMPLE_RATE_HZ, SortedUnits, sort_network

RESERVED_SEEDS_FROM = 10_000
"""Seeds from here on are kept for the final comparison of methods: nothing may be trained or tuned on them."""
STEP_MS = 0.5
CHUNK_S = 10.0
CHUNK_SPIKES = 2_000_000
TUNING_ROUNDS, TUNING_PIECES, TUNING_PIECE_MS = 9, 3, 2000.0
LEAST_S = 5.0


def simulate_network(seed: int, index: int = 0, *, duration_s: float = 300.0) -> Recording:
    """One recording of the simulated animal (seed, index).

    Returns a recording at 30 kHz named network_<seed>_<index>, which is its subject too, with the unit columns
    brain_region, cell_type (empty for medium spiny neurons: they are none of the four types), depth_um and electrode.
    Units come in random order. 300 s take about 20 s of one core.

    Raises SimulationError for a negative seed or index, a seed that is reserved, or less than 5 s.
    """
    return as_recording(simulate_session(seed, index, duration_s), seed=seed, index=index, duration_s=duration_s)


def write_networks(out_dir: Path, *, animals: int, seed: int, duration_s: float = 300.0) -> list[Path]:
    """Simulate the animals (seed, 0), (seed, 1), ... and save one network_<seed>_<index>.npz each; returns the paths.

    `out_dir` is created; files of the same name are replaced. Raises SimulationError as `simulate_network` does.
    """
    paths = []
    for index in range(animals):
        recording = simulate_network(seed, index, duration_s=duration_s)
        out_dir.mkdir(parents=True, exist_ok=True)
        paths.append(out_dir / f"{recording.recording_id}.npz")
        recording.save(paths[-1])
    return paths


def simulate_session(seed: int, index: int, duration_s: float) -> SortedUnits:
    """The spikes behind `simulate_network`, units ordered from the tip of the probe upwards."""
    _require_possible(seed, index, duration_s)
    rng = network_rng(seed, index)
    rows = int(duration_s * 1000 / ROW_MS) + 4
    animal = draw_network_animal(rng)
    channels = draw_channels(rng, animal, rows)
    neurons = draw_neurons(rng, animal)
    network = _Network(rng, animal, neurons, channels.stacked(), channels.number)
    network.settle(rng, animal, rows)
    step, cell = network.record(duration_s)
    time_s = (step + rng.random(step.size)) * STEP_MS / 1000  # anywhere within its step
    return sort_network(rng, neurons, time_s, cell, duration_s)


def as_recording(units: SortedUnits, *, seed: int, index: int, duration_s: float) -> Recording:
    """The session in our layout, units shuffled: their order must not reveal where they lie."""
    number = len(units.region)
    order = np.random.default_rng([seed, index, number]).permutation(number)
    row = np.empty(number, np.int32)
    row[order] = np.arange(number)
    samples = np.rint(units.spike_s * SAMPLE_RATE_HZ).astype(np.int64)
    rows = row[units.spike_unit]
    ascending = np.lexsort((rows, samples))
    recording_id = f"network_{seed}_{index:03d}"
    return Recording(
        recording_id=recording_id,
        subject_id=recording_id,
        sample_rate=Fraction(SAMPLE_RATE_HZ),
        num_samples=int(duration_s * SAMPLE_RATE_HZ),
        spike_samples=samples[ascending],
        spike_units=rows[ascending],
        unit_ids=np.array([f"{recording_id}:{i}" for i in range(number)]),
        units={
            "brain_region": units.region[order],
            "cell_type": np.where(units.kind == "MSN", "", units.kind)[order],
            "depth_um": units.depth_um[order].astype(np.float32),
            "electrode": units.electrode[order],
        },
    )


class _Network:
    """Cells, synapses and their state in the arrays that the compiled kernel takes; `step` counts from its birth."""

    def __init__(
        self,
        rng: Rng,
        animal: NetworkAnimal,
        neurons: Neurons,
        channels: npt.NDArray[np.float32],
        number: dict[str, int],
    ) -> None:
        # numba is part of the train extra and takes a second to import: only who simulates pays for it.
        from offline_training.simulation import network_kernel as kernel

        self._run = kernel.run_steps
        self._neurons = neurons
        self.step = 0
        n = len(neurons)
        parameters = draw_parameters(rng, animal, neurons)
        self._cells = kernel.Cells(**parameters, receptor=receptors(neurons))
        wiring = draw_wiring(rng, animal, neurons)
        self._synapses = kernel.Synapses(
            first=np.searchsorted(wiring.source, np.arange(n + 1)).astype(np.int64),
            target=wiring.target.astype(np.int32),
            weight=wiring.weight.astype(np.float32),
            delay=wiring.delay.astype(np.uint8),
            facilitates=wiring.facilitates.astype(np.uint8),
        )
        self._drives = kernel.Drives(channels, *draw_coupling_to_drives(rng, animal, neurons, number))
        voltage = self._cells.rest_mv + rng.random(n) * 8
        random = np.array([rng.integers(1, 2**62)], np.uint64)
        bias = self._cells.threshold_mv - self._cells.rest_mv - 11.0 + rng.normal(0, 1.5, n) * animal.gain["spread"]
        self._state = kernel.State(
            bias_mv=bias,
            voltage=voltage,
            **{name: np.zeros(n) for name in kernel.ZERO_AT_FIRST},
            resources=np.ones(n),
            use=self._cells.facilitation.copy(),
            last_step=np.full(n, -100_000, np.int64),
            ring=np.zeros((kernel.RING_SLOTS, 3, n), np.float32),
            random=random,
        )
        self._out = np.zeros(CHUNK_SPIKES, np.int64), np.zeros(CHUNK_SPIKES, np.int32)

    def settle(self, rng: Rng, animal: NetworkAnimal, rows: int) -> None:
        """Shift the bias of every group (region and class) until its mean rate is near the animal's set point.

        Nine rounds of three pieces of 2 s from anywhere in the session; later rounds take smaller steps.
        """
        groups = []
        for region in animal.regions:
            for kind, rate_hz in zip(biology.CLASSES, biology.RATE_HZ[region], strict=True):
                set_point = rate_hz * animal.gain["rate"] * log_normal(rng, 0.22)
                groups.append((self._neurons.where(region, kind), set_point))
        starts = rng.integers(0, rows - int(TUNING_PIECE_MS / ROW_MS) - 4, (TUNING_ROUNDS, TUNING_PIECES))
        for round_, pieces in enumerate(starts.tolist()):
            spikes = np.zeros(len(self._neurons))
            for row in pieces:
                _, cell = self._advance(int(TUNING_PIECE_MS / STEP_MS), row)
                spikes += np.bincount(cell, minlength=len(self._neurons))
            rate_of_learning = 2.5 if round_ < 5 else 1.2
            for members, set_point in groups:
                rate_hz = max(spikes[members].mean() / (TUNING_PIECES * TUNING_PIECE_MS / 1000), 0.02)
                self._state.bias_mv[members] += np.clip(rate_of_learning * np.log(set_point / rate_hz), -3, 3)

    def record(self, duration_s: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Step since the beginning of the session, and cell, of every spike in it."""
        began, total, chunk = self.step, int(duration_s * 1000 / STEP_MS), int(CHUNK_S * 1000 / STEP_MS)
        found = []
        for done in range(0, total, chunk):
            step, cell = self._advance(min(chunk, total - done), int(done * STEP_MS / ROW_MS))
            found.append((step - began, cell))
        steps, cells = zip(*found, strict=True)
        return np.concatenate(steps), np.concatenate(cells)

    def _advance(self, steps: int, row: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Run so many steps from row `row` of the drive channels; step and cell of every spike."""
        parts = self._cells, self._synapses, self._drives, self._state
        spikes = self._run(self.step, steps, STEP_MS, row, int(ROW_MS / STEP_MS), *parts, *self._out)
        if spikes == CHUNK_SPIKES:
            raise SimulationError("the network fired without end; choose another seed")
        self.step += steps
        return self._out[0][:spikes].copy(), self._out[1][:spikes].copy()


def _require_possible(seed: int, index: int, duration_s: float) -> None:
    if seed >= RESERVED_SEEDS_FROM:
        raise SimulationError(
            f"seed {seed}: from {RESERVED_SEEDS_FROM} on seeds of the network are reserved for judging, and nothing "
            "may be trained on them; choose a smaller one"
        )
    if seed < 0 or index < 0:
        raise SimulationError(f"seed {seed}, index {index}: both must be 0 or more")
    if not LEAST_S <= duration_s < float("inf"):
        raise SimulationError(f"duration_s {duration_s}: must be at least {LEAST_S:g} seconds")
