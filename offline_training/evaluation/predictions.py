"""What a readout says of the labelled units of held-out recordings after some time, alone and joined with neighbours.

Single-unit predictions use activity only. Multi-unit ones average the probabilities of a unit with those of up to four
neighbours within 60 um on its shank (NEMO, ICLR 2025): **they use depth**, and stand beside the others, never for them.
Shapes: U units, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.mean_embedding import Calibration
from nuclr_stream.placement.regions import UNKNOWN_SHANK, DepthUnits, pool_along_depth
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array
from offline_training.config import UNLABELLED
from offline_training.readouts.examples import UnitFeatures
from offline_training.scores import NO_PREDICTION

SECONDS: tuple[float | None, ...] = (10.0, 60.0, 300.0, None)
"""Times observed at which predictions are kept; None: the whole recording."""

Columns = dict[str, list[Any]]
Places = npt.NDArray[np.float64]
"""Depth in um and shank of units (U, 2)."""


class Classifier(Protocol):
    """What predictions need of a readout."""

    @property
    def calibration(self) -> Calibration:
        """When it abstains."""

    def probabilities(self, features: Float32Array, n: Float32Array) -> Float32Array:
        """Probabilities (U, C) of features (U, F) with exposure n (U,)."""


def time_name(seconds: float | None) -> str:
    """How a time observed is written in results: "10", "60", "300" or "all"."""
    return "all" if seconds is None else f"{seconds:g}"


def places(recording: Recording, tested: BoolArray) -> Places | None:
    """Depth in um and shank (U, 2) of the tested units, NaN for others: they are nobody's neighbours, so that nothing
    that a readout was fitted on speaks for a tested unit. None where the recording has no depths."""
    if "depth_um" not in recording.units:
        return None
    depth = np.where(tested, recording.units["depth_um"].astype(np.float64), np.nan)
    shank = recording.units.get("shank", np.full(len(depth), UNKNOWN_SHANK)).astype(np.float64)
    return np.stack([depth, shank], axis=1)


def predictions(
    readout: Classifier,
    features: Sequence[UnitFeatures],
    labels: Sequence[Int64Array],
    seconds: float | None,
    *,
    where: Sequence[Places | None] = (),
) -> Columns:
    """What is said of every labelled unit after so many seconds; the units of all recordings follow one another.

    `prediction` is the top-1 class (NO_PREDICTION for a unit that no window shows), `probability` its probability,
    `p` all probabilities in thousandths, `n` the exposure, `abstained` 0 or 1. `multi_prediction` is the top-1 class
    joined with neighbours; it is there when `where` gives the `places` of the units of every recording.
    """
    columns: Columns = {name: [] for name in ("prediction", "probability", "p", "n", "abstained")}
    if where and all(place is not None for place in where):
        columns["multi_prediction"] = []
    for place, (source, label) in enumerate(zip(features, labels, strict=True)):
        last = len(source.end_s) if seconds is None else int(np.searchsorted(source.end_s, seconds, side="right"))
        scored = np.flatnonzero(label != UNLABELLED)
        if not last:
            _say_nothing(columns, len(scored))
            continue
        values, n = source.between(0, last)
        p = readout.probabilities(values, n)
        seen = n > 0
        columns["prediction"] += np.where(seen, p.argmax(axis=1), NO_PREDICTION)[scored].tolist()
        columns["probability"] += [round(float(v), 4) for v in p[scored].max(axis=1)]
        columns["p"] += np.rint(1000 * p[scored]).astype(int).tolist()
        columns["n"] += [round(float(v), 1) for v in n[scored]]
        columns["abstained"] += readout.calibration.abstains(p, n)[scored].astype(int).tolist()
        if "multi_prediction" in columns:
            joined, known = joined_along_depth(p, n, where[place])
            columns["multi_prediction"] += np.where(known, joined.argmax(axis=1), NO_PREDICTION)[scored].tolist()
    return columns


def _say_nothing(columns: Columns, units: int) -> None:
    nothing = {"prediction": NO_PREDICTION, "multi_prediction": NO_PREDICTION, "abstained": 1, "p": []}
    for name, values in columns.items():
        values += [nothing.get(name, 0.0)] * units


def joined_along_depth(p: Float32Array, n: Float32Array, where: Places | None) -> tuple[np.ndarray, BoolArray]:
    """Probabilities (U, C) joined along depth, and which units (U,) somebody speaks for: the unit itself or others."""
    assert where is not None
    depth, shank = where.T
    classes = tuple(str(c) for c in range(p.shape[1]))
    silent = n <= 0
    units = DepthUnits(
        classes=classes,
        prior=np.full(len(classes), 1 / len(classes)),
        probabilities=np.where(silent[:, None], 0.0, p).astype(np.float64),
        depth_um=depth,
        shank=shank.astype(np.int64),
        exposure=n.astype(np.float64),
        abstained=silent,
    )
    joined = pool_along_depth(units)
    return joined, joined.sum(axis=1) > 0
