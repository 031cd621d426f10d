"""What the rows share: a real daemon in a process of its own, a probe that plays spikes into it, and the truth."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from nuclr_stream.bundle.manifest import find_bundle, load_bundle
from nuclr_stream.client import Publisher, Query, Subscription
from nuclr_stream.errors import DaemonGoneError
from nuclr_stream.inference.model import Model
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.wire import Input, Predictions, SpikeBatch, UnitAction, UnitTable

ROOT = Path(__file__).parents[2]
BUNDLE = "demo"
RATE = 30_000
BLOCK_S = 0.05
HEAD_S = 8.0
"""So much of a recording is played at once, so that the first window is there soon."""


class MissedError(Exception):
    """What a row waits for did not come in time."""


@cache
def model() -> Model:
    """The demo bundle on one CPU thread, for what a daemon should have said."""
    return Model(load_bundle(find_bundle(BUNDLE)), provider="cpu", threads=1)


class Process:
    """`nuclr-stream serve` on free ports, or on those of an earlier one; a context that ends it.

    `up` and `killed` are the monotonic times at which it could be reached, and was killed.
    """

    def __init__(self, folder: Path, *options: str, like: Process | None = None, bundle: str = BUNDLE) -> None:
        names = ("data", "results", "query")
        ports = [like.endpoints[name] if like else "tcp://127.0.0.1:0" for name in names]
        http = like.endpoints["http"].rsplit(":", 1)[1] if like else "0"
        arguments = ["serve", "--bundle", bundle, "--provider", "cpu", "--threads", "1", "--http-port", http]
        for name, endpoint in zip(names, ports, strict=True):
            arguments += [f"--{name}-endpoint", endpoint]
        self.log_path = folder / f"daemon_{time.time_ns()}.log"
        with self.log_path.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nuclr_stream", *arguments, *options],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise MissedError(f"the daemon ended with {self._process.wait()}: {self.log[-600:]}")
        self.endpoints: dict[str, str] = json.loads(line)["endpoints"]
        self.pid = self._process.pid
        self.up = time.monotonic()
        self.killed = 0.0

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end()
        self._close()

    def _close(self) -> None:
        """Let go of its stdout: one that is left open is a warning in whatever test comes later."""
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def log(self) -> str:
        """What it said on stderr."""
        return self.log_path.read_text()

    @property
    def rss_mb(self) -> float:
        """Resident memory."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def where(self, *names: str) -> dict[str, str]:
        """Endpoints by name, as arguments of clients."""
        return {name: self.endpoints[name] for name in names}

    def through(self, **endpoints: str) -> Any:
        """Return where a source finds it when some of its endpoints are those of a proxy."""
        return SimpleNamespace(endpoints=self.endpoints | endpoints)

    def status(self) -> dict[str, Any]:
        """The document of /status."""
        with Query(self.endpoints["query"], timeout_s=5.0) as query:
            return query.status()

    def get(self, path: str) -> tuple[int, str]:
        """Code and body of an HTTP request, code 0 without an answer."""
        try:
            with urllib.request.urlopen(self.endpoints["http"] + path, timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def kill(self) -> None:
        """kill -9."""
        self.killed = time.monotonic()
        self._process.kill()
        self._process.wait()
        self._close()

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def end(self, wait_s: float = 10.0) -> int:
        """SIGTERM; returns the exit status, -9 where it had to be killed."""
        self._process.terminate()
        try:
            return self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Probe:
    """A probe that plays random spikes in real time, `speed` times as fast; the same seed gives the same spikes.

    `gate` says whether it may go on to a sample: with it a slow machine skips no step for being slow.
    """

    def __init__(
        self,
        daemon: Any,
        stream: str = "probe",
        *,
        units: int = 12,
        seed: int = 0,
        speed: float = 1.0,
        keep: bool = True,
    ) -> None:
        self.stream, self.units, self.seed, self.speed = stream, units, seed, speed
        self.publisher = Publisher(
            daemon.endpoints["data"],
            stream=stream,
            sample_rate=RATE,
            query=daemon.endpoints["query"] if keep else None,
        )
        self.index = self.publisher.units([f"u{row}" for row in range(units)])
        self.gate: Callable[[int], bool] = lambda stop: True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.publisher.close(linger_s=0)

    def finish(self) -> None:
        """Stop playing; what was played has been sent."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        started = time.monotonic() - HEAD_S / self.speed
        block = int(BLOCK_S * RATE)
        while not self._over.is_set():
            due = started + (self.publisher.watermark + block) / RATE / self.speed
            if self._over.wait(max(due - time.monotonic(), 0)):
                return
            start = self.publisher.watermark
            while not self.gate(start + block):
                if self._over.wait(0.01):
                    return
            samples, rows = spikes(self.seed, self.units, start, start + block)
            self.publisher.spikes(samples, self.index[rows], stop=start + block)


def spikes(seed: int, units: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples (N,) and rows (N,) of a stretch: 2 to 12 Hz by unit; the stretch alone decides them, and the seed."""
    rng = np.random.default_rng([seed, start, stop])
    rates = np.linspace(2, 12, units)
    counts = rng.poisson(rates * (stop - start) / RATE)
    samples = rng.integers(start, stop, counts.sum())
    order = np.argsort(samples, kind="stable")
    return samples[order], np.repeat(np.arange(units), counts)[order]


def truth(*, units: int, seed: int, stop: int) -> dict[int, Predictions]:
    """What an uninterrupted daemon says about a probe up to sample `stop`, by the end of the window."""
    said: dict[int, Predictions] = {}
    played(units=units, seed=seed, stop=stop, said=said)
    return said


def played(*, units: int, seed: int, stop: int, said: dict[int, Predictions] | None = None) -> Labeler:
    """A labeler to which the spikes of a probe up to sample `stop` were played; its predictions go into `said`."""
    labeler = Labeler(model(), stream="truth")
    for message in messages(units=units, seed=seed, stop=stop):
        labeler.push(message)
        while (labelled := labeler.step()) is not None:
            if said is not None:
                said[labelled.predictions.end_sample] = labelled.predictions
    return labeler


def messages(*, units: int, seed: int, stop: int) -> Iterator[Input]:
    """What a probe sends up to sample `stop`, numbered from 0: its table, then a block of spikes after the other."""
    header: dict[str, Any] = {"stream": "truth", "epoch": 1, "sample_rate": Fraction(RATE)}
    yield _table(units, header)
    block = int(BLOCK_S * RATE)
    for number, start in enumerate(range(0, stop, block)):
        samples, rows = spikes(seed, units, start, start + block)
        batch = header | {"seq": number + 1, "start": start, "stop": start + block, "table_version": 0}
        yield SpikeBatch(**batch, samples=samples, units=rows.astype(np.uint32))


def _table(units: int, header: dict[str, Any]) -> UnitTable:
    return UnitTable(
        **header,
        seq=0,
        version=0,
        full=True,
        sample=0,
        action=np.full(units, UnitAction.ADD, dtype=np.uint8),
        index=np.arange(units, dtype=np.uint32),
        into=np.zeros(units, dtype=np.uint32),
        added=np.zeros(units, dtype=np.int64),
        shank=np.full(units, -1, dtype=np.int32),
        x_um=np.full(units, np.nan, dtype=np.float32),
        depth_um=np.full(units, np.nan, dtype=np.float32),
        channel=np.full(units, -1, dtype=np.int32),
        unit_ids=tuple(f"u{row}" for row in range(units)),
    )


def same(found: Predictions, expected: Predictions) -> bool:
    """Whether two predictions say the same about the same window, bit by bit."""
    pairs = [(getattr(found, name), getattr(expected, name)) for name in ("windows", "exposure", "ood_score", "flags")]
    for one, other in zip(found.tasks, expected.tasks, strict=True):
        pairs += [
            (getattr(one, name), getattr(other, name)) for name in ("probabilities", "sets", "why", "stable_since")
        ]
    plain = [(getattr(found, name), getattr(expected, name)) for name in ("step", "end_sample", "unit_ids", "missing")]
    return all(a == b for a, b in plain) and all(a.tobytes() == b.tobytes() for a, b in pairs)


class Listener:
    """Everything that a daemon publishes about a stream, with the time of arrival, in a thread; a context."""

    def __init__(self, daemon: Process, stream: str = "") -> None:
        self.subscription = Subscription(stream, **daemon.where("results", "query"))
        self.heard: list[tuple[float, Predictions]] = []
        self.states: list[tuple[float, Any]] = []
        self.gone = 0
        self._over = False
        self._new = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        self.subscription.close()

    def wait(self, found: Callable[[], Any], timeout_s: float, what: str) -> None:
        """Return when `found` is true after a message; raises MissedError."""
        with self._new:
            if not self._new.wait_for(found, timeout_s):
                raise MissedError(f"{what}: not within {timeout_s:g} s")

    def after(self, at: float) -> list[tuple[float, Predictions]]:
        """What arrived after a monotonic time."""
        return [one for one in self.heard if one[0] >= at]

    def pause(self, seconds: float) -> None:
        """Let time pass for all others."""
        with self._new:
            self._new.wait_for(lambda: False, seconds)

    def _run(self) -> None:
        while not self._over:
            try:
                message = self.subscription.receive(0.1)
            except DaemonGoneError:
                self.gone += 1
                continue
            if message is None:
                continue
            with self._new:
                if isinstance(message, Predictions):
                    self.heard.append((time.monotonic(), message))
                elif hasattr(message, "progress"):
                    self.states.append((time.monotonic(), message))
                self._new.notify_all()


@contextmanager
def daemon(folder: Path, *options: str) -> Iterator[Process]:
    """A daemon that is ended on the way out."""
    with Process(folder, *options) as process:
        yield process


def percentile(values: Sequence[float], q: float) -> float:
    """A percentile for a table, 0 where there is nothing."""
    return round(float(np.percentile(values, q)), 3) if len(values) else 0.0
