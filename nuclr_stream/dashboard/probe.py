"""What the page knows of one probe, and how it goes into frames. Rows are those of the last predictions.

Before the first window they are those of the unit table, so that a page opened in warm-up shows the units that wait.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.dashboard.contacts import Contacts
from nuclr_stream.dashboard.frames import two_bits
from nuclr_stream.dashboard.history import History, as_bytes
from nuclr_stream.wire import ActivityReply, Predictions, StreamState, TaskPredictions

Arrays = dict[str, npt.NDArray[Any]]
LATENCIES = 600
"""Steps whose latencies the percentiles are of."""


class Probe:
    """One stream as it was published last. `layout` counts changes of rows and geometry, `seq` whatever changed."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.layout = 0
        self.seq = 0
        self.predictions: Predictions | None = None
        self.state: StreamState | None = None
        self.units: ActivityReply | None = None
        self.activity: ActivityReply | None = None
        self.placement: dict[str, Any] = {}
        self.history = History()
        self.received_at = 0.0
        self.latency_ms: deque[float] = deque(maxlen=LATENCIES)
        self.unit_ids: tuple[str, ...] = ()
        self.geometry_is_due = True
        self.contacts: Contacts | None = None

    # -- what comes in -----------------------------------------------------------------------------------------------

    def take_predictions(self, predictions: Predictions) -> None:
        """Take the predictions of a step."""
        before = self.predictions
        if before is not None and before.epoch != predictions.epoch:
            self.activity, self.placement = None, {}
        self.predictions, self.received_at = predictions, time.monotonic()
        self.seq += 1
        self.latency_ms.append((predictions.published_ns - predictions.closed_ns) / 1e6)
        self.history.add(predictions, self.time_s)
        self._set_rows(predictions.unit_ids)

    def take_state(self, state: StreamState) -> None:
        """Take a state; a new epoch without predictions yet begins with the units of its table again."""
        if self.predictions is not None and state.epoch != self.predictions.epoch:
            self.predictions, self.activity, self.placement = None, None, {}
            self.geometry_is_due = True
        if self.state is None or state.units != self.state.units or state.epoch != self.state.epoch:
            self.geometry_is_due = True
        if self.state != state:
            self.state = state
            self.seq += 1

    def take_units(self, units: ActivityReply) -> None:
        """Take the unit table, with the geometry of every unit."""
        self.geometry_is_due = False
        if self.units is None or not _same_table(self.units, units):
            self.units = units
            self.layout += 1
            self.seq += 1
        if self.predictions is None:
            self._set_rows(units.unit_ids)

    def _set_rows(self, unit_ids: tuple[str, ...]) -> None:
        if unit_ids != self.unit_ids:
            self.unit_ids = unit_ids
            self.layout += 1
            self.geometry_is_due = True

    # -- what goes out -----------------------------------------------------------------------------------------------

    @property
    def time_s(self) -> float:
        """Seconds of the stream at the end of the last window, counted from its origin."""
        last = self.predictions
        return 0.0 if last is None else float((last.end_sample - last.origin) / last.sample_rate)

    def rows_of(self, reply: ActivityReply) -> npt.NDArray[np.int64]:
        """Return the row of each of our units in `reply`, -1 for one that is not in it."""
        place = {unit_id: row for row, unit_id in enumerate(reply.unit_ids)}
        return np.array([place.get(unit_id, -1) for unit_id in self.unit_ids], dtype=np.int64)

    def layout_frame(self) -> tuple[dict[str, Any], Arrays]:
        """Return who is in which row and where: what changes seldom."""
        units = self.units
        nothing = np.full(len(self.unit_ids), np.nan, dtype=np.float32)
        shank, x_um, depth_um, channel = np.full(len(nothing), -1, dtype=np.int32), nothing, nothing, None
        if units is not None:
            rows = self.rows_of(units)
            shank = _at(units.shank, rows, -1)
            channel = _at(units.channel, rows, -1)
            x_um, depth_um = _at(units.x_um, rows, np.nan), _at(units.depth_um, rows, np.nan)
        tasks = () if self.predictions is None else self.predictions.tasks
        header = {
            "stream": self.stream,
            "layout": self.layout,
            "unit_ids": list(self.unit_ids),
            "tasks": [{"name": task.name, "classes": list(task.classes)} for task in tasks],
        }
        arrays: Arrays = {"shank": shank, "x_um": x_um, "depth_um": depth_um}
        if self.contacts is not None:
            contacts = self.contacts
            arrays |= {"contact_shank": contacts.shank, "contact_x": contacts.x_um, "contact_depth": contacts.depth_um}
        return header, arrays if channel is None else arrays | {"channel": channel}

    def summary(self) -> dict[str, Any]:
        """Return how the probe is doing, as the header of a frame has it."""
        state, last = self.state, self.predictions
        found: dict[str, Any] = {"stream": self.stream, "layout": self.layout, "units": len(self.unit_ids)}
        if state is not None:
            found |= {"state": state.state, "reasons": list(state.reasons), "progress": state.progress}
            found |= {"epoch": state.epoch, "skipped_steps": state.skipped_steps, "table_units": state.units}
        if last is not None:
            found |= {"time_s": self.time_s, "step": last.step, "missing": last.missing, "hop_s": last.hop_s}
            found |= {"window_s": last.window_s, "active_units": last.active_units, "bundle": last.bundle}
            found |= {"flips": [task.flips for task in last.tasks]}
        return found

    def slow_summary(self) -> dict[str, Any]:
        """Return what once a second is enough for: counters and latencies."""
        found: dict[str, Any] = {"counters": {} if self.state is None else dict(self.state.counters)}
        if self.latency_ms:
            p50, p95, p99 = np.percentile(np.array(self.latency_ms), (50, 95, 99)).round(2).tolist()
            found["latency_ms"] = {"p50": p50, "p95": p95, "p99": p99, "steps": len(self.latency_ms)}
        return found

    def brief(self, task: int) -> Arrays:
        """Return what a probe in the overview needs: of one task the top class and its probability, 0 if abstained."""
        last = self.predictions
        if last is None or task >= len(last.tasks):
            return {}
        top, p = _top(last.tasks[task])
        return {"top": top, "p": np.where(last.tasks[task].why == 0, np.maximum(p, 1), 0).astype(np.uint8)}

    def full(self) -> Arrays:
        """Return what is shown of every unit of the probe that is watched: of task 0 `top0`, `p0`, `why0`, `doubt0`."""
        last = self.predictions
        if last is None:
            return {}
        arrays: Arrays = {"flags": last.flags}
        for place, task in enumerate(last.tasks):
            arrays[f"top{place}"], arrays[f"p{place}"] = _top(task)
            arrays[f"why{place}"], arrays[f"doubt{place}"] = task.why, entropy(task)
        return arrays

    def slow(self) -> Arrays:
        """Return what changes slowly of every unit: `stable0` are seconds, NaN without a prediction, `set0` a size."""
        last = self.predictions
        if last is None:
            return {}
        arrays: Arrays = {"windows": last.windows, "exposure": last.exposure, "ood": last.ood_score}
        for place, task in enumerate(last.tasks):
            stable = ((last.end_sample - task.stable_since) / float(last.sample_rate)).astype(np.float32)
            arrays[f"stable{place}"] = np.where(task.stable_since == -1, np.float32(np.nan), stable)
            arrays[f"set{place}"] = np.minimum(task.sets.sum(axis=1), 255).astype(np.uint8)
        return arrays

    def activity_frame(self) -> tuple[dict[str, Any], Arrays] | None:
        """Return the counts of the last window in the order of our rows, and the rate of every unit in spikes a second.

        Spikes go in two bits a bin, traces in eight. None while no window is known.
        """
        found, last = self.activity, self.predictions
        if found is None or last is None or not found.counts.shape[1]:
            return None
        rows = self.rows_of(found)
        counts = _at(found.counts, rows, 0)
        observed_s = max(float(found.observed.mean()) * last.window_s, 1e-9)
        rate = (counts.sum(axis=1) * found.scale / observed_s).astype(np.float32)
        bits = 2 if found.scale == 1 else 8
        header = {
            "stream": self.stream,
            "layout": self.layout,
            "bins": counts.shape[1],
            "bits": bits,
            "end_s": float((found.end_sample - last.origin) / last.sample_rate),
            "window_s": last.window_s,
        }
        packed = two_bits(counts) if bits == 2 else np.ascontiguousarray(counts)
        return header, {"counts": packed, "observed": found.observed.astype(np.uint8), "rate": rate}

    def unit_frame(self, unit_id: str, evidence: dict[str, Any] | None) -> tuple[dict[str, Any], Arrays]:
        """Return everything about one unit: full distributions, sets, history, and the evidence if there is any."""
        header: dict[str, Any] = {"stream": self.stream, "unit_id": unit_id, "tasks": [], "evidence": evidence}
        history = self.history.of(unit_id)
        arrays: Arrays = {"time_s": history.time_s}
        for place, (probabilities, why) in enumerate(zip(history.probabilities, history.why, strict=True)):
            arrays[f"p{place}"], arrays[f"why{place}"] = probabilities.ravel(), why
        if self.predictions is not None and unit_id in self.unit_ids:
            header["tasks"] = self._tasks_of(self.predictions, self.unit_ids.index(unit_id))
        return header, arrays

    def _tasks_of(self, last: Predictions, row: int) -> list[dict[str, Any]]:
        return [
            {
                "name": task.name,
                "classes": list(task.classes),
                "probabilities": [round(p, 4) for p in task.probabilities[row].tolist()],
                "set": [name for name, inside in zip(task.classes, task.sets[row], strict=True) if inside],
                "why": int(task.why[row]),
            }
            for task in last.tasks
        ]


def entropy(task: TaskPredictions) -> npt.NDArray[np.uint8]:
    """Return the entropy (U,) of every unit's probabilities as a share of the largest possible, 255 for that."""
    p = np.maximum(task.probabilities, 1e-9)
    share = -(p * np.log(p)).sum(axis=1) / np.log(max(len(task.classes), 2))
    return as_bytes(np.clip(share, 0, 1).astype(np.float32))


def _top(task: TaskPredictions) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    # classes beyond 255 share a number: the page has no colours for so many, and the unit's detail has them all
    top = task.probabilities.argmax(axis=1)
    p = task.probabilities[np.arange(len(top)), top]
    return np.minimum(top, 255).astype(np.uint8), as_bytes(p)


def _at(values: npt.NDArray[Any], rows: npt.NDArray[np.int64], unknown: float) -> npt.NDArray[Any]:
    """Return `values` at `rows`, `unknown` where the row is -1."""
    found = np.full((len(rows), *values.shape[1:]), unknown, dtype=values.dtype)
    found[rows >= 0] = values[rows[rows >= 0]]
    return found


def _same_table(one: ActivityReply, other: ActivityReply) -> bool:
    return one.unit_ids == other.unit_ids and all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name.endswith("um"))
        for name in ("shank", "x_um", "depth_um", "channel")
    )
