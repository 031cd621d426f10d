"""Everything that the windows of one probe add up to, and what predictors make of it: one definition, live and offline.

Feature sets, by name, each with one row per unit:
embedding            mean of the window embeddings (U, D)
embedding_neighbourhood    the same with company (U, 4 D), see `company`
statistics           intervals, rate and variability of the unit alone (U, 20), see `features.SpikeStatistics`
statistics_neighbourhood   the same with company (U, 80)
Traces have no statistics. A second of data counts once, however many windows it is part of, and only as part of a
window that was embedded or would have been but for the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nuclr_stream.features.isi import Int32Array
from nuclr_stream.features.mean_embedding import MeanEmbedding, effective_sample_size, exposure_windows
from nuclr_stream.features.neighbourhood import NEIGHBOURHOOD_PARTS, Coactivity, nearest_units, with_neighbourhood
from nuclr_stream.features.spike_statistics import STATISTICS, SpikeStatistics
from nuclr_stream.features.unit_rows import Float64Array
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array, WindowSpec

FeatureSet = Literal["embedding", "embedding_neighbourhood", "statistics", "statistics_neighbourhood"]


def feature_count(name: FeatureSet, dim: int) -> int:
    """How many features a set has, with embeddings of `dim`."""
    own = dim if name.startswith("embedding") else STATISTICS
    return NEIGHBOURHOOD_PARTS * own if name.endswith("neighbourhood") else own


@dataclass(frozen=True)
class FeatureSnapshot:
    """What was gathered of the units asked for (U,): exposure n, the n that counts, the time observed in windows, the
    scatter of the window embeddings, and feature sets (U, F) by name.

    A unit has a row of zeros in a set for which there is nothing of it; `has` (U,) says by set where there is.
    """

    n: Float32Array
    effective_sample_size: Float32Array
    observed_exposure: Float32Array
    scatter: Float64Array
    features: Mapping[FeatureSet, Float32Array]
    has: Mapping[FeatureSet, BoolArray]

    def exposure_for(self, *predictors: FeatureSet) -> Float32Array:
        """MeanEmbedding (U,) that the word of these predictors rests on."""
        return (
            self.observed_exposure
            if all(name.startswith("statistics") for name in predictors)
            else self.effective_sample_size
        )


class FeatureAccumulator:
    """Running sums over the accepted windows of one probe, by unit index."""

    def __init__(
        self,
        spec: WindowSpec,
        dim: int,
        *,
        typical_scatter: float | None = None,
        half_life_s: float | None = None,
    ) -> None:
        self.spec = spec
        self._typical_scatter = typical_scatter
        hop_s = spec.hop_s
        self.exposure = MeanEmbedding(dim, half_life_windows=None if half_life_s is None else half_life_s / hop_s)
        self.statistics = SpikeStatistics(spec)
        self._coactivity = Coactivity()
        self._counted_to: int | None = None

    def begin_epoch(self) -> None:
        """Bins are counted anew from here on; what was gathered stays."""
        self._counted_to = None

    def add_activity(
        self, index: Int64Array, counts: Float32Array, *, end_bin: int, eligible: BoolArray, intervals: Int32Array
    ) -> None:
        """Add a window's counts (U, T) and intervals (U, 17) of the units `index` (U,) that are `eligible` (U,)."""
        patch, start = self.spec.bins_per_patch, end_bin - self.spec.bins
        first = -(-max(start, start if self._counted_to is None else self._counted_to) // patch) * patch
        last = end_bin // patch * patch
        chosen = index[eligible]
        if last > first and len(chosen):
            fresh = counts[eligible, first - start : last - start]
            self._coactivity.add(chosen, fresh.reshape(len(chosen), -1, patch).sum(axis=2, dtype=np.float64))
            if self.spec.input_kind == "spikes":
                self.statistics.add_counts(chosen, fresh)
            self._counted_to = last
        if self.spec.input_kind == "spikes":
            self.statistics.add_intervals(chosen, intervals[eligible])

    def add_embeddings(self, index: Int64Array, embeddings: Float32Array, *, missing: float = 0.0) -> None:
        """Add one window's embeddings (U, D) of the units `index` (U,); `missing` of its data makes it weigh less."""
        self.exposure.add(index, embeddings, weight=1.0 - missing)

    def snapshot(self, index: Int64Array) -> FeatureSnapshot:
        """Return what has been gathered of the units `index` (U,), ascending; they alone are one another's company."""
        n = exposure_windows(self.exposure.weight(index), hop_s=self.spec.hop_s, window_s=self.spec.window_s)
        scatter = self.exposure.scatter(index)
        counting = effective_sample_size(n, scatter, self._typical_scatter)
        features: dict[FeatureSet, Float32Array] = {"embedding": self.exposure.mean(index)}
        has: dict[FeatureSet, BoolArray] = {"embedding": n > 0}
        if self.spec.input_kind == "spikes":
            features["statistics"] = self.statistics.features(index)
            has["statistics"] = self.statistics.spikes(index) > 0
        members = np.flatnonzero(n > 0)
        nearest = nearest_units(self._coactivity.correlation(index[members]))
        for name, own in list(features.items()):
            company: FeatureSet = "embedding_neighbourhood" if name == "embedding" else "statistics_neighbourhood"
            joined = np.zeros((len(index), NEIGHBOURHOOD_PARTS * own.shape[1]), dtype=np.float32)
            if len(members):
                joined[members] = with_neighbourhood(own[members], nearest)
            features[company] = joined
            has[company] = (n > 0) & (len(members) > 1)
        observed_exposure = (self.statistics.seconds(index) / self.spec.window_s).astype(np.float32)
        return FeatureSnapshot(n, counting, observed_exposure, scatter, features, has)

    def merge(self, source: int, target: int) -> None:
        """What unit `source` gathered goes to unit `target`; for correlations that stays what it was."""
        self.exposure.merge(source, target)
        self.statistics.merge(source, target)
        self._coactivity.merge(source, target)

    def forget(self, index: int) -> None:
        """Drop what a unit has gathered."""
        self.exposure.forget(index)
        self.statistics.forget(index)
        self._coactivity.forget(index)

    def reindex(self, index_of: Mapping[int, int]) -> None:
        """Keep only the units named in `index_of` (old index -> new index), under their new indices."""
        self.exposure.reindex(index_of)
        self.statistics.reindex(index_of)
        self._coactivity.reindex(index_of)
