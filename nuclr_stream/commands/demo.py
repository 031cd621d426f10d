"""`nuclr-stream demo`: a daemon in a process of its own, a recording played into it, and how right it was."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console

from nuclr_stream.bundle.manifest import find_bundle
from nuclr_stream.client.replay import Received, replay
from nuclr_stream.client.subscriber import Query
from nuclr_stream.commands.dashboard import start_page
from nuclr_stream.commands.options import Bundle
from nuclr_stream.commands.output import print_json
from nuclr_stream.commands.screen import Screen
from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.wire import DaemonState, Predictions, StreamState

RECORDING = Path(__file__).parents[1] / "recordings" / "demo.npz"
PLAY_S = 35.0
"""The recording is played so fast that it takes this long, if the machine can follow."""
LIMIT_S = 75.0
"""After this long the demo sums up what it has, on however slow a machine."""
_NO_LOSS = {"received", "accepted", "spikes_received", "spikes_accepted", "frames_received", "tables_repeated"}


def demo(
    bundle: Bundle = "demo",
    recording: Annotated[Path | None, typer.Option("--recording", help="Another one than the shipped (.npz).")] = None,
    stay: Annotated[
        bool, typer.Option("--stay", help="Go on in real time, over and over, for the live page; Ctrl-C ends it.")
    ] = False,
) -> None:
    """Show everything: a real daemon, a recording played into it, a live table and page, and how right it was."""
    find_bundle(bundle)
    console = Console()
    figures = run_demo(Recording.load(recording or RECORDING), console, bundle=bundle, stay=stay)
    for line in in_words(figures):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    print_json(figures)


def run_demo(recording: Recording, console: Console, *, bundle: str, stay: bool = False) -> dict[str, Any]:
    """Play `recording` through a daemon of its own, show it on `console`, and return the figures of the summary.

    A live page runs beside it; with `stay` the recording goes on in real time, over and over, until Ctrl-C. Raises
    NuclrStreamError when the daemon cannot start, the cause as the daemon gave it.
    """
    begun = time.monotonic()
    with daemon_process(bundle) as endpoints, page_process(endpoints) as url:
        console.print(f"live page: {url}", soft_wrap=True, highlight=False, markup=False)
        data, results, query = (endpoints[name] for name in ("data", "results", "query"))
        started = time.monotonic()
        received: list[Received] = []
        with Screen(console, order=_by_depth(recording), line_every_s=recording.duration_s / 20) as screen:
            speed = max(recording.duration_s / PLAY_S, 1.5)
            for one in replay(recording, speed=speed, data=data, results=results, query=query):
                received.append(one)
                screen.show(one.predictions, _agreement(recording, one.predictions))
                if time.monotonic() - begun > LIMIT_S:
                    break
        wall_s = time.monotonic() - started
        losses = _losses(query, recording.recording_id)
        if stay:
            console.print(f"goes on in real time at {url}; Ctrl-C ends it", soft_wrap=True, highlight=False)
        with suppress(KeyboardInterrupt):
            while stay:
                for _ in replay(recording, speed=1.0, data=data, results=results, query=query):
                    pass
    return summary(recording, received, wall_s=wall_s, losses=losses)


@contextmanager
def daemon_process(bundle: str) -> Iterator[dict[str, str]]:
    """Run `nuclr-stream serve` on free ports; yields its endpoints, ends it in the end."""
    free = ["--data-endpoint", "tcp://127.0.0.1:0", "--results-endpoint", "tcp://127.0.0.1:0"]
    free += ["--query-endpoint", "tcp://127.0.0.1:0", "--http-port", "0"]
    command = [sys.executable, "-m", "nuclr_stream", "serve", "--bundle", bundle, *free]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    try:
        first = process.stdout.readline()
        if not first:
            raise NuclrStreamError(f"the daemon did not start: {process.stderr.read().strip()}")
        yield json.loads(first)["endpoints"]
    finally:
        process.terminate()
        try:
            process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextmanager
def page_process(endpoints: dict[str, str]) -> Iterator[str]:
    """Run the live page of a daemon on a free port; yields its URL, or why there is none, and ends it in the end."""
    with start_page(endpoints, port=0, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            yield json.loads(first)["url"] if first else "none, see above"
        finally:
            process.terminate()


def summary(recording: Recording, received: list[Received], *, wall_s: float, losses: dict[str, int]) -> dict[str, Any]:
    """Return the figures of a run: macro-F1 per task against the ground truth, latency percentiles, losses."""
    if not received:
        raise NuclrStreamError(f"{recording.recording_id}: shorter than one window, so nothing can be predicted")
    last = received[-1].predictions
    played_s = float(last.end_sample / last.sample_rate)
    latency = np.percentile([1000 * one.latency_s for one in received], [50, 95, 99])
    scores = {
        f"{task}_macro_f1": round(
            macro_f1(recording.units[task].astype(np.str_), top_classes(recording, last, task)), 4
        )
        for task in ("cell_type", "brain_region")
        if task in recording.units
    }
    return {
        "predictions": len(received),
        "recording_s": round(played_s, 3),
        "speed": round(played_s / wall_s, 2),
        **scores,
        "latency_ms": {
            name: round(float(value), 3) for name, value in zip(("p50", "p95", "p99"), latency, strict=True)
        },
        "losses": losses,
    }


def in_words(figures: dict[str, Any]) -> list[str]:
    """Return the summary for people, a line each."""
    lines = [f"{figures['recording_s']:g} s of recording at {figures['speed']:g} x real time"]
    for name in ("cell_type", "brain_region"):
        if f"{name}_macro_f1" in figures:
            lines.append(
                f"{name.replace('_', ' ')}: macro-F1 {figures[f'{name}_macro_f1']:.2f} against the ground truth"
            )
    latency = ", ".join(f"{name} {value:.1f} ms" for name, value in figures["latency_ms"].items())
    losses = ", ".join(f"{reason} {count}" for reason, count in figures["losses"].items()) or "nothing"
    return [*lines, f"last spikes of a window to its predictions: {latency}", f"lost on the way: {losses}"]


def top_classes(recording: Recording, predictions: Predictions, task: str) -> npt.NDArray[np.str_]:
    """Return the top class (U,) of every unit of the recording, abstained or not; empty for one without a window."""
    row_of = {unit_id: row for row, unit_id in enumerate(predictions.unit_ids) if predictions.windows[row]}
    for answer in predictions.tasks:
        if answer.name == task:
            tops = np.array(answer.classes)[answer.probabilities.argmax(axis=1)]
            return np.array([tops[row_of[u]] if u in row_of else "" for u in recording.unit_ids.tolist()])
    return np.full(len(recording.unit_ids), "")


def macro_f1(truth: npt.NDArray[np.str_], predicted: npt.NDArray[np.str_]) -> float:
    """Return the mean of the F1 scores of the classes that occur in `truth` (U,); units without truth ("") are out."""
    labelled = truth != ""
    truth, predicted = truth[labelled], predicted[labelled]
    scores = []
    for name in np.unique(truth):
        right = np.count_nonzero((truth == name) & (predicted == name))
        scores.append(2 * right / (np.count_nonzero(truth == name) + np.count_nonzero(predicted == name)))
    return float(np.mean(scores))


def _by_depth(recording: Recording) -> list[str]:
    depth = recording.units.get("depth_um", np.zeros(len(recording.unit_ids)))
    return [str(unit_id) for unit_id in recording.unit_ids[np.argsort(depth, kind="stable")]]


def _agreement(recording: Recording, predictions: Predictions) -> str:
    """Return how many units of each task agree with the ground truth by now."""
    shares = []
    for task in predictions.tasks:
        if task.name in recording.units:
            right = np.mean(
                recording.units[task.name].astype(np.str_) == top_classes(recording, predictions, task.name)
            )
            shares.append(f"{task.name} {100 * right:.0f} %")
    return "right: " + ", ".join(shares) if shares else ""


def _losses(query: str, stream: str) -> dict[str, int]:
    """Return whatever was lost or rejected on the way, by reason; empty when nothing was."""
    with Query(query) as ask:
        messages = ask.snapshot(stream).messages
    found: dict[str, int] = {}
    for message in messages:
        if isinstance(message, StreamState | DaemonState):
            found |= {name: n for name, n in message.counters.items() if n and name not in _NO_LOSS}
        if isinstance(message, StreamState) and message.skipped_steps:
            found["skipped_steps"] = message.skipped_steps
    return found
