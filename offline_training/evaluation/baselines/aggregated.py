"""A unit's features beside their means over its most correlated neighbours and over the population.

Correlated units tend to lie in one region, so averaging over them carries region without knowing depth. Computed
offline only, as a row of the results. Shapes: U units, F features, S seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.accumulator import FeatureSnapshot
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Float32Array, Grid
from offline_training.evaluation.baselines.one_set import feature_set, snapshot_of
from offline_training.evaluation.baselines.single_unit import CountedSteps

NEIGHBOURS = 10


@dataclass(frozen=True)
class Aggregated:
    """`source` with, for every unit, [own features, mean of its NEIGHBOURS most correlated units, population mean].

    Correlations are those of the spike counts (U, S) of whole seconds within the stretch that is asked for.
    """

    source: CountedSteps
    counts_per_second: Float32Array

    @classmethod
    def of(cls, source: CountedSteps, recording: Recording) -> Aggregated:
        """Aggregate the features of the units of `recording`."""
        return cls(source, recording.counts(Grid(recording.sample_rate, Fraction(1))))

    @property
    def name(self) -> str:
        """The feature set."""
        return f"{self.source.name}_aggregated"

    @property
    def recording_id(self) -> str:
        """The recording."""
        return self.source.recording_id

    @property
    def subject_id(self) -> str:
        """The animal."""
        return self.source.subject_id

    @property
    def end_s(self) -> npt.NDArray[np.float64]:
        """When each step (K,) of the source is over."""
        return self.source.end_s

    @property
    def steps_per_window(self) -> int:
        """As the source has it."""
        return self.source.steps_per_window

    def snapshot(self, first: int, last: int) -> FeatureSnapshot:
        """Features (U, 3 F) from steps [first, last), at the exposure of the unit itself.

        Units that were not seen in the stretch are no neighbours and no part of the population mean.
        """
        found = self.source.snapshot(first, last)
        values, n = found.features[feature_set(self.source.name)], found.exposure
        seen = np.flatnonzero(n > 0)
        joined = np.zeros((len(values), 3 * values.shape[1]), dtype=np.float32)
        if len(seen):
            stop = int(self.end_s[last - 1])
            start = int(self.end_s[first - 1]) if first else 0
            near = nearest(self.counts_per_second[seen, start:stop])
            own = values[seen]
            around = own[near].mean(axis=1) if near.shape[1] else own
            joined[seen] = np.hstack([own, around, np.broadcast_to(own.mean(axis=0), own.shape)])
        return snapshot_of(self.name, joined, n)


def nearest(counts: Float32Array) -> npt.NDArray[np.int64]:
    """Rows of the up to NEIGHBOURS most correlated other units of each unit, (U, N), from counts (U, S)."""
    centred = counts - counts.mean(axis=1, keepdims=True)
    unit_length = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    correlation = unit_length @ unit_length.T
    np.fill_diagonal(correlation, -np.inf)
    order: npt.NDArray[np.int64] = np.argsort(-correlation, axis=1, kind="stable")
    return order[:, : min(NEIGHBOURS, len(counts) - 1)]
