"""Predictions back into the Open Ephys GUI: TTL lines through its Network Events plugin, notes into its recording."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from nuclr_stream.errors import ConfigError
from nuclr_stream.sockets import connect, disconnect, give, take
from nuclr_stream.sources.open_ephys_control import ControlError, OpenEphysControl
from nuclr_stream.wire import Predictions

REPLY_S = 0.5
MAX_LINE = 256
MAX_LATENCIES = 100_000


@dataclass(frozen=True)
class TtlRule:
    """Line `line`, counted from 1 as the GUI shows it, is on while any unit is called `class_name` in `task`."""

    task: str
    class_name: str
    line: int

    @classmethod
    def parse(cls, text: str) -> TtlRule:
        """Return the rule of TASK.CLASS=LINE, such as cell_type.PV=3. Raises ConfigError."""
        name, _, line = text.rpartition("=")
        task, dot, class_name = name.partition(".")
        if not (task and dot and class_name and line.isdigit() and 1 <= int(line) <= MAX_LINE):
            raise ConfigError(f"--ttl {text}: give it as TASK.CLASS=LINE, such as cell_type.PV=3")
        return cls(task, class_name, int(line))

    def is_on(self, predictions: Predictions) -> bool:
        """Return whether any unit is called this class; abstained ones are called nothing."""
        for task in predictions.tasks:
            if task.name == self.task and self.class_name in task.classes:
                top = task.probabilities.argmax(axis=1)
                return bool(np.any((top == task.classes.index(self.class_name)) & ~task.abstained))
        return False


class NetworkEvents:
    """The GUI's Network Events plugin at `endpoint`, a REP socket that takes text."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        options = {zmq.REQ_RELAXED: 1, zmq.REQ_CORRELATE: 1, zmq.IMMEDIATE: 1}
        self._socket = connect(zmq.REQ, endpoint, "Network Events endpoint", max_bytes=2**20, options=options)

    def ttl(self, line: int, is_on: bool) -> bool:
        """Set a line and wait for the plugin's answer; False when there is none within half a second."""
        text = f"TTL Line={line} State={int(is_on)}"
        deadline = time.monotonic() + REPLY_S
        if not give(self._socket, [text.encode()], wait_s=REPLY_S):
            return False
        left_s = max(deadline - time.monotonic(), 0.0)
        return bool(self._socket.poll(int(left_s * 1000))) and take(self._socket) is not None

    def close(self) -> None:
        """Let go of the socket."""
        disconnect(self._socket)


class OpenEphysOutput:
    """Sends what follows from predictions to a GUI: `take` each of them, then `close`, which puts every line off.

    `counters`: ttl_sent, ttl_failed, notes_sent, notes_failed; what failed is tried again with the next prediction.
    """

    def __init__(
        self, *, events: NetworkEvents | None, rules: tuple[TtlRule, ...] = (), control: OpenEphysControl | None = None
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._events, self._rules, self._control = events, rules, control
        self._on: dict[int, bool] = {}
        self._ttl_ms: deque[float] = deque(maxlen=MAX_LATENCIES)
        self._note_ms: deque[float] = deque(maxlen=MAX_LATENCIES)

    def take(self, predictions: Predictions) -> None:
        """Put the lines where the rules say, and write a note."""
        wanted: dict[int, bool] = {}
        for rule in self._rules:
            wanted[rule.line] = wanted.get(rule.line, False) or rule.is_on(predictions)
        for line, is_on in wanted.items():
            if self._on.get(line, False) != is_on:
                self._set(line, is_on, since_ns=predictions.published_ns)
        if self._control is not None:
            try:
                self._control.note(note_of(predictions))
                self.counters["notes_sent"] += 1
                self._note_ms.append((time.monotonic_ns() - predictions.published_ns) / 1e6)
            except ControlError:
                self.counters["notes_failed"] += 1

    def _set(self, line: int, is_on: bool, *, since_ns: int) -> None:
        if self._events is not None and self._events.ttl(line, is_on):
            self._on[line] = is_on
            self.counters["ttl_sent"] += 1
            self._ttl_ms.append((time.monotonic_ns() - since_ns) / 1e6)
        else:
            self.counters["ttl_failed"] += 1

    def report(self) -> dict[str, Any]:
        """Return the counters, and percentiles in ms from the daemon's publishing to the GUI's answer."""
        found: dict[str, Any] = {"counters": dict(self.counters)}
        for name, values in (("ttl_ms", self._ttl_ms), ("note_ms", self._note_ms)):
            if values:
                p50, p95, p99 = np.percentile(list(values), [50, 95, 99]).round(3).tolist()
                found[name] = {"p50": p50, "p95": p95, "p99": p99}
        return found

    def close(self) -> None:
        """Put every line off: a stimulation must not go on because predictions ended."""
        for line, is_on in list(self._on.items()):
            if is_on:
                self._set(line, False, since_ns=time.monotonic_ns())
        if self._events is not None:
            self._events.close()


def note_of(predictions: Predictions) -> str:
    """Return a line for the recording: how many units are called what, at which device sample."""
    parts = [f"nuclr stream={predictions.stream} sample={predictions.end_sample} state={predictions.state}"]
    for task in predictions.tasks:
        called = np.bincount(task.probabilities.argmax(axis=1)[~task.abstained], minlength=len(task.classes))
        counts = [f"{name}={count}" for name, count in zip(task.classes, called.tolist(), strict=True) if count]
        parts.append(" ".join([f"{task.name}:", *counts, f"abstained={int(task.abstained.sum())}"]))
    return "; ".join(parts)
