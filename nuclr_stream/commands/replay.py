"""`nuclr-stream replay`: a recording played into a daemon, and how fast the predictions came back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nuclr_stream.client.replay import replay as play
from nuclr_stream.commands.options import FILES, Data, PopulationBy, Query, Results
from nuclr_stream.commands.output import print_json, print_notes, progress_bar
from nuclr_stream.config import DATA_ENDPOINT, QUERY_ENDPOINT, RESULTS_ENDPOINT
from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.readers import open_one


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=FILES)],
    speed: Annotated[str, typer.Option(help="Times real time, or max.")] = "1",
    recording_id: Annotated[str, typer.Option(help="Which recording, where the file holds several probes.")] = "",
    population_by: PopulationBy = "",
    stream: Annotated[str, typer.Option(help="Name of the stream; the recording's id by default.")] = "",
    data_endpoint: Data = DATA_ENDPOINT,
    results_endpoint: Results = RESULTS_ENDPOINT,
    query_endpoint: Query = QUERY_ENDPOINT,
) -> None:
    """Play a recording into a running daemon; it never runs ahead of what the daemon has published."""
    times = speed_of(speed)
    recording = open_one(file, recording_id, population_by=population_by)
    print_notes([recording])
    latency_ms: list[float] = []
    skipped = 0
    where = {"data": data_endpoint, "results": results_endpoint, "query": query_endpoint}
    with progress_bar() as progress:
        task = progress.add_task(recording.recording_id, total=recording.duration_s)
        for one in play(recording, stream=stream, speed=times, start=0, **where):
            latency_ms.append(1000 * one.latency_s)
            skipped = one.predictions.skipped_steps
            progress.update(task, completed=float(one.predictions.end_sample / recording.sample_rate))
    found = np.percentile(latency_ms, [50, 95, 99]) if latency_ms else np.zeros(0)
    print_json(
        {
            "recording_id": recording.recording_id,
            "predictions": len(latency_ms),
            "recording_s": recording.duration_s,
            "skipped_steps": skipped,
            "latency_ms": {name: round(float(v), 3) for name, v in zip(("p50", "p95", "p99"), found, strict=False)},
        }
    )


def speed_of(text: str) -> float | None:
    """Return how many times real time, None for as fast as the daemon follows."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise ConfigError(f"--speed {text!r}: a positive number, or max")
    return speed
