"""Labelled examples: what is known of a unit after so many windows, wherever they lie in a recording.

A readout for the first minute is fitted on what a minute gives. So every labelled unit gives examples from stretches of
1, 6 and 30 windows (10 s, 60 s, 300 s with the published window) and one from everything.
Shapes: U units, F features, R examples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.accumulator import FeatureSet, FeatureSnapshot
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array
from offline_training.config import UNLABELLED

WHOLE = 0
"""Stands for "all windows of the recording" among the lengths of stretches."""

LENGTHS = (1, 6, 30, WHOLE)
DRAWS = 1
"""Stretches of every length: what a population does in one window is a matter of luck."""

Float64Array = npt.NDArray[np.float64]


class UnitFeatures(Protocol):
    """Features of the units of one recording, over any stretch of its steps."""

    @property
    def recording_id(self) -> str:
        """The recording."""

    @property
    def subject_id(self) -> str:
        """The animal."""

    @property
    def end_s(self) -> Float64Array:
        """When each step (K,) is over, in seconds from sample 0."""

    @property
    def steps_per_window(self) -> int:
        """How many steps further a window starts that shares nothing with this one."""

    def snapshot(self, first: int, last: int) -> FeatureSnapshot:
        """What steps [first, last) add up to."""


@dataclass(frozen=True)
class Examples:
    """R examples.

    Args:
        features: (R, F) by feature set, zeros where `has` (R,) of the set says that there is nothing.
        label: class (R,).
        exposure, observed: (R,), see `accumulator.FeatureSnapshot`.
        length: (R,) of the stretch in windows, WHOLE for the whole recording.
        subject, recording: animal and recording (R,).
        unit: (R,) a number that the examples of one unit share.
    """

    features: Mapping[FeatureSet, Float32Array]
    has: Mapping[FeatureSet, BoolArray]
    label: Int64Array
    exposure: Float32Array
    observed: Float32Array
    length: Int64Array
    subject: npt.NDArray[np.str_]
    recording: npt.NDArray[np.str_]
    unit: Int64Array

    def __len__(self) -> int:
        return len(self.label)

    @property
    def snapshot(self) -> FeatureSnapshot:
        """The examples as if they were units of one snapshot, for `prediction.answer`."""
        return FeatureSnapshot(self.exposure, self.observed, self.features, self.has)

    def exposure_of(self, sets: Collection[FeatureSet]) -> Float32Array:
        """The exposure (R,) that a prediction from these sets rests on."""
        return self.snapshot.exposure_of(sets)

    def where(self, chosen: BoolArray | Int64Array) -> Examples:
        """The chosen examples, by mask or row."""
        taken: dict[str, Any] = {
            field.name: {name: part[chosen] for name, part in value.items()}
            if isinstance(value, dict)
            else value[chosen]
            for field in fields(self)
            for value in [getattr(self, field.name)]
        }
        return Examples(**taken)

    def shares(self) -> Float64Array:
        """One over the number of examples of the unit (R,): every unit counts once, however many it has."""
        _, unit, per_unit = np.unique(self.unit, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / per_unit[unit])

    def weights(self, classes: int) -> Float64Array:
        """Weight (R,): every unit counts once and every class that occurs alike; they add up to the units."""
        weight = self.shares()
        per_class = np.bincount(self.label, weights=weight, minlength=classes)
        return np.asarray(weight * (per_class.sum() / (per_class > 0).sum() / per_class[self.label]))


def examples(
    sources: Sequence[UnitFeatures],
    labels: Sequence[Int64Array],
    *,
    lengths: Sequence[int] = LENGTHS,
    draws: int = DRAWS,
    seed: int = 0,
) -> Examples:
    """One example per labelled unit and stretch in which it was seen: `draws` stretches of every length in windows, and
    the recording (WHOLE) once.

    Where stretches lie is drawn from (seed, place of the recording in the list, length); a recording that is shorter
    than one gives its whole only.
    """
    parts: list[Examples] = []
    first_unit = 0
    for place, (source, label) in enumerate(zip(sources, labels, strict=True)):
        for length in lengths if (label != UNLABELLED).any() else ():
            rng = np.random.default_rng([seed, place, length])
            for _ in range(draws if length != WHOLE else 1):
                if (stretch := _stretch(source, length, rng)) is not None:
                    parts.append(_part(source, label, stretch, length, first_unit))
        first_unit += len(label)
    return joined(parts)


def joined(parts: Sequence[Examples]) -> Examples:
    """The examples of all parts, of the feature sets that the first of them has."""
    columns: dict[str, object] = {}
    for field in fields(Examples):
        first = getattr(parts[0], field.name)
        if isinstance(first, dict):
            columns[field.name] = {k: np.concatenate([getattr(p, field.name)[k] for p in parts]) for k in first}
        else:
            columns[field.name] = np.concatenate([getattr(part, field.name) for part in parts])
    return Examples(**columns)  # type: ignore[arg-type]


def _stretch(source: UnitFeatures, length: int, rng: np.random.Generator) -> tuple[int, int] | None:
    steps = len(source.end_s)
    if length == WHOLE:
        return 0, steps
    wanted = 1 + (length - 1) * source.steps_per_window
    if wanted >= steps:
        return None
    first = int(rng.integers(steps - wanted + 1))
    return first, first + wanted


def _part(source: UnitFeatures, label: Int64Array, stretch: tuple[int, int], length: int, first_unit: int) -> Examples:
    found = source.snapshot(*stretch)
    kept = np.flatnonzero((label != UNLABELLED) & ((found.exposure > 0) | (found.observed > 0)))
    return Examples(
        features={name: values[kept] for name, values in found.features.items()},
        has={name: values[kept] for name, values in found.has.items()},
        label=label[kept],
        exposure=found.exposure[kept],
        observed=found.observed[kept],
        length=np.full(len(kept), length),
        subject=np.full(len(kept), source.subject_id),
        recording=np.full(len(kept), source.recording_id),
        unit=first_unit + kept,
    )
