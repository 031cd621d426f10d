"""From predictions of labelled units of animals left out to the scores of a result file.

Shapes: R units, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array
from offline_training.scores import (
    NO_PREDICTION,
    balanced_accuracy,
    expected_calibration_error,
    macro_f1,
    precision_and_coverage,
)

DRAWS = 1000
"""Resamplings of the animals behind an interval."""
CURVE = tuple(round(0.05 * k, 2) for k in range(20))
"""Thresholds of the precision-coverage curve."""


@dataclass(frozen=True)
class Predicted:
    """Labelled units: class (R,), probabilities (R, C), whether called (R,), whether predicted at all (R,), animal."""

    label: Int64Array
    probabilities: Float32Array
    called: BoolArray
    known: BoolArray
    subject: npt.NDArray[np.str_]

    @property
    def top(self) -> Int64Array:
        """The most probable class (R,), NO_PREDICTION for a unit without one."""
        top: Int64Array = np.where(self.known, self.probabilities.argmax(axis=1), NO_PREDICTION)
        return top

    def where(self, rows: BoolArray | Int64Array) -> Predicted:
        """Some of the units."""
        return Predicted(*(getattr(self, field.name)[rows] for field in fields(self)))


def joined(parts: Sequence[Predicted]) -> Predicted:
    """The units of all parts."""
    return Predicted(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Predicted)))


def scores(found: Predicted, scored: Int64Array, *, curve: bool = False, confusion: bool = False) -> dict[str, Any]:
    """All that a result file says of one row at one time; only units of the `scored` classes count as truth.

    Macro-F1 comes with a 95 % interval from resampling animals.
    """
    found = found.where(np.isin(found.label, scored))
    values = _summary(found, scored) | {"macro_f1_interval": _interval(found, lambda part: _f1(part, scored))}
    animals = np.unique(found.subject)
    values["per_animal"] = {
        str(animal): _summary(own, np.unique(own.label))
        for animal in animals
        for own in [found.where(found.subject == animal)]
    }
    if curve:
        values["curve"] = [[t, *_called_and_precision(found, t)] for t in CURVE]
    if confusion:
        matrix = np.zeros((found.probabilities.shape[1], found.probabilities.shape[1]), dtype=int)
        np.add.at(matrix, (found.label[found.known], found.top[found.known]), 1)
        values["confusion"] = matrix.tolist()
    return values


def over(one: Predicted, other: Predicted, scored: Int64Array) -> dict[str, Any]:
    """Macro-F1 of `one` minus that of `other` on the same units, with a 95 % interval from resampling animals."""
    kept = np.isin(one.label, scored)
    one, other = one.where(kept), other.where(kept)
    drawn = [_f1(one.where(rows), scored) - _f1(other.where(rows), scored) for rows in _resampled(one.subject)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"macro_f1": _rounded(_f1(one, scored) - _f1(other, scored)), "interval": [_rounded(low), _rounded(high)]}


def _summary(found: Predicted, scored: Int64Array) -> dict[str, Any]:
    known = found.where(found.known)
    right = known.top == known.label
    precision, _ = precision_and_coverage(right, ~known.called)
    return {
        "units": len(found.label),
        "macro_f1": _rounded(_f1(found, scored)),
        "balanced_accuracy": _rounded(balanced_accuracy(found.label, found.top, scored)),
        "ece": _rounded(expected_calibration_error(known.probabilities.max(axis=1, initial=0), right)),
        "called": _rounded(float(found.called.mean())),
        "precision": _rounded(precision),
    }


def _f1(found: Predicted, scored: Int64Array) -> float:
    score: float = macro_f1(found.label, found.top, scored)
    return score


def _called_and_precision(found: Predicted, threshold: float) -> tuple[float | None, float | None]:
    called = found.known & (found.probabilities.max(axis=1) >= threshold)
    precision = float((found.top == found.label)[called].mean()) if called.any() else float("nan")
    return _rounded(float(called.mean())), _rounded(precision)


def _interval(found: Predicted, score: Callable[[Predicted], float]) -> list[float | None]:
    low, high = np.percentile([score(found.where(rows)) for rows in _resampled(found.subject)], [2.5, 97.5])
    return [_rounded(low), _rounded(high)]


def _resampled(subject: npt.NDArray[np.str_]) -> list[Int64Array]:
    """Rows of the units of animals drawn with replacement, as many animals as there are, DRAWS times."""
    rng = np.random.default_rng(0)
    _, place = np.unique(subject, return_inverse=True)
    rows = [np.flatnonzero(place == k) for k in range(place.max() + 1)]
    return [np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))]) for _ in range(DRAWS)]


def _rounded(value: float) -> float | None:
    return None if not np.isfinite(value) else round(float(value), 4)
