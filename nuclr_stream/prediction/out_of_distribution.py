"""Is a unit like those that training saw? Distances of what was gathered of it, against limits for its exposure.

A distance is that of Mahalanobis to the nearest class centre, with the covariance within classes. Limits are such that
all but a small share of the units of animals that nothing had seen lie within; they hang on the exposure n.
A population is judged as a whole too, by the mean features of its units: each unit alone may pass where all of them
together are shifted as no recording of the training was, as those of a network without any correlation are.
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

OF_POPULATIONS: tuple[FeatureSet, ...] = ("embedding", "statistics", "coupling")
"""Feature sets whose mean over the units of a population is compared with those of the recordings of training."""
PARTS = ("centres", "whiten", "knots", "limits")
LEAST_POPULATION = 10
"""Units below which their mean says more about which of them were recorded than about the population."""


@dataclass(frozen=True)
class KnownUnits:
    """What training knew of one feature set, of units or of means over populations: centres (C, F), whitening matrix
    (F, F), limits (K,) at knots (K,)."""

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
    mean rates in Hz, the largest share of intervals below 1 ms, and means over `populations` by name."""

    sets: Mapping[FeatureSet, KnownUnits]
    rate_hz: tuple[float, float]
    short_intervals: float
    populations: Mapping[FeatureSet, KnownUnits]

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
        population = self._populations(snapshot)
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

    def _populations(self, snapshot: FeatureSnapshot) -> Float32Array:
        """The largest distance (U,) of the populations that a unit belongs to, as a ratio to its limit."""
        largest = np.zeros(len(snapshot.exposure), dtype=np.float32)
        for name, known in self.populations.items():
            if name in snapshot.has and (mean := population_mean(snapshot, name)) is not None:
                has = snapshot.has[name]
                largest[has] = np.maximum(largest[has], known.ratio(*mean)[0])
        return largest

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Plain arrays, as out_of_distribution.npz of a bundle holds them."""
        named = {"rate_hz": np.array(self.rate_hz), "short_intervals": np.array(self.short_intervals)}
        for name, known in self.sets.items():
            named |= {f"{name}.{part}": getattr(known, part) for part in PARTS}
        for name, known in self.populations.items():
            named |= {f"population.{name}.{part}": getattr(known, part) for part in PARTS}
        return named

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> OutOfDistribution:
        """Read what `arrays` wrote. Raises BundleError naming what is missing or does not fit."""
        try:
            sets = {name: _known(arrays, name) for name in KINDS if f"{name}.centres" in arrays}
            populations = {
                name: _known(arrays, f"population.{name}")
                for name in OF_POPULATIONS
                if f"population.{name}.centres" in arrays
            }
            rates, short = _finite(arrays["rate_hz"]), _finite(arrays["short_intervals"])
            if rates.shape != (2,) or short.shape != ():
                raise ValueError(f"rate_hz {rates.shape} and short_intervals {short.shape}")
            return cls(sets, (float(rates[0]), float(rates[1])), float(short), populations)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise BundleError(f"out_of_distribution.npz: {error}; export the bundle again") from error


def population_mean(snapshot: FeatureSnapshot, name: FeatureSet) -> tuple[Float32Array, Float32Array] | None:
    """Return the mean (1, F) of a feature set over the units that have it, and their median exposure (1,); None for
    fewer than LEAST_POPULATION units."""
    has = snapshot.has[name]
    if has.sum() < LEAST_POPULATION:
        return None
    mean: Float32Array = snapshot.features[name][has].mean(axis=0, dtype=np.float64)[None].astype(np.float32)
    exposure: Float32Array = np.median(snapshot.exposure_of({name})[has])[None].astype(np.float32)
    return mean, exposure


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


def _finite(values: npt.NDArray[Any]) -> Float64Array:
    exact = np.asarray(values, dtype=np.float64)
    if not np.isfinite(exact).all():
        raise ValueError("NaN or infinite values")
    return exact
