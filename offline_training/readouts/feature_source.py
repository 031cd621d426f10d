"""The windows of an embedded recording as a source of features; what was summed over a stretch is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nuclr_stream.features.accumulator import FeatureSnapshot
from offline_training.readouts.embed import Embedded
from offline_training.readouts.examples import Float64Array


@dataclass(frozen=True)
class FeatureSource:
    """The windows of a recording, see `examples.UnitFeatures`."""

    embedded: Embedded
    _known: dict[tuple[int, int], FeatureSnapshot] = field(default_factory=dict)

    @property
    def recording_id(self) -> str:
        """The recording."""
        return self.embedded.recording_id

    @property
    def subject_id(self) -> str:
        """The animal."""
        return self.embedded.subject_id

    @property
    def end_s(self) -> Float64Array:
        """When each window (K,) is over, in seconds from sample 0."""
        return self.embedded.end_s

    @property
    def steps_per_window(self) -> int:
        """How many windows further one starts that shares nothing with this one."""
        return self.embedded.steps_per_window

    def snapshot(self, first: int, last: int) -> FeatureSnapshot:
        """What windows [first, last) add up to."""
        if (first, last) not in self._known:
            self._known[first, last] = self.embedded.snapshot(first, last)
        return self._known[first, last]

    def growing(self, lasts: Iterable[int]) -> Iterator[FeatureSnapshot]:
        """What windows [0, last) add up to for every one of `lasts`, ascending, in one go."""
        return self.embedded.snapshots(0, lasts)
