"""One document about where the units of a probe lie: what `label --placement` writes and a placement query returns.

docs/protocol.md describes it. Depths are micrometres from the tip; what is unknown is null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.bundle.manifest import Manifest, TaskPart
from nuclr_stream.errors import NuclrStreamError, PlacementError
from nuclr_stream.placement.hmm import Float64Array
from nuclr_stream.placement.plans import read_plan
from nuclr_stream.placement.regions import DepthUnits, Placement, Segment, ShankPlacement, place, pool_along_depth
from nuclr_stream.placement.trajectory import Planned, agree
from nuclr_stream.windows.binning import Float32Array
from nuclr_stream.wire import Predictions

TASK = "brain_region"
"""The task whose classes lie along depth."""
MAX_DEPTHS = 256
"""Depths of a shank in the document; a finer grid is thinned out."""

Document = dict[str, Any]


def placement_report(
    predictions: Predictions,
    part: TaskPart,
    *,
    depth_um: Float32Array,
    shank: Float32Array,
    plan: Sequence[Planned] = (),
) -> Document:
    """Return where the units (U,) of `predictions` lie by task `part`, and how that compares with a plan, if any.

    `depth_um` (U,) NaN where unknown, `shank` (U,) -1 where unknown. Raises PlacementError for an impossible plan.
    """
    task = next(task for task in predictions.tasks if task.name == part.name)
    units = DepthUnits(
        classes=part.classes,
        prior=np.array(part.prior),
        probabilities=task.probabilities.astype(np.float64),
        depth_um=depth_um.astype(np.float64),
        shank=shank.astype(np.int64),
        exposure=predictions.exposure.astype(np.float64),
        abstained=task.abstained,
    )
    placement = place(units)
    return {
        "stream": predictions.stream,
        "epoch": predictions.epoch,
        "end_sample": predictions.end_sample,
        "bundle": predictions.bundle,
        "task": part.name,
        "classes": list(part.classes),
        "reason": placement.reason,
        "shanks": [_shank(one, units) for one in placement.shanks],
        "units": _units(predictions.unit_ids, units, placement),
        "plan": [_rounded(asdict(one)) for one in agree(units, placement, plan)] if plan else [],
    }


class Reports:
    """The reports of several recordings in one JSON file.

    `plan` names a file to compare with, see `plans`; `tip_um` is for one whose depths are from the surface. Raises
    PlacementError when the bundle has no regions or the plan cannot be.
    """

    def __init__(
        self, manifest: Manifest, path: Path, plan: Path | None = None, *, tip_um: float | None = None
    ) -> None:
        parts = [part for part in manifest.tasks if part.name == TASK]
        if not parts:
            raise PlacementError(f"--placement: bundle {manifest.name} has no task {TASK}; choose another bundle")
        self._part, self._path = parts[0], path
        self._plan = () if plan is None else read_plan(plan, tip_um=tip_um)
        self._of_recording: dict[str, Document] = {}

    def add(self, predictions: Predictions, geometry: Mapping[str, Float32Array]) -> None:
        """Place the units of a recording's last predictions; `geometry` as `Units` gives it."""
        self._of_recording[predictions.stream] = placement_report(
            predictions, self._part, depth_um=geometry["depth_um"], shank=geometry["shank"], plan=self._plan
        )

    def write(self, recording_ids: Sequence[str]) -> None:
        """Write a report per recording, for one without a window only the reason; the file appears whole or not at all.

        Raises NuclrStreamError when it cannot be written.
        """
        nothing: Document = {"reason": "no_data", "shanks": [], "units": [], "plan": []}
        found = [self._of_recording.get(name, {"stream": name, **nothing}) for name in recording_ids]
        temporary = self._path.with_name(self._path.name + ".part")
        try:
            temporary.write_text(json.dumps({"recordings": found}) + "\n", encoding="utf-8")
            temporary.replace(self._path)
        except OSError as error:
            raise NuclrStreamError(f"--placement {self._path}: {error.strerror}; choose another file") from error


def _shank(placed: ShankPlacement, units: DepthUnits) -> Document:
    every = -(-len(placed.depth_um) // MAX_DEPTHS) or 1
    found: Document = {
        "shank": placed.shank,
        "reason": placed.reason,
        "units": placed.units,
        "order_probability": placed.order_probability,
        "segments": [asdict(one) | _own_predictions(one, placed.shank, units) for one in placed.segments],
        "boundaries": [asdict(one) for one in placed.boundaries],
        "depth_um": placed.depth_um[::every].tolist(),
        "probabilities": placed.posterior[::every].tolist(),
    }
    return {name: _rounded(value) for name, value in found.items()}


def _own_predictions(segment: Segment, shank: int, units: DepthUnits) -> Document:
    """How many units of a stretch have a prediction of their own, and the share whose top class is its region."""
    inside = (units.shank == shank) & (units.depth_um >= segment.from_um) & (units.depth_um <= segment.to_um)
    tops = units.probabilities[inside & (units.exposure > 0)].argmax(axis=1)
    agree = float(np.mean(tops == units.classes.index(segment.region))) if len(tops) else float("nan")
    return {"units": len(tops), "units_agree": agree}


def _units(unit_ids: Sequence[str], units: DepthUnits, placement: Placement) -> list[Document]:
    """A row per unit: the region of its depth with its probability, and the mean over its neighbours beside it."""
    at_depth: Float64Array = np.full(units.probabilities.shape, np.nan)
    for placed in placement.shanks:
        rows = np.flatnonzero((units.shank == placed.shank) & np.isfinite(units.depth_um) & (len(placed.depth_um) > 0))
        if len(rows):
            at_depth[rows] = placed.at(units.depth_um[rows])
    pooled = pool_along_depth(units)
    return [
        _rounded(
            {
                "unit_id": unit_id,
                "shank": int(units.shank[u]),
                "depth_um": float(units.depth_um[u]),
                **_top("", at_depth[u], units.classes),
                **_top("pooled_", pooled[u], units.classes),
            }
        )
        for u, unit_id in enumerate(unit_ids)
    ]


def _top(prefix: str, probabilities: Float64Array, classes: Sequence[str]) -> Document:
    known = bool(np.isfinite(probabilities).all())
    best = int(probabilities.argmax()) if known else 0
    return {
        f"{prefix}region": classes[best] if known else None,
        f"{prefix}probability": float(probabilities[best]) if known else None,
    }


def _rounded(value: Any) -> Any:
    """Numbers short enough to read, and null for what is not finite: JSON knows no NaN."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return round(value, 4) if np.isfinite(value) else None
    return value
