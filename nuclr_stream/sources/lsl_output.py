"""Predictions as Lab Streaming Layer outlets, one a task, on the clock of the host."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np

from nuclr_stream.sources.lsl import load_pylsl
from nuclr_stream.wire import Predictions, TaskPredictions


class LslOutput:
    """Publishes predictions as irregular double64 streams called STREAM.TASK: `take` each of them.

    Channels: `end_sample`, then for every unit the place of its called class in desc/classes (-1 where it abstains) and
    the probability of its top class. A sample's time stamp is when its window closed. Other units than before are a new
    outlet of the same name. Raises ConfigError without pylsl.
    """

    def __init__(self) -> None:
        self._lsl = load_pylsl()
        self.counters: Counter[str] = Counter()
        self._outlets: dict[tuple[str, str], tuple[tuple[str, ...], Any]] = {}

    def take(self, predictions: Predictions) -> None:
        """Push one prediction."""
        # LSL's clock is the host's monotonic one, from another zero
        age_s = (time.monotonic_ns() - predictions.closed_ns) / 1e9
        for task in predictions.tasks:
            top = task.probabilities.argmax(axis=1)
            values = np.empty(1 + 2 * len(top))
            values[0] = predictions.end_sample
            values[1::2] = np.where(task.abstained, -1, top)
            values[2::2] = task.probabilities.max(axis=1)
            outlet = self._outlet(predictions, task)
            outlet.push_sample(values.tolist(), self._lsl.local_clock() - age_s)
            self.counters["pushed"] += 1

    def _outlet(self, predictions: Predictions, task: TaskPredictions) -> Any:
        key = predictions.stream, task.name
        units, outlet = self._outlets.get(key, ((), None))
        if outlet is None or units != predictions.unit_ids:
            name = f"{predictions.stream}.{task.name}"
            channels = 1 + 2 * len(predictions.unit_ids)
            info = self._lsl.StreamInfo(name, "Predictions", channels, self._lsl.IRREGULAR_RATE, "double64", name)
            labels = [label for unit in predictions.unit_ids for label in (f"{unit} class", f"{unit} probability")]
            info.set_channel_labels(["end_sample", *labels])
            info.desc().append_child_value("bundle", predictions.bundle)
            info.desc().append_child_value("sample_rate", str(predictions.sample_rate))
            listed = info.desc().append_child("classes")
            for class_name in task.classes:
                listed.append_child("class").append_child_value("label", class_name)
            outlet = self._lsl.StreamOutlet(info)
            self._outlets[key] = predictions.unit_ids, outlet
            self.counters["outlets"] += 1
        return outlet

    def report(self) -> dict[str, Any]:
        """Return what was pushed."""
        return {"counters": dict(self.counters)}

    def close(self) -> None:
        """Take the outlets off the network."""
        self._outlets.clear()
