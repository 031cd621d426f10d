"""`nuclr-stream bench`: input in spikes per second, and time from the close of a window to its prediction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from nuclr_stream.client import Publisher, Query, Subscription
from nuclr_stream.commands.machine import MachineWatch
from nuclr_stream.commands.options import Bundle, Threads, load_model
from nuclr_stream.commands.output import print_json, progress_bar
from nuclr_stream.config import Settings
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.errors import ConfigError
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.wire import Predictions, decode, encode

SAMPLE_RATE = 30_000
RATE_HZ = 5.0
"""Mean rate of a unit in the benchmark."""
BATCH_SPIKES = 400
SEED = 0
BLOCK_SAMPLES = SAMPLE_RATE // 50


def bench(
    units: Annotated[int, typer.Option(help="Units of the probe.")] = 400,
    steps: Annotated[int, typer.Option(help="Steps to time.")] = 50,
    bundle: Bundle = "demo",
    threads: Threads = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Nothing but the JSON line.")] = False,
) -> None:
    """Time this machine: input, and close of a window to prediction beside the bare encoder."""
    model = load_model(bundle, threads=threads)
    if not 1 <= units <= model.manifest.max_units:
        raise ConfigError(f"--units {units}: bundle {model.bundle_id} takes 1 to {model.manifest.max_units}")
    with progress_bar(disable=as_json) as progress:
        task = progress.add_task("steps", total=steps)
        figures = run_bench(model, units=units, steps=steps, on_step=lambda n: progress.update(task, completed=n))
    print_json(figures)


def run_bench(
    model: Model, *, units: int, steps: int, on_step: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """Return the figures: input throughput, and latency over `steps` steps beside the bare encoder, taken by turns.

    `machine` says what they were measured on, and how much else ran.
    """
    watch = MachineWatch()
    rng = np.random.default_rng(SEED)
    throughput = input_throughput(model, units=units, rng=rng)
    latency_ms, bare_ms = step_latency(model, units=units, steps=steps, rng=rng, on_step=on_step)
    latency, bare = _percentiles(latency_ms), _percentiles(bare_ms)
    return {
        "units": units,
        "steps": steps,
        "seed": SEED,
        "bundle": model.bundle_id,
        "provider": model.provider,
        "threads": model.threads,
        "spikes_per_s": round(throughput),
        "latency_ms": latency,
        "encoder_ms": bare,
        "ratio": {name: round(latency[name] / bare[name], 3) for name in latency},
        "overhead_ms": {name: round(latency[name] - bare[name], 3) for name in latency},
        "machine": watch.facts(),
    }


def input_throughput(model: Model, *, units: int, rng: np.random.Generator, duration_s: float = 200.0) -> float:
    """Return spikes per second through decoding and binning, in batches of about 400, windows cut included."""
    recording = _random_recording(units, duration_s, rng)
    block = max(1, round(BATCH_SPIKES / (units * RATE_HZ) * SAMPLE_RATE))
    frames = [encode(message) for message in recording_messages(recording, stream="bench", block_samples=block)]
    labeler = Labeler(model, stream="bench", max_units=units)
    start = time.perf_counter()
    for message in frames:
        labeler.push(decode(message))  # type: ignore[arg-type]  # what was encoded above is input
        while labeler.cut(0) is not None:
            pass
    return len(recording.spike_samples) / (time.perf_counter() - start)


def step_latency(
    model: Model, *, units: int, steps: int, rng: np.random.Generator, on_step: Callable[[int], None]
) -> tuple[list[float], list[float]]:
    """Return ms from close of the window to publication, over a real daemon, and ms of the bare encoder, by turns."""
    spec = model.manifest.spec
    latency_ms: list[float] = []
    bare_ms: list[float] = []
    with _daemon(model, units) as endpoints:
        where = {name: endpoints[name] for name in ("results", "query")}
        with (
            Subscription("bench", **where) as subscription,
            Publisher(endpoints["data"], stream="bench", sample_rate=SAMPLE_RATE, start=0, wait_s=1.0) as rig,
        ):
            index = rig.units([f"u{i}" for i in range(units)])
            hop = int(spec.hop_s * SAMPLE_RATE)
            for step in range(-2, steps):  # two to warm up
                samples = int(spec.window_s * SAMPLE_RATE) if rig.watermark == 0 else hop
                _publish(rig, index, samples - BLOCK_SAMPLES, rng)
                _until_taken(endpoints["query"], rig.watermark)
                _publish(rig, index, BLOCK_SAMPLES, rng)  # the block that closes the window comes alone, as from a rig
                found = _next(subscription)
                if step >= 0:
                    latency_ms.append((found.published_ns - found.closed_ns) / 1e6)
                    bare_ms.append(_bare_ms(model, units, rng))
                    on_step(step + 1)
    return latency_ms, bare_ms


def _bare_ms(model: Model, units: int, rng: np.random.Generator) -> float:
    spec = model.manifest.spec
    counts = rng.poisson(RATE_HZ / float(spec.bins_per_second), (units, spec.bins)).astype(np.float32)
    start = time.perf_counter()
    model.embed(counts, np.ones(units, dtype=bool))
    return 1000 * (time.perf_counter() - start)


def _publish(rig: Publisher, index: npt.NDArray[np.uint32], samples: int, rng: np.random.Generator) -> None:
    """Send `samples` of random spikes in blocks."""
    last = rig.watermark + samples
    for start in range(rig.watermark, last, BLOCK_SAMPLES):
        stop = min(start + BLOCK_SAMPLES, last)
        spikes = rng.poisson(len(index) * RATE_HZ * (stop - start) / SAMPLE_RATE)
        rig.spikes(rng.integers(start, stop, spikes), rng.choice(index, spikes), stop=stop)


def _until_taken(query: str, watermark: int) -> None:
    """Wait until the daemon has binned everything up to `watermark`."""
    with Query(query) as ask:
        while ask.status()["streams"].get("bench", {"watermark": -1})["watermark"] < watermark:
            pass


def _next(subscription: Subscription) -> Predictions:
    while True:
        message = subscription.receive(30.0)
        if isinstance(message, Predictions):
            return message


def _random_recording(units: int, duration_s: float, rng: np.random.Generator) -> Recording:
    samples = int(duration_s * SAMPLE_RATE)
    spikes = int(units * RATE_HZ * duration_s)
    return Recording(
        recording_id="bench",
        subject_id="nobody",
        sample_rate=Fraction(SAMPLE_RATE),
        num_samples=samples,
        spike_samples=np.sort(rng.integers(0, samples, spikes)),
        spike_units=rng.integers(0, units, spikes).astype(np.int32),
        unit_ids=np.array([f"u{row}" for row in range(units)]),
    )


@contextmanager
def _daemon(model: Model, units: int) -> Iterator[dict[str, str]]:
    anywhere = "tcp://127.0.0.1:0"
    settings = Settings(
        data_endpoint=anywhere, results_endpoint=anywhere, query_endpoint=anywhere, http_port=0, max_units=units
    )
    daemon = Daemon(settings, model)
    thread = threading.Thread(target=daemon.run, name="daemon")
    thread.start()
    try:
        yield daemon.endpoints
    finally:
        daemon.stop()
        thread.join()


def _percentiles(values_ms: list[float]) -> dict[str, float]:
    found = np.percentile(values_ms, [50, 95, 99])
    return {name: round(float(value), 3) for name, value in zip(("p50", "p95", "p99"), found, strict=True)}
