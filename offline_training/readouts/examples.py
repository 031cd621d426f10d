"""MeanEmbedding-matched examples: what is known of a unit after n windows, for several n, wherever they lie in a recording.

A readout fitted on whole recordings sees much cleaner inputs than it gets live in the first minutes. So every labelled
unit gives examples from stretches of 1, 3, 6, 15, 30 windows and one from everything.
Shapes: U units, F features, R examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nuclr_stream.windows.binning import Float32Array, Int64Array
from offline_training.config import UNLABELLED

WHOLE = 0
"""Stands for "all windows of the recording" among the lengths of stretches."""

STRETCHES = (1, 3, 6, 15, 30, WHOLE)
DRAWS = 3
"""Stretches of every length: what a population does in one window is a matter of luck."""


class UnitFeatures(Protocol):
    """Features of the units of one recording, over any stretch of its steps."""

    @property
    def recording_id(self) -> str:
        """The recording."""

    @property
    def subject_id(self) -> str:
        """The animal."""

    @property
    def end_s(self) -> npt.NDArray[np.float64]:
        """When each step (K,) is over, in seconds from sample 0."""

    @property
    def steps_per_window(self) -> int:
        """How many steps further a window starts that shares nothing with this one."""

    def between(self, first: int, last: int) -> tuple[Float32Array, Float32Array]:
        """Features (U, F) from steps [first, last), and the exposure n (U,) behind them, 0 where there is none."""


@dataclass(frozen=True)
class Examples:
    """R examples: features (R, F), class (R,), exposure n (R,), animal and recording (R,), and the unit (R,), a number
    that the examples of one unit share."""

    features: Float32Array
    label: Int64Array
    n: Float32Array
    subject: npt.NDArray[np.str_]
    recording: npt.NDArray[np.str_]
    unit: Int64Array

    def where(self, chosen: npt.NDArray[np.bool_]) -> Examples:
        """The chosen examples (R,)."""
        return Examples(
            self.features[chosen],
            self.label[chosen],
            self.n[chosen],
            self.subject[chosen],
            self.recording[chosen],
            self.unit[chosen],
        )

    def unit_shares(self) -> npt.NDArray[np.float64]:
        """One over the number of examples of the unit (R,)."""
        _, unit, per_unit = np.unique(self.unit, return_inverse=True, return_counts=True)
        return 1.0 / per_unit[unit]

    def weights(self, classes: int) -> npt.NDArray[np.float64]:
        """Weight (R,): every unit counts once, however many examples it has, and every class that occurs alike; they
        add up to the number of units."""
        weight = self.unit_shares()
        per_class = np.bincount(self.label, weights=weight, minlength=classes)
        return weight * (per_class.sum() / (per_class > 0).sum() / per_class[self.label])


def examples(
    features: Sequence[UnitFeatures],
    labels: Sequence[Int64Array],
    *,
    lengths: Sequence[int] = STRETCHES,
    draws: int = DRAWS,
    seed: int = 0,
) -> Examples:
    """One example per labelled unit and stretch in which it was seen: `draws` stretches of every length in windows, and
    the recording (WHOLE) once.

    Where stretches lie is drawn from (seed, place of the recording in the list, length); a recording that is shorter
    than one gives its whole only.
    """
    parts = []
    first_unit = 0
    for place, (source, label) in enumerate(zip(features, labels, strict=True)):
        for length in lengths:
            rng = np.random.default_rng([seed, place, length])
            for _ in range(draws if length != WHOLE else 1):
                if (stretch := _stretch(source, length, rng)) is not None:
                    parts.append(_part(source, label, stretch, first_unit))
        first_unit += len(label)
    columns = [np.concatenate([part[i] for part in parts]) for i in range(6)]
    return Examples(*columns)


def _stretch(source: UnitFeatures, length: int, rng: np.random.Generator) -> tuple[int, int] | None:
    steps = len(source.end_s)
    if length == WHOLE:
        return 0, steps
    wanted = 1 + (length - 1) * source.steps_per_window
    if wanted >= steps:
        return None
    first = int(rng.integers(steps - wanted + 1))
    return first, first + wanted


def _part(source: UnitFeatures, label: Int64Array, stretch: tuple[int, int], first_unit: int) -> tuple:
    values, n = source.between(*stretch)
    kept = np.flatnonzero((label != UNLABELLED) & (n > 0))
    subject = np.full(len(kept), source.subject_id)
    recording = np.full(len(kept), source.recording_id)
    return values[kept], label[kept], n[kept], subject, recording, first_unit + kept
