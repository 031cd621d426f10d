"""Everything that the windows of one probe add up to, as the feature sets that predictors read, live and offline.

Feature sets, by name, each with one row per unit:

| set | features |
| --- | --- |
| embedding | mean of the window embeddings (U, D) |
| statistics | intervals, rate and variability of the unit alone (U, 20), see `spike_statistics` |
| coupling | rate of the rest of the population around the unit's spikes (U, 21), see `coupling` |
| embedding_neighbourhood, statistics_neighbourhood, coupling_neighbourhood | the same beside the mean over the unit's
most correlated neighbours and the mean and spread over the population (U, 4 F), see `neighbourhood` |

Traces have embeddings only. A second of data counts once, however many windows it is part of, and only as part of a
window that was embedded or would have been but for the encoder.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nuclr_stream.features.coupling import COUPLING, Coupling
from nuclr_stream.features.exposure import exposure_windows
from nuclr_stream.features.isi import Int32Array
from nuclr_stream.features.mean_embedding import MeanEmbedding
from nuclr_stream.features.neighbourhood import NEIGHBOURHOOD_PARTS, Coactivity, nearest_units, with_neighbourhood
from nuclr_stream.features.spike_statistics import STATISTICS, SpikeStatistics
from nuclr_stream.windows.binning import BoolArray, Float32Array, InputKind, Int64Array, WindowSpec

FeatureSet = Literal[
    "embedding",
    "statistics",
    "coupling",
    "embedding_neighbourhood",
    "statistics_neighbourhood",
    "coupling_neighbourhood",
]
SPIKE_SETS: tuple[FeatureSet, ...] = (
    *("embedding", "statistics", "coupling"),
    *("embedding_neighbourhood", "statistics_neighbourhood", "coupling_neighbourhood"),
)
TRACE_SETS: tuple[FeatureSet, ...] = ("embedding", "embedding_neighbourhood")
ALONE: FeatureSet = "statistics"
"""The one set that looks at a single unit only, whatever the population: neither encoder nor other units enter it."""
_NEIGHBOURHOOD: dict[FeatureSet, FeatureSet] = {
    "embedding": "embedding_neighbourhood",
    "statistics": "statistics_neighbourhood",
    "coupling": "coupling_neighbourhood",
}


def feature_sets(input_kind: InputKind) -> tuple[FeatureSet, ...]:
    """Return the sets that there are for a kind of input."""
    return SPIKE_SETS if input_kind == "spikes" else TRACE_SETS


def feature_count(name: FeatureSet, dim: int) -> int:
    """Return how many features a set has, with embeddings of `dim`."""
    own = {"embedding": dim, "statistics": STATISTICS, "coupling": COUPLING}[name.removesuffix("_neighbourhood")]
    return NEIGHBOURHOOD_PARTS * own if name.endswith("neighbourhood") else own


@dataclass(frozen=True)
class FeatureSnapshot:
    """What is known of the units asked for (U,), and feature sets (U, F) by name.

    `exposure` is the number of non-overlapping windows behind the mean embedding, `observed` the time for which the
    unit's spikes were counted, in windows. A unit has a row of zeros in a set for which there is nothing of it; `has`
    (U,) says by set where there is.
    """

    exposure: Float32Array
    observed: Float32Array
    features: Mapping[FeatureSet, Float32Array]
    has: Mapping[FeatureSet, BoolArray]

    def exposure_of(self, sets: Collection[FeatureSet]) -> Float32Array:
        """Return the exposure (U,) that a prediction from these sets rests on."""
        # A pool with the embedding is as good as the embedding is known, and that comes later than the statistics.
        return self.exposure if any(name.startswith("embedding") for name in sets) else self.observed


class FeatureAccumulator:
    """Running sums over the accepted windows of one probe, by unit index."""

    def __init__(self, spec: WindowSpec, dim: int, *, half_life_s: float | None = None) -> None:
        self.spec = spec
        half_life_windows = None if half_life_s is None else half_life_s / spec.hop_s
        self.embedding = MeanEmbedding(dim, half_life_windows=half_life_windows)
        self.statistics = SpikeStatistics(spec)
        self.coupling = Coupling()
        self._coactivity = Coactivity()
        self._counted_to: int | None = None

    def begin_epoch(self) -> None:
        """Bins are counted anew from here on; what was gathered stays."""
        self._counted_to = None

    def add_activity(
        self,
        index: Int64Array,
        counts: Float32Array,
        *,
        end_bin: int,
        eligible: BoolArray,
        intervals: Int32Array,
        coupling: Int64Array,
    ) -> None:
        """Add a window of the units `index` (U,) that are `eligible` (U,).

        Args:
            counts: (U, T) of the window that ends at `end_bin`; only patches that no window before held are added.
            intervals: (U, 17) since the window before, see `isi.Intervals`.
            coupling: (U, 54) since the window before, see `coupling.CouplingCounts`.
        """
        # Windows overlap: new are the patches that no accepted window held before. Whole ones, because coactivity and
        # the variability at 1 s are defined per patch.
        patch, start = self.spec.bins_per_patch, end_bin - self.spec.bins
        first = -(-max(start, start if self._counted_to is None else self._counted_to) // patch) * patch
        last = end_bin // patch * patch
        # Units that joined during the window are left out: their silence before they existed would count as a low rate.
        chosen = index[eligible]
        spikes = self.spec.input_kind == "spikes"
        if last > first and len(chosen):
            fresh = counts[eligible, first - start : last - start]
            # Sums are float64 throughout: float32 stops growing by one at 2**24, which hours of a busy probe exceed.
            self._coactivity.add(chosen, fresh.reshape(len(chosen), -1, patch).sum(axis=2, dtype=np.float64))
            if spikes:
                self.statistics.add_counts(chosen, fresh)
            self._counted_to = last
        if spikes:
            self.statistics.add_intervals(chosen, intervals[eligible])
            self.coupling.add(chosen, coupling[eligible])

    def add_embeddings(self, index: Int64Array, embeddings: Float32Array, *, missing: float = 0.0) -> None:
        """Add one window's embeddings (U, D) of the units `index` (U,); `missing` of its data makes it weigh less."""
        self.embedding.add(index, embeddings, weight=1.0 - missing)

    def snapshot(self, index: Int64Array) -> FeatureSnapshot:
        """Return what is known of the units `index` (U,), ascending; neighbours are looked for among them alone."""
        exposure = exposure_windows(self.embedding.weight(index), hop_s=self.spec.hop_s, window_s=self.spec.window_s)
        observed = (self.statistics.seconds(index) / self.spec.window_s).astype(np.float32)
        # A set is "had" only with something in it: an all-zero row would be read by its predictor as a real, odd unit.
        features: dict[FeatureSet, Float32Array] = {"embedding": self.embedding.mean(index)}
        has: dict[FeatureSet, BoolArray] = {"embedding": exposure > 0}
        if self.spec.input_kind == "spikes":
            features |= {"statistics": self.statistics.features(index), "coupling": self.coupling.features(index)}
            has |= {"statistics": self.statistics.spikes(index) > 0, "coupling": self.coupling.spikes(index) > 0}
        # a unit that was never embedded says nothing about the population
        members = np.flatnonzero(exposure > 0)
        nearest = nearest_units(self._coactivity.correlation(index[members]))
        for name, own in list(features.items()):
            joined = np.zeros((len(index), NEIGHBOURHOOD_PARTS * own.shape[1]), dtype=np.float32)
            if len(members):
                joined[members] = with_neighbourhood(own[members], nearest)
            features[_NEIGHBOURHOOD[name]] = joined
            has[_NEIGHBOURHOOD[name]] = has[name] & (exposure > 0) & (len(members) > 1)
        return FeatureSnapshot(exposure, observed, features, has)

    def merge(self, source: int, target: int) -> None:
        """Add what unit `source` gathered to unit `target`, whose correlations stay what they were.

        `source` is a neighbour of others until it is forgotten, which the caller does for many units at once.
        """
        # Coactivity is not merged: correlations of a sum of two trains do not follow from those of its parts.
        self.embedding.merge(source, target)
        self.statistics.merge(source, target)
        self.coupling.merge(source, target)

    def forget(self, indices: Collection[int]) -> None:
        """Drop what units have gathered, all in one pass."""
        self.embedding.forget(indices)
        self.statistics.forget(indices)
        self.coupling.forget(indices)
        self._coactivity.forget(indices)

    def reindex(self, index_of: Mapping[int, int]) -> None:
        """Keep only the units named in `index_of` (old index -> new index), under their new indices."""
        self.embedding.reindex(index_of)
        self.statistics.reindex(index_of)
        self.coupling.reindex(index_of)
        self._coactivity.reindex(index_of)

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything, for `load`."""
        return {
            "embedding": self.embedding.dump(),
            "statistics": self.statistics.dump(),
            "coupling": self.coupling.dump(),
            "coactivity": self._coactivity.dump(),
            "counted_to": self._counted_to,
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned, of the same spec, embedding and half-life."""
        self.embedding.load(saved["embedding"])
        self.statistics.load(saved["statistics"])
        self.coupling.load(saved["coupling"])
        self._coactivity.load(saved["coactivity"])
        self._counted_to = saved["counted_to"]
