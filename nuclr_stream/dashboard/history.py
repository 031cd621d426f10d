"""The probabilities of every unit over the last half hour, kept beside the page so that the daemon keeps no past."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nuclr_stream.wire import Predictions

HISTORY_S = 1800.0
"""How far back the history goes, in seconds of the stream."""
EVERY_S = 3.0
"""How far its points lie apart at least: 600 of them, 16 kB each for 1,000 units and 16 classes."""

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Point:
    time_s: float
    row_of: dict[str, int]
    probabilities: tuple[UInt8Array, ...]
    why: tuple[UInt8Array, ...]


@dataclass(frozen=True)
class UnitHistory:
    """Of one unit: `time_s` (K,) float32 and by task `probabilities` (K, C) uint8, 255 for certainty, `why` (K,)."""

    time_s: npt.NDArray[np.float32]
    probabilities: tuple[UInt8Array, ...]
    why: tuple[UInt8Array, ...]


class History:
    """Points of one stream and epoch; the newest is always there, the others lie EVERY_S apart."""

    def __init__(self) -> None:
        self._of: tuple[object, ...] = ()
        self._points: deque[_Point] = deque()

    def __len__(self) -> int:
        return len(self._points)

    def add(self, predictions: Predictions, time_s: float) -> None:
        """Take a step up. One of another epoch, whose clock is another, or of another bundle begins a new history."""
        points = self._points
        of = (predictions.epoch, predictions.bundle, *((task.name, task.classes) for task in predictions.tasks))
        if of != self._of:
            points.clear()
            self._of = of
        last = points[-1].row_of if points else {}
        # one dictionary for all points between two changes of the units: 600 of their own would be most of the memory
        same = len(last) == len(predictions.unit_ids) and tuple(last) == predictions.unit_ids
        point = _Point(
            time_s,
            last if same else {unit_id: row for row, unit_id in enumerate(predictions.unit_ids)},
            tuple(as_bytes(task.probabilities) for task in predictions.tasks),
            tuple(np.array(task.why) for task in predictions.tasks),
        )
        # the newest point is provisional until it lies far enough behind the one before it
        if len(points) > 1 and points[-1].time_s - points[-2].time_s < EVERY_S:
            points.pop()
        points.append(point)
        while points[0].time_s < time_s - HISTORY_S:
            points.popleft()

    def of(self, unit_id: str) -> UnitHistory:
        """Return what is known of a unit, oldest first; nothing of one that never was in a step."""
        points = [(point, point.row_of[unit_id]) for point in self._points if unit_id in point.row_of]
        tasks = range(len(points[0][0].probabilities) if points else 0)
        return UnitHistory(
            np.array([point.time_s for point, _ in points], dtype=np.float32),
            tuple(np.array([point.probabilities[task][row] for point, row in points]) for task in tasks),
            tuple(np.array([point.why[task][row] for point, row in points], dtype=np.uint8) for task in tasks),
        )


def as_bytes(probabilities: npt.NDArray[np.float32]) -> UInt8Array:
    """Return probabilities in steps of 1/255."""
    scaled: UInt8Array = np.round(probabilities * 255).astype(np.uint8)
    return scaled
