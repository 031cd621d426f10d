"""What a probe and a spike sorter make of a network's spikes: which units there are, and their errors.

Missed spikes (more of them late in bursts, with a slow drift), spikes of neighbours, double detections, and units that
come or go. Shapes: N cells, U units, S spikes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offline_training.simulation.network_cells import Neurons
from offline_training.simulation.network_drive import Floats, Rng

SAMPLE_RATE_HZ = 30_000
NEIGHBOUR_UM = 80.0
LEAST_RATE_HZ = 0.12
FADE_S = 12.0
"""How long a unit takes to appear or vanish."""


@dataclass(frozen=True)
class SortedUnits:
    """Spike times (S,) in s, ascending, and their units (S,); region, class ("MSN" apart from "E"), height above the
    tip and electrode of every unit (U,), from the tip upwards."""

    spike_s: Floats
    spike_unit: npt.NDArray[np.int32]
    region: npt.NDArray[np.str_]
    kind: npt.NDArray[np.str_]
    depth_um: Floats
    electrode: npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Trains:
    """True spikes of every cell: times (S,) in s sorted by cell and time; cell i has [first[i], first[i + 1])."""

    time_s: Floats
    first: npt.NDArray[np.int64]
    rate_hz: Floats

    def of(self, cell: int) -> Floats:
        return self.time_s[self.first[cell] : self.first[cell + 1]]


def sort_network(
    rng: Rng, neurons: Neurons, time_s: Floats, cell: npt.NDArray[np.int32], duration_s: float
) -> SortedUnits:
    """Record 80 to 300 of the cells that fire, as a sorter would report them. `time_s` and `cell` (S,) in any order."""
    order = np.lexsort((time_s, cell))
    first = np.searchsorted(cell[order], np.arange(len(neurons) + 1))
    trains = _Trains(time_s[order], first, np.diff(first) / duration_s)
    firing = np.nonzero(trains.rate_hz > LEAST_RATE_HZ)[0]
    units = min(int(rng.integers(80, 301)), int(0.6 * firing.size))
    chosen = np.sort(rng.choice(firing, units, replace=False))
    chosen = chosen[np.argsort(neurons.height_um[chosen], kind="stable")]
    missed = rng.uniform(0.02, 0.15, units)
    foreign = rng.uniform(0, 0.08, units) ** 1.3 * 0.08**-0.3
    present_s = np.tile([0.0, duration_s], (units, 1))
    drift = rng.normal(0, 0.05, units)
    for k in np.nonzero(rng.random(units) < 0.1)[0].tolist():  # these come late or go early
        held_s = rng.uniform(0.35, 0.8) * duration_s
        present_s[k] = (duration_s - held_s, duration_s) if rng.random() < 0.5 else (0, held_s)
    found = []
    for k, i in enumerate(chosen.tolist()):
        lost = _lost(trains.of(i), missed[k], drift[k], present_s[k], duration_s)
        kept = trains.of(i)[rng.random(lost.size) > lost]
        near = np.abs(neurons.height_um - neurons.height_um[i]) < NEIGHBOUR_UM
        near &= (np.arange(len(neurons)) != i) & (trains.rate_hz > 0.1)
        parts = [kept, *_foreign(rng, trains, np.nonzero(near)[0], kept, foreign[k], present_s[k])]
        doubles = rng.binomial(kept.size, 0.002)  # double detections break the refractory period
        if doubles:
            parts.append(rng.choice(kept, doubles, replace=False) + rng.uniform(0.0003, 0.001, doubles))
        train = np.sort(np.clip(np.concatenate(parts), 0, duration_s - 1e-6))
        found.append(np.floor(train * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)
    return _assemble(rng, neurons, chosen, found)


def _lost(train: Floats, missed: float, drift: float, present_s: Floats, duration_s: float) -> Floats:
    """The chance that each spike of a train is missed."""
    lost = np.full(train.size, missed) + drift * (train / duration_s - 0.5)
    lost[np.diff(train, prepend=-1e9) < 0.008] += 0.08  # spikes are smaller late in bursts
    since = train - present_s[0] if present_s[0] > 0 else np.inf
    until = present_s[1] - train if present_s[1] < duration_s else np.inf
    edge = np.minimum(since, until)
    fading = np.maximum(lost, 0.6 * (1 - edge / FADE_S))
    return np.where(edge < 0, 1.0, np.where(edge < FADE_S, fading, lost))


def _foreign(
    rng: Rng, trains: _Trains, near: npt.NDArray[np.int64], kept: Floats, share: float, present_s: Floats
) -> list[Floats]:
    """Spikes that are not the unit's: of one or two neighbours, and noise."""
    number = rng.binomial(kept.size, share) if kept.size else 0
    if not number or not near.size:
        return []
    others = rng.choice(near, min(2, near.size), replace=False)
    pool = np.concatenate([trains.of(other) for other in others])
    pool = pool[(pool >= present_s[0]) & (pool <= present_s[1])]
    of_others = min(int(0.7 * number), pool.size)
    return [rng.choice(pool, of_others, replace=False), rng.uniform(present_s[0], present_s[1], number - of_others)]


def _assemble(rng: Rng, neurons: Neurons, chosen: npt.NDArray[np.int64], trains: list[Floats]) -> SortedUnits:
    time_s = np.concatenate(trains)
    unit = np.repeat(np.arange(len(trains), dtype=np.int32), [len(train) for train in trains])
    order = np.argsort(time_s, kind="stable")
    depth_um = np.clip(neurons.height_um[chosen] + rng.normal(0, 8, chosen.size), 0, 3830)
    electrode = 2 * (depth_um / 20).astype(int) + rng.integers(0, 2, chosen.size)
    return SortedUnits(
        spike_s=time_s[order],
        spike_unit=unit[order],
        region=neurons.region[chosen],
        kind=np.where(neurons.spiny[chosen], "MSN", neurons.kind[chosen]),
        depth_um=np.round(depth_um, 1),
        electrode=np.clip(electrode, 0, 383).astype(np.int32),
    )
