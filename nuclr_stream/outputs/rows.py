"""Predictions as rows of a table: what a row holds of a unit, and of one task's answer about it."""

from __future__ import annotations

from fractions import Fraction

from nuclr_stream.prediction.stability import NEVER
from nuclr_stream.wire import Abstained, Predictions, TaskPredictions, UnitFlag

Row = dict[str, str | int | float]

TASK_COLUMNS = ("task", "prediction", "probability", "set", "abstained", "why", "stable_since_s")
UNIT_COLUMNS = ("windows", "exposure", "ood_score", "flags")
REASONS = {
    Abstained.NO: "",
    Abstained.NO_DATA: "no window yet",
    Abstained.LOW_PROBABILITY: "probability below the abstention threshold",
    Abstained.OUT_OF_DISTRIBUTION: "unlike the units of training, see flags",
    Abstained.SMALL_POPULATION: "population below minimum",
    Abstained.NONFINITE: "the readout gave no number",
}
"""Why a class is abstained from, in words."""


def unit_columns(predictions: Predictions, u: int) -> Row:
    """Return what is known of unit `u` whatever the task: its id and UNIT_COLUMNS."""
    return {
        "unit_id": predictions.unit_ids[u],
        "windows": int(predictions.windows[u]),
        "exposure": round(float(predictions.exposure[u]), 3),
        "ood_score": round(float(predictions.ood_score[u]), 3),
        "flags": "|".join(UnitFlag(int(predictions.flags[u])).words),
    }


def task_columns(task: TaskPredictions, u: int, sample_rate: Fraction) -> Row:
    """Return TASK_COLUMNS of unit `u` and p_<class> per class; stable_since_s is empty without a prediction."""
    why, since = Abstained(task.why[u]), int(task.stable_since[u])
    top = int(task.probabilities[u].argmax())
    return {
        "task": task.name,
        "prediction": task.classes[top],
        "probability": round(float(task.probabilities[u, top]), 6),
        "set": "|".join(name for name, inside in zip(task.classes, task.sets[u], strict=True) if inside),
        "abstained": int(why != Abstained.NO),
        "why": why.word,
        "stable_since_s": "" if since == NEVER else float(since / sample_rate),
        **{f"p_{c}": round(float(p), 6) for c, p in zip(task.classes, task.probabilities[u], strict=True)},
    }
