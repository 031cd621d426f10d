"""Animals, brain states, regional drive and cells of the simulation: everything before the spikes.

Mechanism, front to back:

* an *animal* draws the parameters of its four regions and of its cells once; its sessions share them;
* *brain states* come and go in stretches of tens of seconds and set how deeply drive modulates every cell and how
  excitable each cell type is, so neighbouring windows resemble each other more than distant ones;
* every region has a *drive* of its own kind in every animal: slow up and down states (CTX), a 7.5 Hz rhythm (HPF),
  sparse population bursts (BLA), a 2.3 Hz breathing rhythm (PIR); its pace and depth differ between animals;
* every cell follows its region's drive through its *type*: E weakly and with adaptation, PV at once and strongly,
  SST delayed, low-passed and facilitating, VIP inverted (it inhibits SST, so the two alternate);
* every cell keeps its own rate, gain, lag and slow wandering.

Filters act in the frequency domain and are circular: the first half second depends on the end of the recording.
"""

from dataclasses import dataclass, replace

import numpy as np

Rng = np.random.Generator

STEP_S = 0.005  # drive and intensity grid; spike times are continuous within a step
REGIONS = ("BLA", "CTX", "HPF", "PIR")
REGIONS_FROM_TIP = ("PIR", "BLA", "HPF", "CTX")
CELL_TYPES = ("E", "PV", "SST", "VIP")
INTERNEURON_FRACTION = 0.17  # of a region, for each of PV, SST, VIP
LEAST_PER_TYPE = 6
STATE_DEPTH = np.array([0.8, 1.0, 1.2])  # aroused, quiet, drowsy: modulation depth of the drive
STATE_EXCITABILITY = {  # shift of the log rate in the same three states
    "E": np.array([0.1, 0.0, -0.1]),
    "PV": np.array([0.1, 0.0, -0.1]),
    "SST": np.array([-0.25, 0.0, 0.15]),
    "VIP": np.array([0.3, 0.0, -0.2]),
}
STATE_DWELL_S = 25.0


@dataclass(frozen=True)
class TypeParameters:
    """What makes a cell type: medians; every cell scatters around them.

    Attributes:
        rate_hz: median rate; `rate_sigma` is the same for all types, so rates overlap.
        gain: change of the log rate per standard deviation of the drive (negative: inhibited by it).
        lag_s, lowpass_s: delay and time constant between the drive and the cell.
        adaptation, facilitation: fraction of slow drive subtracted; growth of the gain while drive stays high.
        regularity: shape of the gamma intervals in operational time (1 Poisson, above regular, below clustered).
        burst_probability, burst_extra: chance that an event is a burst and the mean number of spikes added.
        burst_interval_s: mean interval within a burst; refractory_s: absolute refractory period.
    """

    rate_hz: float
    gain: float
    lag_s: float
    lowpass_s: float
    adaptation: float
    facilitation: float
    regularity: float
    burst_probability: float
    burst_extra: float
    burst_interval_s: float
    refractory_s: float
    rate_sigma: float = 0.55


TYPE_PARAMETERS = {
    "E": TypeParameters(6.0, 0.6, 0.0, 0.005, 0.4, 0.0, 1.2, 0.45, 1.6, 0.006, 0.0025),
    "PV": TypeParameters(8.0, 1.1, 0.003, 0.005, 0.0, 0.0, 5.0, 0.0, 0.0, 0.006, 0.0015),
    "SST": TypeParameters(7.0, 0.9, 0.03, 0.05, 0.0, 0.4, 2.0, 0.35, 1.5, 0.03, 0.003),
    "VIP": TypeParameters(7.0, -0.9, 0.005, 0.02, 0.0, 0.0, 0.45, 0.0, 0.0, 0.02, 0.003),
}


@dataclass(frozen=True)
class Cell:
    """One neuron: its labels, its place and its own variant of its type's parameters."""

    region: str
    cell_type: str
    depth_um: float
    x_um: float
    parameters: TypeParameters
    wander: float  # standard deviation of its private slow log-rate fluctuation


@dataclass(frozen=True)
class RegionDynamics:
    """One region of one animal: `pace` scales the region's characteristic frequency, `depth` its modulation."""

    name: str
    pace: float
    depth: float
    rate_scale: float


@dataclass(frozen=True)
class Animal:
    """Everything that all sessions of a subject share; `edges_um` is where a region begins and ends, from the tip."""

    regions: dict[str, RegionDynamics]
    cells: tuple[Cell, ...]
    edges_um: dict[str, tuple[float, float]]


def draw_animal(rng: Rng, *, units: int, swallowed: int) -> Animal:
    """Draw an animal with `units` cells, in random order, followed by `swallowed` cells that only merges will show."""
    regions = {name: _draw_region(rng, name) for name in REGIONS}
    edges_um = _region_edges_um(rng, units)
    places = [(region, cell_type) for region, cell_type in _composition(rng, units)]
    order = rng.permutation(units)
    places = [places[i] for i in order] + [(REGIONS[i], "E") for i in rng.integers(0, len(REGIONS), swallowed)]
    cells = tuple(_draw_cell(rng, regions[region], cell_type, edges_um[region]) for region, cell_type in places)
    return Animal(regions, cells, edges_um)


def _draw_region(rng: Rng, name: str) -> RegionDynamics:
    pace, depth, rate_scale = np.exp(rng.normal(0.0, [0.08, 0.08, 0.15]))
    return RegionDynamics(name, float(pace), float(depth), float(rate_scale))


def _composition(rng: Rng, units: int) -> list[tuple[str, str]]:
    """(region, cell type) of every cell: E in the majority, at least 6 of each type per region from 96 units on."""
    in_region = np.full(len(REGIONS), units // len(REGIONS))
    in_region[rng.permutation(len(REGIONS))[: units % len(REGIONS)]] += 1
    cells: list[tuple[str, str]] = []
    for region, count in zip(REGIONS, in_region.tolist(), strict=True):
        least = min(LEAST_PER_TYPE, count // len(CELL_TYPES))
        interneurons = [max(least, round(INTERNEURON_FRACTION * count))] * 3
        numbers = [count - sum(interneurons), *interneurons]
        cells += [(region, t) for t, n in zip(CELL_TYPES, numbers, strict=True) for _ in range(n)]
    return cells


def _region_edges_um(rng: Rng, units: int) -> dict[str, tuple[float, float]]:
    thickness = 20.0 * units / len(REGIONS) * rng.uniform(0.8, 1.2, len(REGIONS))
    tops = 100.0 + np.cumsum(thickness)
    bottoms = tops - thickness
    return {name: (float(bottoms[i]), float(tops[i])) for i, name in enumerate(REGIONS_FROM_TIP)}


def _draw_cell(rng: Rng, region: RegionDynamics, cell_type: str, edges_um: tuple[float, float]) -> Cell:
    overlap_um = 40.0  # borders are not planes: neighbours reach into each other's layer
    typical = TYPE_PARAMETERS[cell_type]
    scatter = np.exp(rng.normal(0.0, 1.0, 5) * [typical.rate_sigma, 0.35, 0.3, 0.35, 0.35])
    parameters = replace(
        typical,
        rate_hz=float(np.clip(typical.rate_hz * region.rate_scale * scatter[0], 0.7, 35.0)),
        gain=float(typical.gain * scatter[1]),
        lag_s=float(typical.lag_s + rng.uniform(-0.004, 0.008)),
        lowpass_s=float(typical.lowpass_s * scatter[2]),
        regularity=float(typical.regularity * scatter[3]),
        burst_probability=float(min(typical.burst_probability * scatter[4], 0.9)),
    )
    depth_um = float(rng.uniform(edges_um[0] - overlap_um, edges_um[1] + overlap_um))
    x_um, wander = rng.uniform([0.0, 0.1], [60.0, 0.25])
    return Cell(region.name, cell_type, depth_um, float(x_um), parameters, float(wander))


def brain_states(rng: Rng, steps: int) -> np.ndarray:
    """Occupancy (3, steps) of the aroused, quiet and drowsy states: 0..1, summing to 1, with 1 s transitions."""
    dwell = np.maximum(1, rng.gamma(2.0, STATE_DWELL_S / 2 / STEP_S, 2 + int(4 * steps * STEP_S / STATE_DWELL_S)))
    states = np.cumsum(rng.integers(1, 3, len(dwell))) % 3  # never twice the same
    sequence = np.repeat(states, dwell.astype(int))
    sequence = np.resize(sequence, steps)
    width = round(1.0 / STEP_S)
    padded = np.pad(np.eye(3)[sequence].T, ((0, 0), (width // 2, width - width // 2 - 1)), mode="edge")
    cumulative = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1)
    return (cumulative[:, width:] - cumulative[:, :-width]) / width


def regional_drive(rng: Rng, region: RegionDynamics, steps: int) -> np.ndarray:
    """The shared drive (steps,) of one region, zero mean, unit variance."""
    drive = _DRIVES[region.name](rng, region.pace, steps)
    return _standardise(drive + 0.25 * _standardise(_noise(rng, steps, tau_s=0.1, frequency_hz=0.0)))


def _up_down(rng: Rng, pace: float, steps: int) -> np.ndarray:
    cycles = 8 + int(steps * STEP_S * pace)
    dwell_s = np.stack([rng.gamma(3.0, 1.6 / 3, cycles), rng.gamma(3.0, 1.2 / 3, cycles)], axis=1).ravel() / pace
    levels = np.tile([1.0, -1.0], cycles)
    square = np.resize(np.repeat(levels, np.maximum(1, dwell_s / STEP_S).astype(int)), steps)
    return lowpass(square, tau_s=0.02, lag_s=0.0)


def _theta(rng: Rng, pace: float, steps: int) -> np.ndarray:
    return _standardise(_noise(rng, steps, tau_s=0.6, frequency_hz=7.5 * pace))


def _population_bursts(rng: Rng, pace: float, steps: int) -> np.ndarray:
    shots = rng.poisson(0.7 * pace * STEP_S, steps) * rng.gamma(4.0, 0.25, steps)
    return _standardise(lowpass(lowpass(shots, tau_s=0.03, lag_s=0.0), tau_s=0.03, lag_s=0.0))


def _breathing(rng: Rng, pace: float, steps: int) -> np.ndarray:
    jitter = _standardise(_noise(rng, steps, tau_s=0.5, frequency_hz=0.0))
    phase = np.cumsum(2.3 * pace * (1 + 0.15 * jitter)) * STEP_S
    return _standardise(np.exp(1.2 * np.cos(2 * np.pi * phase)))


_DRIVES = {"BLA": _population_bursts, "CTX": _up_down, "HPF": _theta, "PIR": _breathing}


def filtered_drive(cell: Cell, drive: np.ndarray) -> np.ndarray:
    """The drive (steps,) as it reaches the cell through the delay, filter, adaptation and facilitation of its type."""
    p = cell.parameters
    reaching = lowpass(drive, tau_s=p.lowpass_s, lag_s=p.lag_s)
    if p.adaptation:
        reaching = reaching - p.adaptation * lowpass(reaching, tau_s=0.3, lag_s=0.0)
    if p.facilitation:
        reaching = reaching * (1 + p.facilitation * lowpass(np.maximum(reaching, 0.0), tau_s=0.2, lag_s=0.0))
    return _standardise(reaching)


def event_intensity(rng: Rng, cell: Cell, *, drive: np.ndarray, depth: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Intensity (steps,) in events per second; a burst is one event, so its mean is rate / spikes per event.

    `drive` is `filtered_drive`, `depth` (steps,) the modulation depth now, `states` the occupancies of `brain_states`.
    """
    p = cell.parameters
    wander = _standardise(_noise(rng, len(drive), tau_s=6.0, frequency_hz=0.0))
    log_rate = p.gain * depth * drive + STATE_EXCITABILITY[cell.cell_type] @ states + cell.wander * wander
    rate = np.exp(np.minimum(log_rate, 4.0))
    return np.asarray(rate * (p.rate_hz / (1 + p.burst_probability * p.burst_extra) / rate.mean()))


def lowpass(signal: np.ndarray, *, tau_s: float, lag_s: float) -> np.ndarray:
    """First-order low-pass with a pure delay, circular, same shape as `signal` (steps,)."""
    omega = 2j * np.pi * np.fft.rfftfreq(len(signal), STEP_S)
    return np.fft.irfft(np.fft.rfft(signal) * np.exp(-omega * lag_s) / (1 + omega * tau_s), len(signal))


def _noise(rng: Rng, steps: int, *, tau_s: float, frequency_hz: float) -> np.ndarray:
    """Stationary Gaussian noise of correlation time `tau_s` around `frequency_hz` (0: Ornstein-Uhlenbeck)."""
    frequency = np.fft.fftfreq(steps, STEP_S)
    white = rng.normal(size=steps) + 1j * rng.normal(size=steps)
    return np.fft.ifft(white / (1 / tau_s + 2j * np.pi * (frequency - frequency_hz))).real


def _standardise(signal: np.ndarray) -> np.ndarray:
    # A short recording may hold no burst at all: its drive is then zero, not 0 / 0.
    return np.asarray((signal - signal.mean()) / max(float(signal.std()), 1e-9))
