"""What was gathered of the units of a recording over any stretch of it, for readouts to be fitted on: every feature set
of `nuclr_stream.features.accumulator`, and joined in one row, as the predictors of a task read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.accumulator import FeatureSet, FeatureSnapshot, feature_count
from nuclr_stream.windows.binning import Float32Array
from offline_training.readouts.embed import Embedded

ALL_SETS: tuple[FeatureSet, ...] = get_args(FeatureSet)
FACTS = 3
"""Columns before the features of a joined row: exposure n, the time observed in windows, scatter of the windows."""


@dataclass(frozen=True)
class FeatureSource:
    """The windows of a recording as a source of features (see `examples.UnitFeatures`).

    Rows are FACTS columns, then the features of `sets` one after the other, NaN where a set has nothing of a unit.
    """

    embedded: Embedded
    sets: tuple[FeatureSet, ...]
    _seen: dict[tuple[int, int], FeatureSnapshot] = field(default_factory=dict)

    @classmethod
    def of(cls, embedded: Embedded) -> FeatureSource:
        """All feature sets that the recording has: traces have no statistics."""
        spikes = embedded.spec.input_kind == "spikes"
        return cls(embedded, tuple(name for name in ALL_SETS if spikes or name.startswith("embedding")))

    def only(self, *sets: FeatureSet) -> FeatureSource:
        """The same with these sets only; what was gathered is shared."""
        return replace(self, sets=sets)

    @property
    def recording_id(self) -> str:
        """The recording."""
        return self.embedded.recording_id

    @property
    def subject_id(self) -> str:
        """The animal."""
        return self.embedded.subject_id

    @property
    def end_s(self) -> npt.NDArray[np.float64]:
        """When each window (K,) is over."""
        return self.embedded.end_s

    @property
    def steps_per_window(self) -> int:
        """As the windows have it."""
        return self.embedded.steps_per_window

    def snapshot(self, first: int, last: int) -> FeatureSnapshot:
        """What windows [first, last) add up to."""
        if (first, last) not in self._seen:
            self._seen[first, last] = self.embedded.snapshot(first, last)
        return self._seen[first, last]

    def between(self, first: int, last: int) -> tuple[Float32Array, Float32Array]:
        """Joined rows (U, FACTS + F) from windows [first, last), and the exposure n (U,)."""
        seen = self.seen(first, last)
        return self._rows(seen), seen.n

    def growing(self, lasts: Iterable[int]) -> Iterator[Float32Array]:
        """Joined rows (U, FACTS + F) from windows [0, last) for every one of `lasts`, ascending."""
        return map(self._rows, self.embedded.seen_until(0, lasts))

    def _rows(self, seen: FeatureSnapshot) -> Float32Array:
        columns = [np.column_stack([seen.n, seen.observed_exposure, seen.scatter])]
        columns += [np.where(seen.has[name][:, None], seen.features[name], np.nan) for name in self.sets]
        return np.hstack(columns).astype(np.float32)


def slices(sets: Sequence[FeatureSet], dim: int) -> dict[FeatureSet, slice]:
    """Where the features of each set lie in a joined row, with embeddings of `dim`."""
    start, places = FACTS, {}
    for name in sets:
        places[name] = slice(start, start + feature_count(name, dim))
        start = places[name].stop
    return places
