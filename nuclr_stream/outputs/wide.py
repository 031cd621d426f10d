"""One row per unit: the columns of the notebook's table, of NWB units and of SpikeInterface's properties.

A column `predicted_<task>` holds a class only where one is called; what is most probable, called or not, stands in
`predicted_<task>_top`. So a table that is grouped by class without a thought holds nothing that was abstained from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nuclr_stream.outputs.result import Result
from nuclr_stream.placement.report import TASK
from nuclr_stream.prediction.stability import NEVER
from nuclr_stream.wire import Abstained, TaskPredictions, UnitFlag


@dataclass(frozen=True, eq=False)
class Column:
    """A column: its name, a value per unit (None: nothing is called, NaN: unknown), and what it means."""

    name: str
    values: Sequence[Any]
    meaning: str


def unit_columns(result: Result, *, embeddings: bool = False) -> Iterator[Column]:
    """Yield the columns of a result, a value per unit each; the embedding as e_0, e_1, ... if asked for."""
    one, units = result.predictions, range(len(result.predictions.unit_ids))
    shank = result.geometry["shank"]
    yield Column("recording_id", [result.recording_id for _ in units], "recording that the unit is from")
    yield Column("unit_id", list(one.unit_ids), "id of the unit in its recording")
    yield Column("shank", [int(shank[u]) for u in units], "shank of the probe, -1 where unknown")
    depth_um = [float(value) for value in result.geometry["depth_um"]]
    yield Column("depth_um", depth_um, "distance from the tip in micrometres, NaN where unknown")
    for task in one.tasks:
        yield from _task_columns(result, task)
    if any(task.name == TASK for task in one.tasks):
        regions, probability = result.depth_regions
        at_depth = "predicted from all units of the shank; an estimate, not histology"
        yield Column("predicted_region_at_depth", [region or None for region in regions], f"region, {at_depth}")
        yield Column(
            "predicted_region_at_depth_probability", probability.tolist(), "probability of predicted_region_at_depth"
        )
    yield Column("windows", one.windows.tolist(), "windows behind the prediction")
    yield Column("exposure", one.exposure.tolist(), "the same as non-overlapping windows")
    yield Column("ood_score", one.ood_score.tolist(), "above 1 the unit is unlike those of training")
    flags = ["|".join(UnitFlag(int(flag)).words) for flag in one.flags]
    yield Column("flags", flags, "what to know about the prediction, words with | between them")
    time_s = float(one.end_sample / one.sample_rate)
    yield Column("time_s", [time_s for _ in units], "seconds of the recording that the prediction rests on")
    yield Column("bundle", [one.bundle for _ in units], "bundle that predicted, name and digest")
    if embeddings:
        known = np.where((one.windows > 0)[:, None], result.mean, np.nan)
        for d in range(known.shape[1]):
            yield Column(f"e_{d}", known[:, d].tolist(), f"channel {d} of the mean embedding, NaN without a window")


def _task_columns(result: Result, task: TaskPredictions) -> Iterator[Column]:
    """Yield the columns of one task's answer."""
    name, top = f"predicted_{task.name}", task.probabilities.argmax(axis=1).tolist()
    words = [Abstained(why).word for why in task.why.tolist()]
    tops = [task.classes[k] for k in top]
    called = [None if word else best for word, best in zip(words, tops, strict=True)]
    yield Column(name, called, "class that is called, nothing where the prediction is abstained from")
    yield Column(f"{name}_top", tops, "most probable class, called or not")
    best = [float(row[k]) for row, k in zip(task.probabilities, top, strict=True)]
    yield Column(f"{name}_probability", best, "calibrated probability of the most probable class")
    yield Column(f"{name}_why", words, "why no class is called, in one word; empty where one is")
    reasons = [result.reason(why) for why in task.why.tolist()]
    yield Column(f"{name}_reason", reasons, "the same in a sentence")
    sets = ["|".join(np.array(task.classes)[inside]) for inside in task.sets]
    yield Column(f"{name}_set", sets, "classes that are not ruled out, with | between them")
    rate = result.predictions.sample_rate
    since = [float("nan") if s == NEVER else float(s / rate) for s in task.stable_since.tolist()]
    yield Column(f"{name}_stable_since_s", since, "second since which the most probable class is the same")
    for c, label in enumerate(task.classes):
        values = task.probabilities[:, c].astype(np.float64).tolist()
        yield Column(f"{name}_p_{label}", values, f"calibrated probability of {label}")
