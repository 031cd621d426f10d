"""A unit's features joined by those of its company: the mean over its most correlated units, and over the population.

Units that rise and fall together tend to lie in one region, so pooling over them carries region without knowing depth.
Computed offline only, as a row of the results. Shapes: U units, F features, S seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Float32Array, Grid
from offline_training.readouts.examples import UnitFeatures

NEIGHBOURS = 10


@dataclass(frozen=True)
class Pooled:
    """`source` with, for every unit, [own features, mean of its NEIGHBOURS most correlated units, population mean].

    Correlations are those of the spike counts (U, S) of whole seconds within the stretch that is asked for.
    """

    source: UnitFeatures
    counts_per_second: Float32Array

    @classmethod
    def of(cls, source: UnitFeatures, recording: Recording) -> Pooled:
        """Pool the features of the units of `recording`."""
        return cls(source, recording.counts(Grid(recording.sample_rate, Fraction(1))))

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

    def between(self, first: int, last: int) -> tuple[Float32Array, Float32Array]:
        """Features (U, 3 F) from steps [first, last), and the exposure n (U,) of the unit itself.

        Units without exposure in the stretch are nobody's neighbours and no part of the population mean.
        """
        values, n = self.source.between(first, last)
        seen = np.flatnonzero(n > 0)
        joined = np.zeros((len(values), 3 * values.shape[1]), dtype=np.float32)
        if len(seen):
            stop = int(self.end_s[last - 1])
            start = int(self.end_s[first - 1]) if first else 0
            near = nearest(self.counts_per_second[seen, start:stop])
            own = values[seen]
            around = own[near].mean(axis=1) if near.shape[1] else own
            joined[seen] = np.hstack([own, around, np.broadcast_to(own.mean(axis=0), own.shape)])
        return joined, n


def nearest(counts: Float32Array) -> npt.NDArray[np.int64]:
    """Rows of the up to NEIGHBOURS most correlated other units of each unit, (U, N), from counts (U, S)."""
    centred = counts - counts.mean(axis=1, keepdims=True)
    unit_length = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    correlation = unit_length @ unit_length.T
    np.fill_diagonal(correlation, -np.inf)
    order: npt.NDArray[np.int64] = np.argsort(-correlation, axis=1, kind="stable")
    return order[:, : min(NEIGHBOURS, len(counts) - 1)]
