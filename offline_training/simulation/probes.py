"""Probes whose borders between regions are known, and predictions of single units on them.

Two kinds: predictions of a bundle on simulated animals, with `borders_of_animal` or `borders_of_network`, and probes
drawn without any spikes (`draw_probe`), in which how often and how jointly units err is set by numbers.
Shapes: U units, C classes, S observation times, K regions from the tip up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nuclr_stream.placement.regions import DepthUnits
from nuclr_stream.windows.binning import BoolArray
from offline_training.simulation.animals import MERGED_FRACTION
from offline_training.simulation.biology import REGIONS_FROM_TIP, draw_animal
from offline_training.simulation.network_drive import draw_network_animal, network_rng

Float64Array = npt.NDArray[np.float64]
REGIONS = tuple(f"R{i}" for i in range(8))
THINNEST_UM = 200.0
JITTER_UM = 20.0  # borders are not planes
SHARED_BY_REGION, SHARED_BY_NEIGHBOURS, NEIGHBOUR_UM = 0.1, 0.2, 80.0
SEPARATION = {10.0: 1.5, 60.0: 2.5}  # of the classes, in standard deviations of a unit, by seconds observed
CALLED_FROM = 0.65


@dataclass(frozen=True, kw_only=True)
class SimulatedProbe:
    """One shank: units at `depth_um` (U,) in `region` (U,), regions `order` (K,) with `borders_um` (K - 1,) between.

    `probabilities` (S, U, C) over `classes` under `prior` (C,), `exposure` (S, U), `abstained` (S, U) after each of
    `seconds` (S,).
    """

    seed: int
    classes: npt.NDArray[np.str_]
    prior: Float64Array
    order: npt.NDArray[np.str_]
    borders_um: Float64Array
    depth_um: Float64Array
    region: npt.NDArray[np.str_]
    seconds: Float64Array
    probabilities: Float64Array
    exposure: Float64Array
    abstained: BoolArray

    def units(self, time: int) -> DepthUnits:
        """Return the units as placement takes them, after `seconds[time]`."""
        return DepthUnits(
            classes=tuple(self.classes.tolist()),
            prior=self.prior,
            probabilities=self.probabilities[time].astype(np.float64),
            depth_um=self.depth_um.astype(np.float64),
            shank=np.zeros(len(self.depth_um), dtype=np.int64),
            exposure=self.exposure[time].astype(np.float64),
            abstained=self.abstained[time],
        )

    def region_at(self, depth_um: Float64Array) -> npt.NDArray[np.str_]:
        """Return the region at every depth."""
        return self.order[np.searchsorted(self.borders_um, depth_um)]

    def save(self, path: Path) -> None:
        """Write everything as .npz."""
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> SimulatedProbe:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return cls(seed=int(arrays.pop("seed")), **arrays)


def borders_of_animal(seed: int, units: int) -> Float64Array:
    """The borders (K - 1,) between REGIONS_FROM_TIP in the simulated animal `seed` with so many units."""
    animal = draw_animal(np.random.default_rng([seed, 0]), units=units, swallowed=round(MERGED_FRACTION * units))
    return np.array([animal.edges_um[name][1] for name in REGIONS_FROM_TIP[:-1]])


def borders_of_network(seed: int, index: int) -> tuple[tuple[str, ...], Float64Array]:
    """Return the regions of the network animal (seed, index) from the tip up, and the borders (K - 1,) between them."""
    animal = draw_network_animal(network_rng(seed, index))
    order = animal.regions[::-1]
    return order, np.array([animal.top_um[name] for name in order[:-1]])


def draw_probe(seed: int, *, seconds: Sequence[float] = tuple(SEPARATION)) -> SimulatedProbe:
    """A probe of 3 to 6 regions, 200 um thick at least, a unit every 12 to 40 um, drawn without spikes.

    The prediction of a unit is the posterior of a Gaussian with unit variance around its region, so each unit by itself
    is calibrated; a tenth of the variance is shared by all units of a region and a fifth by neighbours, at all times.
    """
    rng = np.random.default_rng([seed, 2])
    count = int(rng.integers(3, 7))
    order = rng.permutation(len(REGIONS))[:count]
    edges = np.concatenate([[0.0], np.cumsum(THINNEST_UM + rng.gamma(2.0, 200.0, count))])
    units = int(edges[-1] / rng.uniform(12.0, 40.0))
    depth_um = np.sort(rng.uniform(0.0, edges[-1], units))
    region = order[np.searchsorted(edges[1:-1], depth_um + rng.normal(0.0, JITTER_UM, units))]
    errors = _shared_errors(rng, depth_um, region)
    probabilities = np.stack([_softmax(SEPARATION[s], region, errors) for s in seconds])
    names = np.array(REGIONS)
    return SimulatedProbe(
        seed=seed,
        classes=names,
        prior=np.full(len(names), 1 / len(names)),
        order=names[order],
        borders_um=edges[1:-1],
        depth_um=depth_um,
        region=names[region],
        seconds=np.array(seconds),
        probabilities=probabilities,
        exposure=np.repeat(np.array(seconds)[:, None] / 10, units, axis=1),
        abstained=probabilities.max(axis=2) < CALLED_FROM,
    )


def _shared_errors(rng: np.random.Generator, depth_um: Float64Array, region: npt.NDArray[np.int64]) -> Float64Array:
    """Errors (U, C) of unit variance: of the region, of the neighbourhood, and of the unit alone."""
    units, classes = len(depth_um), len(REGIONS)
    of_region = rng.normal(size=(classes, classes))[region]
    alike = np.exp(-np.abs(depth_um[:, None] - depth_um) / NEIGHBOUR_UM)
    near = np.linalg.cholesky(alike + 1e-6 * np.eye(units)) @ rng.normal(size=(units, classes))
    own = rng.normal(size=(units, classes))
    parts = np.sqrt([SHARED_BY_REGION, SHARED_BY_NEIGHBOURS, 1 - SHARED_BY_REGION - SHARED_BY_NEIGHBOURS])
    return np.asarray(parts[0] * of_region + parts[1] * near + parts[2] * own)


def _softmax(separation: float, region: npt.NDArray[np.int64], errors: Float64Array) -> Float64Array:
    logits = separation * (separation * np.eye(len(REGIONS))[region] + errors)
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(share / share.sum(axis=1, keepdims=True))
