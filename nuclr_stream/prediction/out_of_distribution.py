"""Is a unit like those that training saw? Distances of what was gathered of it, against limits for its exposure.

A distance is that of Mahalanobis to the nearest class centre, with the covariance within classes. Limits are such that
all but a small share of the units of animals that nothing had seen lie within; they hang on the exposure n.
A population is judged as a whole too, by its synchrony: each unit alone may pass where the units together fire as no
population of the training did, independently of each other for instance.
Shapes: U units, F features, C centres, K knots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import BundleError
from nuclr_stream.features.accumulator import FeatureSet, FeatureSnapshot
from nuclr_stream.features.exposure import knot_shares
from nuclr_stream.features.spike_statistics import SpikeStatistics
from nuclr_stream.features.unit_rows import Float64Array
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array

KINDS: tuple[FeatureSet, ...] = (
    *("embedding", "embedding_neighbourhood"),
    *("statistics", "statistics_neighbourhood", "coupling_neighbourhood"),
)
"""Feature sets that are compared, where the bundle knows them: with neighbours, a whole population may be far away."""

PARTS = ("centres", "whiten", "knots", "limits")
LEAST_POPULATION = 10
"""Units below which their mean says more about which of them were recorded than about the population."""
_MOST_POPULATION_RATIO = 10.0


@dataclass(frozen=True)
class KnownUnits:
    """What training knew of one feature set: centres (C, F), whitening matrix (F, F), limits (K,) at knots (K,)."""

    centres: Float64Array
    whiten: Float64Array
    knots: Float64Array
    limits: Float64Array

    def ratio(self, features: Float32Array, n: Float32Array) -> Float32Array:
        """Return the distance (U,) of features (U, F) to the nearest centre over the limit for exposure n (U,)."""
        limit = knot_shares(n, self.knots) @ self.limits
        ratio: Float32Array = (self.distance(features) / limit).astype(np.float32)
        return ratio

    def distance(self, features: Float32Array) -> Float64Array:
        """Return the distance (U,) of features (U, F) to the nearest centre."""
        there = features.astype(np.float64) @ self.whiten
        centres = self.centres @ self.whiten
        squared = np.square(there).sum(axis=1)[:, None] - 2 * there @ centres.T + np.square(centres).sum(axis=1)
        nearest: Float64Array = np.sqrt(np.maximum(squared.min(axis=1), 0.0))
        return nearest


@dataclass(frozen=True)
class KnownPopulations:
    """The synchrony of the populations of training: lowest and highest (K,) that pass, at knots of exposure (K,)."""

    knots: Float64Array
    low: Float64Array
    high: Float64Array

    def ratio(self, snapshot: FeatureSnapshot) -> float:
        """Return how far the population of a snapshot is outside of the range, above 1 there, 0 if it cannot be said.

        Above the range it is a ratio to the upper end; below it, 1 and the share of the lower end that is missing.
        """
        found = synchrony(snapshot)
        if found is None:
            return 0.0
        shares = knot_shares(np.array([found[1]], dtype=np.float32), self.knots)[0]
        low, high = float(shares @ self.low), float(shares @ self.high)
        below = 1 + (low - found[0]) / max(abs(low), 1e-9) if found[0] < low else 0.0
        return min(max(below, found[0] / high), _MOST_POPULATION_RATIO)


def synchrony(snapshot: FeatureSnapshot) -> tuple[float, float] | None:
    """Return the mean coupling over units and lags, and the median exposure of the units; None for fewer than
    LEAST_POPULATION units. It is about 0 for units that fire independently, whatever their rates."""
    has = snapshot.has.get("coupling")
    if has is None or has.sum() < LEAST_POPULATION:
        return None
    exposure = np.median(snapshot.exposure_of({"coupling"})[has])
    return float(snapshot.features["coupling"][has].mean(dtype=np.float64)), float(exposure)


@dataclass(frozen=True)
class OutOfDistributionScore:
    """Of each unit: its largest distance as a ratio to the limit (U,), and what is odd about it (U,) each."""

    ratio: Float32Array
    embedding: BoolArray
    statistics: BoolArray
    rate: BoolArray
    unsorted: BoolArray
    population: BoolArray

    @classmethod
    def nothing(cls, units: int) -> OutOfDistributionScore:
        """Return the score of units (U,) with nothing odd about them."""
        no = np.zeros(units, dtype=np.bool_)
        return cls(np.zeros(units, dtype=np.float32), no, no, no, no, no)

    @property
    def out_of_distribution(self) -> BoolArray:
        """Units (U,) with anything odd about them."""
        return self.embedding | self.statistics | self.rate | self.unsorted | self.population


@dataclass(frozen=True)
class OutOfDistribution:
    """What a bundle knows of the units that it was trained on: `sets` by name of the feature set, the range of their
    mean rates in Hz, the largest share of intervals below 1 ms, and their `populations`, if anything is known."""

    sets: Mapping[FeatureSet, KnownUnits]
    rate_hz: tuple[float, float]
    short_intervals: float
    populations: KnownPopulations | None

    def judge(
        self, snapshot: FeatureSnapshot, statistics: SpikeStatistics, index: Int64Array
    ) -> OutOfDistributionScore:
        """Compare the units `index` (U,), of whom `snapshot` is known, with the training.

        Rates and short intervals count only where counting noise of two deviations does not explain it.
        """
        # each unit by each of its feature sets
        ratios = np.zeros((len(KINDS), len(index)), dtype=np.float32)
        for row, name in enumerate(KINDS):
            if name in self.sets and name in snapshot.has:
                ratio = self.sets[name].ratio(snapshot.features[name], snapshot.exposure_of({name}))
                ratios[row] = np.where(snapshot.has[name], ratio, 0)
        # the population, for the units that are part of its synchrony
        population = np.zeros(len(index), dtype=np.float32)
        if self.populations is not None and "coupling" in snapshot.has:
            population[snapshot.has["coupling"]] = self.populations.ratio(snapshot)
        # rate and refractory period, with room for counting noise
        seconds, spikes = np.maximum(statistics.seconds(index), 1e-9), statistics.spikes(index)
        intervals = statistics.intervals(index)
        noise = 2 * np.sqrt(spikes) + 3
        low, high = self.rate_hz
        known = statistics.seconds(index) > 0
        rate = known & (((spikes + noise) / seconds < low) | ((spikes - noise) / seconds > high))
        short = intervals[:, 0] - 2 * np.sqrt(intervals[:, 0]) - 1
        unsorted = short > self.short_intervals * intervals.sum(axis=1)
        far = ratios > 1
        embedding: BoolArray = np.any(far[:2], axis=0)
        others: BoolArray = np.any(far[2:], axis=0)
        largest = np.maximum(ratios.max(axis=0), population)
        return OutOfDistributionScore(largest, embedding, others, rate, unsorted, population > 1)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Plain arrays, as out_of_distribution.npz of a bundle holds them."""
        named = {"rate_hz": np.array(self.rate_hz), "short_intervals": np.array(self.short_intervals)}
        for name, known in self.sets.items():
            named |= {f"{name}.{part}": getattr(known, part) for part in PARTS}
        if self.populations is not None:
            named |= {f"populations.{part}": value for part, value in vars(self.populations).items()}
        return named

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> OutOfDistribution:
        """Read what `arrays` wrote. Raises BundleError naming what is missing or does not fit."""
        try:
            sets = {name: _known(arrays, name) for name in KINDS if f"{name}.centres" in arrays}
            populations = _known_populations(arrays) if "populations.knots" in arrays else None
            rates, short = _finite(arrays["rate_hz"]), _finite(arrays["short_intervals"])
            if rates.shape != (2,) or short.shape != ():
                raise ValueError(f"rate_hz {rates.shape} and short_intervals {short.shape}")
            return cls(sets, (float(rates[0]), float(rates[1])), float(short), populations)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise BundleError(f"out_of_distribution.npz: {error}; export the bundle again") from error


def _known(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> KnownUnits:
    """Read one feature set. Raises KeyError or ValueError for what is missing or does not fit."""
    known = KnownUnits(*(_finite(arrays[f"{name}.{part}"]) for part in PARTS))
    features, kept = known.whiten.shape
    if known.centres.shape != (max(len(known.centres), 1), features) or kept > features:
        raise ValueError(f"{name}: centres {known.centres.shape} and whiten {known.whiten.shape}")
    if known.knots.shape != known.limits.shape or known.knots.shape != (max(known.knots.size, 1),):
        raise ValueError(f"{name}: knots {known.knots.shape} and limits {known.limits.shape}")
    if known.knots[0] < 1 or (np.diff(known.knots) <= 0).any() or not (known.limits > 0).all():
        raise ValueError(f"{name}: knots must ascend from at least 1, limits be positive")
    return known


def _known_populations(arrays: Mapping[str, npt.NDArray[Any]]) -> KnownPopulations:
    """Read what is known of populations. Raises KeyError or ValueError for what is missing or does not fit."""
    knots, low, high = (_finite(arrays[f"populations.{part}"]) for part in ("knots", "low", "high"))
    if not knots.shape == low.shape == high.shape == (max(knots.size, 1),):
        raise ValueError(f"populations: knots {knots.shape}, low {low.shape} and high {high.shape}")
    if knots[0] < 1 or (np.diff(knots) <= 0).any() or not (high > np.maximum(low, 0)).all():
        raise ValueError("populations: knots must ascend from at least 1, high be above low and 0")
    return KnownPopulations(knots, low, high)


def _finite(values: npt.NDArray[Any]) -> Float64Array:
    exact = np.asarray(values, dtype=np.float64)
    if not np.isfinite(exact).all():
        raise ValueError("NaN or infinite values")
    return exact
