"""Scores of what was said of units as time went on: at a time, how sure it was and rightly so, and how soon it settled.

Shapes: K steps, L labelled units of a recording, R units of all recordings, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array
from offline_training.scores import (
    ECE_BINS,
    NO_PREDICTION,
    balanced_accuracy,
    expected_calibration_error,
    macro_f1,
    precision_and_coverage,
)

RISK_POINTS = 20

FloatArray = npt.NDArray[np.float64]
Result = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """What was said of the labelled units of one recording at the end of every step: when that was (K,), the class of
    the units (L,), probabilities (K, L, C), whether anything was said at all and whether it was too unsure to call a
    class (K, L), and the classes of the sets (K, L, C), None where there are no sets."""

    subject_id: str
    end_s: FloatArray
    label: Int64Array
    p: Float32Array
    has_prediction: BoolArray
    unsure: BoolArray
    sets: BoolArray | None

    @property
    def prediction(self) -> Int64Array:
        """Top-1 classes (K, L), NO_PREDICTION where nothing was said."""
        return np.where(self.has_prediction, self.p.argmax(axis=2), NO_PREDICTION)

    def steps_by(self, seconds: float) -> int:
        """How many steps are over after so many seconds."""
        return int(np.searchsorted(self.end_s, seconds + 1e-9, side="right"))


@dataclass(frozen=True)
class Moment:
    """What was said of the scored units of all recordings at one time; columns (R,) and (R, C)."""

    subject: npt.NDArray[np.str_]
    label: Int64Array
    p: Float32Array
    prediction: Int64Array
    unsure: BoolArray
    sets: BoolArray | None

    @classmethod
    def at(cls, stated: Sequence[Told], seconds: float, scored: Int64Array) -> Moment:
        """The last word by then on units whose class is in `scored`; nothing before the first window."""
        parts = [_part(one, one.steps_by(seconds), np.isin(one.label, scored)) for one in stated]
        sets = [part.sets for part in parts if part.sets is not None]
        return cls(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in list(cls.__dataclass_fields__)[:-1]),
            sets=np.concatenate(sets) if len(sets) == len(parts) else None,
        )

    def where(self, chosen: BoolArray) -> Moment:
        """The chosen units (R,)."""
        columns = (getattr(self, name)[chosen] for name in list(Moment.__dataclass_fields__)[:-1])
        return Moment(*columns, sets=None if self.sets is None else self.sets[chosen])


def scores(moment: Moment, scored: Int64Array, *, calibrated: bool) -> Result:
    """Every score of a moment. A unit of which nothing was said is an error, abstained, and in no ECE, Brier score or
    set; `unseen` is the share of such units. Without calibrated probabilities there is nothing to score of them.

    `brier` is the sum over classes of squared errors of the probabilities, from 0 to 2.
    """
    found = {
        "macro_f1": macro_f1(moment.label, moment.prediction, scored),
        "balanced_accuracy": balanced_accuracy(moment.label, moment.prediction, scored),
        "unseen": float((moment.prediction == NO_PREDICTION).mean()),
    }
    if calibrated:
        found |= _belief(moment)
    return {name: _rounded(value) for name, value in found.items()} | {"units": len(moment.label)}


def per_animal(moment: Moment) -> Result:
    """Balanced accuracy over its own classes, and what its probabilities were worth, for every animal."""
    found = {}
    for subject in np.unique(moment.subject):
        own = moment.where(moment.subject == subject)
        belief = {name: _rounded(value) for name, value in _belief(own).items()}
        accuracy = balanced_accuracy(own.label, own.prediction, np.unique(own.label))
        found[str(subject)] = {"units": len(own.label), "balanced_accuracy": _rounded(accuracy)} | belief
    return found


def settling(stated: Sequence[Told], seconds: float, scored: Int64Array) -> Result:
    """Median seconds until the top-1 class changed for the last time, and changes per minute, within so many seconds.

    The first class is a change too, from nothing, but no flip. A unit of which nothing was said never settles.
    """
    since: list[FloatArray] = []
    flips, minutes = 0, 0.0
    for one in stated:
        steps, kept = one.steps_by(seconds), np.isin(one.label, scored)
        prediction = one.prediction[:steps, kept]
        since.append(stable_since(prediction, one.end_s[:steps]))
        if steps:
            both = (prediction[1:] != NO_PREDICTION) & (prediction[:-1] != NO_PREDICTION)
            flips += int((both & (prediction[1:] != prediction[:-1])).sum())
            minutes += int(kept.sum()) * (one.end_s[steps - 1] - one.end_s[0]) / 60
    median = float(np.median(np.concatenate(since)))
    return {
        "stable_s": _rounded(median if np.isfinite(median) else float("nan")),
        "flips_per_minute": _rounded(flips / minutes if minutes else float("nan")),
    }


def stable_since(prediction: Int64Array, end_s: FloatArray) -> FloatArray:
    """When (L,) the top-1 classes (K, L) came to what they are at the end; infinity where that is nothing."""
    if not len(prediction):
        return np.full(prediction.shape[1], np.inf)
    same = np.cumprod((prediction == prediction[-1])[::-1], axis=0).sum(axis=0)
    return np.where(prediction[-1] == NO_PREDICTION, np.inf, end_s[len(prediction) - same])


def reliability(moment: Moment, *, bins: int = ECE_BINS) -> list[Result]:
    """Mean top-1 probability and share of right ones in bins of equal mass, the least sure first, as ECE has them."""
    known = moment.where(moment.prediction != NO_PREDICTION)
    top, right = known.p.max(axis=1), known.prediction == known.label
    parts = [part for part in np.array_split(np.argsort(top, kind="stable"), bins) if len(part)]
    return [
        {"probability": _rounded(top[part].mean()), "right": _rounded(right[part].mean()), "units": len(part)}
        for part in parts
    ]


def risk_coverage(moment: Moment, *, points: int = RISK_POINTS) -> list[Result]:
    """Share of wrong ones among the surest 1/points, 2/points, ... of all units; nothing said comes last."""
    said = moment.prediction != NO_PREDICTION
    order = np.argsort(-np.where(said, moment.p.max(axis=1), 0.0), kind="stable")
    wrong = (moment.prediction != moment.label)[order]
    counts = [max(1, round(len(wrong) * (i + 1) / points)) for i in range(points)]
    return [{"coverage": _rounded(count / len(wrong)), "risk": _rounded(wrong[:count].mean())} for count in counts]


def _belief(moment: Moment) -> dict[str, float]:
    """Precision and coverage of what is called, of all units; the rest of those that something was said of."""
    said = moment.prediction != NO_PREDICTION
    right = moment.prediction == moment.label
    precision, coverage = precision_and_coverage(right, moment.unsure | ~said)
    known = moment.where(said)
    truth = np.eye(moment.p.shape[1])[known.label]
    found = {
        "precision": precision,
        "coverage": coverage,
        "ece": expected_calibration_error(known.p.max(axis=1), right[said]),
        "brier": float(np.square(known.p - truth).sum(axis=1).mean()) if said.any() else float("nan"),
    }
    if known.sets is not None and said.any():
        found["in_set"] = float(known.sets[np.arange(len(known.label)), known.label].mean())
        found["set_size"] = float(known.sets.sum(axis=1).mean())
    return found


def _part(stated: Told, steps: int, kept: BoolArray) -> Moment:
    label = stated.label[kept]
    subject = np.full(len(label), stated.subject_id)
    if not steps:
        shape = (len(label), stated.p.shape[2])
        nothing = np.full(len(label), NO_PREDICTION)
        sets = None if stated.sets is None else np.ones(shape, dtype=bool)
        return Moment(subject, label, np.zeros(shape, np.float32), nothing, np.ones(len(label), dtype=bool), sets)
    last = steps - 1
    return Moment(
        subject,
        label,
        stated.p[last, kept],
        stated.prediction[last, kept],
        stated.unsure[last, kept],
        None if stated.sets is None else stated.sets[last, kept],
    )


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
