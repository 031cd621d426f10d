"""A real daemon on free ports, real clients, and a small recording to play into it. Everything is torn down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.client.subscriber import Subscription
from nuclr_stream.config import Settings
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.wire import Predictions, StreamState

FREE_PORTS = {
    "data_endpoint": "tcp://127.0.0.1:0",
    "results_endpoint": "tcp://127.0.0.1:0",
    "query_endpoint": "tcp://127.0.0.1:0",
    "http_port": 0,
}


@pytest.fixture(scope="session")
def tiny_model(tiny_bundle: Path) -> Model:
    """The tiny bundle on one CPU thread, shared by all daemons of the tests."""
    return Model(load_bundle(tiny_bundle), provider="cpu", threads=1)


@contextmanager
def running(model: Model, **settings: Any) -> Iterator[Daemon]:
    """A daemon in a thread of its own on free ports; on leaving it is stopped, and must have ended within 5 s."""
    daemon = Daemon(Settings(**(FREE_PORTS | settings)), model)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        yield daemon
    finally:
        daemon.stop()
        thread.join(5)
        assert not thread.is_alive()


@pytest.fixture
def run_daemon(tiny_model: Model) -> Iterator[Callable[..., Daemon]]:
    """Start daemons with the settings given, several at once if need be."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running(tiny_model, **settings))


def make_recording(
    *, seed: int = 0, units: int = 20, duration_s: float = 20.0, rate_hz: float = 5.0, sample_rate: str = "30000"
) -> Recording:
    """Random spikes of `units` units with two cell types and two regions."""
    rng = np.random.default_rng(seed)
    rate = Fraction(sample_rate)
    num_samples = int(duration_s * rate)
    spikes = int(units * duration_s * rate_hz)
    return Recording(
        recording_id=f"random_{seed}",
        subject_id=f"subject_{seed}",
        sample_rate=rate,
        num_samples=num_samples,
        spike_samples=np.sort(rng.integers(0, num_samples, spikes)),
        spike_units=rng.integers(0, units, spikes).astype(np.int32),
        unit_ids=np.array([f"u{row}" for row in range(units)]),
        units={
            "cell_type": np.array([("E", "PV")[row % 2] for row in range(units)]),
            "brain_region": np.array([("CTX", "TH")[row % 3 == 0] for row in range(units)]),
            "depth_um": np.linspace(0, 3000, units),
        },
    )


@pytest.fixture
def recording() -> Recording:
    """20 s of 20 units."""
    return make_recording()


def where(daemon: Daemon, *names: str) -> dict[str, str]:
    """The endpoints of a daemon by name, as arguments of clients."""
    return {name: daemon.endpoints[name] for name in names or ("data", "results", "query")}


def until(subscription: Subscription, found: Callable[[Any], bool]) -> Any:
    """Receive until a message answers the description, and return it; fails after 1,000 others."""
    for _ in range(1000):
        message = subscription.receive(5.0)
        assert message is not None
        if found(message):
            return message
    raise AssertionError("it never came")


def ended(message: Any) -> bool:
    """Whether a message says that everything of its stream has been published."""
    return isinstance(message, StreamState) and message.state == "ended"


def predicted_in_process(recording: Recording, model: Model, *, block_samples: int = 7_777) -> list[Predictions]:
    """The predictions of a Labeler for a recording, without any daemon."""
    labeler = Labeler(model, stream="offline")
    predicted = []
    for message in recording_messages(recording, stream="offline", block_samples=block_samples):
        labeler.push(message)
        while (labelled := labeler.step()) is not None:
            predicted.append(labelled.predictions)
    return predicted


def assert_same(found: list[Predictions], expected: list[Predictions]) -> None:
    """Bitwise the same windows, units, exposure and probabilities, in the same order."""
    assert [one.end_sample for one in found] == [one.end_sample for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.step, one.unit_ids, one.state, one.reasons) == (
            other.step,
            other.unit_ids,
            other.state,
            other.reasons,
        )
        for name in ("windows", "exposure", "ood_score", "flags", "unit_index"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        for task, same in zip(one.tasks, other.tasks, strict=True):
            assert task.flips == same.flips
            for name in ("probabilities", "sets", "why", "stable_since"):
                assert np.array_equal(getattr(task, name), getattr(same, name)), (task.name, name)
