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

from nuclr_stream.bundle import load_bundle
from nuclr_stream.config import Settings
from nuclr_stream.daemon import Daemon
from nuclr_stream.inference import Model
from nuclr_stream.recording import Recording

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
