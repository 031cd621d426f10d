"""The cells of a simulated network: their place, their constants, their synapses, and the drives that they follow.

Shapes: N cells, S synapses, K channels that drive one cell. Draws depend on each other's order: a change of it is
another simulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offline_training.simulation import network_biology as biology
from offline_training.simulation.network_drive import FEATURES, LOCAL_CHANNELS, Floats, NetworkAnimal, Rng, log_normal

DRIVES_PER_CELL = 13
EXCITATION, FAST_INHIBITION, SLOW_INHIBITION = 0, 1, 2
"""What a spike opens at its targets."""


@dataclass(frozen=True)
class Neurons:
    """Region (N,), class (N,) and height above the tip of the probe (N,)."""

    region: npt.NDArray[np.str_]
    kind: npt.NDArray[np.str_]
    height_um: Floats

    def where(self, region: str, kind: str) -> npt.NDArray[np.int64]:
        """The cells of a class in a region, ascending."""
        return np.nonzero((self.region == region) & (self.kind == kind))[0]

    @property
    def spiny(self) -> npt.NDArray[np.bool_]:
        """Which (N,) are medium spiny neurons: the principal cells of STR, which inhibit."""
        return np.asarray((self.region == "STR") & (self.kind == "E"))

    def __len__(self) -> int:
        return len(self.region)


@dataclass(frozen=True)
class Wiring:
    """Synapses sorted by the cell that they come from: that cell, target, conductance step, delay in steps and whether
    they facilitate, (S,) each."""

    source: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    weight: Floats
    delay: npt.NDArray[np.int64]
    facilitates: npt.NDArray[np.bool_]


def draw_neurons(rng: Rng, animal: NetworkAnimal) -> Neurons:
    """Place the cells of every region; some classes keep to a layer."""
    region: list[str] = []
    kind: list[str] = []
    height_um: list[float] = []
    for name in animal.regions:
        shares = np.array(biology.FRACTION[name]) * np.exp(rng.normal(0, 0.12, 4)) * biology.NEURONS[name]
        low, high = animal.bottom_um[name], animal.top_um[name]
        for each, number in zip(biology.CLASSES, np.round(shares).astype(int).tolist(), strict=True):
            place = rng.random(number)
            if (name, each) == ("VIS", "VIP"):  # superficial
                place = rng.beta(2.2, 1.2, number)
            elif (name, each) == ("VIS", "SST"):  # deep
                place = rng.beta(1.2, 1.8, number)
            elif name == "CA1" and each in ("E", "PV"):  # pyramidal layer
                place = rng.beta(5, 5, number)
            region += [name] * number
            kind += [each] * number
            height_um += list(low + place * (high - low))
    return Neurons(np.array(region), np.array(kind), np.array(height_um))


def draw_parameters(rng: Rng, animal: NetworkAnimal, neurons: Neurons) -> dict[str, Floats]:
    """The constants of every cell (N,) by name, as `network_kernel.Cells` takes them."""
    found = {name: np.zeros(len(neurons)) for name in biology.PARAMETERS}
    for region in animal.regions:
        for kind in biology.CLASSES:
            rows = neurons.where(region, kind)
            base = {"calcium": 0.0} | biology.CELL[kind] | (biology.PRINCIPAL[region] if kind == "E" else {})
            for name in biology.PARAMETERS:
                values = np.full(rows.size, float(base[name]))
                if name in biology.LOG_SD:  # a factor of the class in this animal, and one of the cell
                    values *= log_normal(rng, 0.12) * np.exp(rng.normal(0, biology.LOG_SD[name], rows.size))
                elif name == "calcium":
                    values *= np.exp(rng.normal(0, 0.5, rows.size))
                else:
                    values += rng.normal(0, biology.SD_MV[name], rows.size)
                found[name][rows] = values
    found["noise_mv"] *= animal.gain["noise"]
    found["refractory_ms"] = np.maximum(found["refractory_ms"], 0.8)
    found["reset_mv"] = np.minimum(found["reset_mv"], found["threshold_mv"] + 2.0)
    found["inhibition_mv"] = np.where(neurons.spiny, -66.0, -75.0)
    found["fast_inhibition_ms"] = np.full(len(neurons), 6.0)
    found["slow_inhibition_ms"] = np.full(len(neurons), 12.0)
    return found | _plasticity(rng, neurons) | _background(rng, animal, len(neurons))


def receptors(neurons: Neurons) -> npt.NDArray[np.int64]:
    """What the spikes of every cell open (N,): PV and spiny cells inhibit fast, SST and VIP slowly."""
    inhibition = np.where(neurons.kind == "PV", FAST_INHIBITION, SLOW_INHIBITION)
    found = np.where(neurons.kind == "E", EXCITATION, inhibition).astype(np.int64)
    found[neurons.spiny] = FAST_INHIBITION
    return found


def _plasticity(rng: Rng, neurons: Neurons) -> dict[str, Floats]:
    n, kind = len(neurons), neurons.kind
    depression = np.select([kind == "E", kind == "PV"], [0.25, 0.2], 0.1) * np.exp(rng.normal(0, 0.2, n))
    facilitation = np.where(kind == "E", 0.12, 0.2) * np.exp(rng.normal(0, 0.2, n))
    return {
        "depression": np.minimum(depression, 0.6),
        "depression_ms": np.where(kind == "E", 250.0, 150.0),
        "facilitation": np.minimum(facilitation, 0.5),
        "facilitation_ms": np.full(n, 250.0),
    }


def _background(rng: Rng, animal: NetworkAnimal, n: int) -> dict[str, Floats]:
    """Private slow input, as from cells that the probe does not see: its strength differs by cell, not by class."""
    return {
        "background_mv": 1.8 * animal.gain["noise"] * np.exp(rng.normal(0, 0.45, n)),
        "background_ms": np.exp(rng.normal(np.log(120.0), 0.7, n)),
    }


def draw_wiring(rng: Rng, animal: NetworkAnimal, neurons: Neurons) -> Wiring:
    """Connect the cells within every region, by distance, and project from principal cells to other regions."""
    parts: list[tuple[npt.NDArray[np.generic], ...]] = []
    length_um = rng.uniform(140, 260)
    for region in animal.regions:
        for before in biology.CLASSES:
            for after in biology.CLASSES:
                weight, probability = _coupling(animal, region, before, after)
                if weight <= 0:
                    continue
                rows, columns = neurons.where(region, before), neurons.where(region, after)
                apart_um = np.abs(neurons.height_um[rows][:, None] - neurons.height_um[columns][None, :])
                found = np.nonzero(rng.random(apart_um.shape) < probability * np.exp(-apart_um / (length_um * 1.6)))
                source, target = rows[found[0]], columns[found[1]]
                other = source != target
                facilitates = (before, after) == ("E", "SST")
                parts.append(_synapses(rng, source[other], target[other], weight, (2, 5), facilitates=facilitates))
    for sender, receiver, probability, *weights in biology.PROJECTIONS:
        if sender in animal.regions and receiver in animal.regions:
            rows = neurons.where(sender, "E")
            for after, weight in zip(biology.CLASSES, (*weights, weights[-1]), strict=True):
                columns = neurons.where(receiver, after)
                found = np.nonzero(rng.random((rows.size, columns.size)) < probability)
                source, target = rows[found[0]], columns[found[1]]
                parts.append(_synapses(rng, source, target, weight, (6, 16), facilitates=False))
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(joined[0], kind="stable")
    return Wiring(*(column[order] for column in joined))


def _coupling(animal: NetworkAnimal, region: str, before: str, after: str) -> tuple[float, float]:
    """Conductance step and probability at zero distance between two classes of a region; 0 where there is none."""
    motif, gain = biology.MOTIF[region], animal.gain
    weight, probability = biology.CONDUCTANCE[before][after], biology.PROBABILITY[before][after]
    match before, after:
        case "E", _ if region == "STR":
            return biology.STRIATAL_COLLATERAL if after == "E" else (0.0, 0.0)
        case "E", "E":
            weight *= motif.e_to_e * gain["e_to_e"]
        case "E", _:
            weight *= motif.e_to_interneurons * gain["e_to_interneurons"]
        case "PV", "E":
            weight *= motif.pv_to_e * gain["pv_to_e"]
        case "SST", "E":
            weight *= motif.sst_to_e * gain["sst_to_e"]
        case "SST", "VIP":
            weight *= gain["sst_to_vip"]
        case "VIP", "SST":
            weight *= motif.vip_to_sst * gain["vip_to_sst"]
    return weight, probability


def _synapses(
    rng: Rng,
    source: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    weight: float,
    delays: tuple[int, int],
    *,
    facilitates: bool,
) -> tuple[npt.NDArray[np.generic], ...]:
    """The columns of `Wiring` for some synapses: log-normal weights of this mean, delays in steps from [low, high)."""
    weights = weight * rng.lognormal(-0.18, 0.6, source.size)
    return source, target, weights, rng.integers(*delays, source.size), np.full(source.size, facilitates)


def draw_coupling_to_drives(
    rng: Rng, animal: NetworkAnimal, neurons: Neurons, number: dict[str, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Which channels drive every cell (N, K), by their number, and by how many mV (N, K); unused places weigh 0."""
    which = np.zeros((len(neurons), DRIVES_PER_CELL), np.int64)
    weight = np.zeros((len(neurons), DRIVES_PER_CELL), np.float32)
    for i in range(len(neurons)):
        drives = _drives_of(rng, animal, str(neurons.region[i]), str(neurons.kind[i]), float(neurons.height_um[i]))
        for j, (name, millivolts) in enumerate(drives):
            which[i, j], weight[i, j] = number[name], millivolts
    return which, weight


def _drives_of(rng: Rng, animal: NetworkAnimal, region: str, kind: str, height_um: float) -> list[tuple[str, float]]:
    """The channels that one cell follows, and by how many mV."""
    D, M, gain = biology.DRIVE[region], animal.class_drive[kind], animal.gain

    def strength() -> float:
        """Broad between cells, some hardly follow at all."""
        return float(rng.gamma(1.7, 1 / 1.7))

    # Arousal and running excite VIP cells; others follow them weakly, some upwards, some downwards.
    arousal = M["arousal"] if kind == "VIP" else M["arousal"] * D["arousal"] / 0.5
    found = [("arousal", arousal * gain["arousal"] * (strength() if kind == "VIP" else rng.normal(0.6, 1.4)))]
    sign = strength() if kind == "VIP" else rng.normal(0.5, 1.6)
    found.append(("running", M["running"] * gain["arousal"] * sign))
    found.append(("top_down", M["top_down"] * strength()))
    found.append((f"{region}.fast", D["fast"] * M["fast"] * gain["fast"] * strength()))
    found.append((f"{region}.slow", D["slow"] * M["slow"] * gain["slow"] * strength()))

    # Every cell has its own phase of the rhythm, around that of its class.
    phases = biology.THETA_PHASE_DEG if region in biology.RHYTHMIC_BY_THETA else biology.OTHER_PHASE_DEG
    phase = np.deg2rad(phases[kind]) + rng.normal(0, 0.6)
    amplitude = D["rhythm"] * M["rhythm"] * gain["rhythm"] * strength()
    found.append((f"{region}.cosine", amplitude * np.cos(phase)))
    found.append((f"{region}.sine", amplitude * np.sin(phase)))
    found.append((f"{region}.event", D["event"] * M["event"] * gain["event"] * strength()))

    # Neighbours in depth share local drive: the two knots beside the cell, with constant variance in between.
    low, high = animal.bottom_um[region], animal.top_um[region]
    place = (height_um - low) / (high - low) * (LOCAL_CHANNELS - 1)
    knot = int(min(LOCAL_CHANNELS - 2, np.floor(place)))
    share = place - knot
    amplitude = D["local"] * M["local"] * gain["local"] * strength()
    found.append((f"{region}.local{knot}", amplitude * np.sqrt(1 - share)))
    found.append((f"{region}.local{knot + 1}", amplitude * np.sqrt(share)))

    # Principal cells follow one feature of the stimulus, interneurons mostly the sum of all.
    if region in biology.STIMULATED:
        amplitude = D["stimulus"] * M["stimulus"] * gain["stimulus"] * strength()
        own, summed = (1.0, 0.25) if kind == "E" else (0.2, 0.9)
        found.append((f"{region}.feature{rng.integers(FEATURES)}", own * amplitude))
        found.append((f"{region}.stimulus", summed * amplitude))
    return found
