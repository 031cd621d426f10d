"""`nuclr-stream`: serve, replay, label, watch, demo, bench, doctor, check. The last line of stdout is JSON."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nuclr_stream.bundle.manifest import find_bundle, load_bundle, shipped_bundles
from nuclr_stream.config import DATA_ENDPOINT, QUERY_ENDPOINT, RESULTS_ENDPOINT, load_settings, parse_priors
from nuclr_stream.errors import ConfigError, DaemonGoneError, NuclrStreamError
from nuclr_stream.inference.model import Model, Provider, check_bundle
from nuclr_stream.recordings.readers import open_one, open_recordings
from nuclr_stream.recordings.recording import Recording

app = typer.Typer(
    name="nuclr-stream",
    help="Live cell-type and brain-region predictions for every recorded unit.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Bundle = Annotated[str, typer.Option("--bundle", help="Name of a shipped bundle, or its directory; NAME@ID takes no other.")]
Data = Annotated[str, typer.Option("--data-endpoint", help="Where the daemon takes spikes.")]
Results = Annotated[str, typer.Option("--results-endpoint", help="Where the daemon publishes.")]
Query = Annotated[str, typer.Option("--query-endpoint", help="Where the daemon answers.")]
Threads = Annotated[int, typer.Option("--threads", help="Of one inference; 0 takes all cores but one.")]

FILES = "Recordings: .npz, .nwb, torch_brain .h5, a Kilosort/phy folder, or a folder of any of these."
WARM_UNITS = 128


@app.command()
def serve(
    bundle: Bundle = "",
    config: Annotated[Path | None, typer.Option("--config", help="TOML file, see configs/rig.toml.")] = None,
    data_endpoint: Annotated[str | None, typer.Option(help="Sources push spikes here.")] = None,
    results_endpoint: Annotated[str | None, typer.Option(help="Predictions come out here.")] = None,
    query_endpoint: Annotated[str | None, typer.Option(help="Clients ask here.")] = None,
    http_port: Annotated[int | None, typer.Option(help="/metrics, /livez, /readyz, /status on 127.0.0.1.")] = None,
    hop_s: Annotated[float | None, typer.Option(help="Seconds between windows instead of the bundle's.")] = None,
    provider: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of one inference; 0 takes all cores but one.")] = None,
    record: Annotated[str | None, typer.Option(help="Keep every prediction in this file.")] = None,
) -> None:
    """Run the daemon. One line of JSON on stdout says where it can be reached; SIGTERM ends it."""
    from nuclr_stream.daemon.daemon import Daemon

    given = {
        "bundle": bundle or None,
        "data_endpoint": data_endpoint,
        "results_endpoint": results_endpoint,
        "query_endpoint": query_endpoint,
        "http_port": http_port,
        "hop_s": hop_s,
        "provider": provider,
        "threads": threads,
        "record": record,
    }
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = load_settings(config, {name: value for name, value in given.items() if value is not None})
    model = _model(settings.bundle, provider=settings.provider, threads=settings.threads)
    if settings.hop_s:
        _check_hop(model, settings.hop_s)
    model.warm_up(min(WARM_UNITS, model.manifest.max_units))
    daemon = Daemon(settings, model)
    _end_on_signals(daemon.stop)
    print(
        json.dumps({"bundle": model.bundle_id, "provider": model.provider, "endpoints": daemon.endpoints}), flush=True
    )
    if not daemon.run():
        os._exit(0)  # a step that hangs must not keep the process


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=FILES)],
    speed: Annotated[str, typer.Option(help="Times real time, or max.")] = "1",
    recording_id: Annotated[str, typer.Option(help="Which recording, where the file holds several probes.")] = "",
    stream: Annotated[str, typer.Option(help="Name of the stream; the recording's id by default.")] = "",
    data_endpoint: Data = DATA_ENDPOINT,
    results_endpoint: Results = RESULTS_ENDPOINT,
    query_endpoint: Query = QUERY_ENDPOINT,
) -> None:
    """Play a recording into a running daemon; it never runs ahead of what the daemon has published."""
    from nuclr_stream.client.replay import replay as play

    recording = open_one(file, recording_id)
    latency_ms: list[float] = []
    skipped = 0
    with _progress() as progress:
        task = progress.add_task(recording.recording_id, total=recording.duration_s)
        for one in play(
            recording,
            stream=stream,
            speed=_speed(speed),
            data=data_endpoint,
            results=results_endpoint,
            query=query_endpoint,
        ):
            latency_ms.append(1000 * one.latency_s)
            skipped = one.predictions.skipped_steps
            progress.update(task, completed=float(one.predictions.end_sample / recording.sample_rate))
    found = np.percentile(latency_ms, [50, 95, 99]) if latency_ms else np.zeros(0)
    _say(
        {
            "recording_id": recording.recording_id,
            "predictions": len(latency_ms),
            "recording_s": recording.duration_s,
            "skipped_steps": skipped,
            "latency_ms": {name: round(float(v), 3) for name, v in zip(("p50", "p95", "p99"), found, strict=False)},
        }
    )


@app.command()
def label(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=FILES)],
    out: Annotated[Path, typer.Option("--out", help="The CSV file to write.")],
    bundle: Bundle = "",
    every: Annotated[float | None, typer.Option("--every", help="Also a row at every multiple of it, in s.")] = None,
    hop_s: Annotated[float | None, typer.Option(help="Seconds between windows instead of the bundle's.")] = None,
    half_life_s: Annotated[float | None, typer.Option(help="Seconds of windows after which one counts half.")] = None,
    prior: Annotated[list[str] | None, typer.Option(help="How common a class is, as task.CLASS=weight.")] = None,
    threads: Threads = 0,
    placement: Annotated[Path | None, typer.Option(help="Also write where the units lie by depth, as JSON.")] = None,
    trajectory: Annotated[
        Path | None, typer.Option(help="A plan to compare with: a CSV file with region, from_um, to_um.")
    ] = None,
) -> None:
    """Label recordings in process, with what the daemon would have predictions."""
    from nuclr_stream.commands.label import write_labels
    from nuclr_stream.placement.report import Reports

    model = _model(bundle, provider="auto", threads=threads)
    if hop_s is not None:
        _check_hop(model, hop_s)
    reports = None if placement is None else Reports(model.manifest, placement, trajectory)
    if trajectory is not None and reports is None:
        raise ConfigError(f"--trajectory {trajectory} is compared with what --placement FILE writes; give both")
    recordings = [recording for file in files for recording in open_recordings(file)]
    with _progress() as progress:
        tasks = {r.recording_id: progress.add_task(r.recording_id, total=r.duration_s) for r in recordings}
        rows = write_labels(
            recordings,
            model,
            out,
            hop_s=hop_s,
            every_s=every,
            half_life_s=half_life_s,
            priors=parse_priors(prior or ()),
            on_window=lambda recording, s: progress.update(tasks[recording.recording_id], completed=s),
            on_end=None if reports is None else reports.add,
        )
    if reports is not None:
        reports.write([recording.recording_id for recording in recordings])
    _say({"out": out.name, "recordings": len(recordings), "rows": rows, "bundle": model.bundle_id})


@app.command()
def watch(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Name of the stream, the probe's id.")],
    steps: Annotated[int, typer.Option(help="End after so many predictions; 0 goes on for ever.")] = 0,
    results_endpoint: Results = RESULTS_ENDPOINT,
    query_endpoint: Query = QUERY_ENDPOINT,
) -> None:
    """Show the units of a stream live; waits for the daemon when it is gone."""
    from nuclr_stream.client.subscriber import subscribe
    from nuclr_stream.commands.screen import Screen

    seen = 0
    console = Console()
    with subscribe(stream, results=results_endpoint, query=query_endpoint) as predictions, Screen(console) as screen:
        while not steps or seen < steps:
            try:
                screen.show(next(predictions))
                seen += 1
            except DaemonGoneError as error:
                console.print(str(error), soft_wrap=True, highlight=False)


@app.command()
def demo(
    bundle: Bundle = "demo",
    recording: Annotated[Path | None, typer.Option("--recording", help="Another one than the shipped (.npz).")] = None,
) -> None:
    """Show everything: a real daemon, a recording played into it, a live table, and how right it was."""
    from nuclr_stream.commands.demo import RECORDING, in_words, run_demo

    find_bundle(bundle)
    console = Console()
    summary = run_demo(Recording.load(recording or RECORDING), console, bundle=bundle)
    for line in in_words(summary):
        console.print(line, soft_wrap=True, highlight=False)
    _say(summary)


@app.command()
def bench(
    units: Annotated[int, typer.Option(help="Units of the probe.")] = 400,
    steps: Annotated[int, typer.Option(help="Steps to time.")] = 50,
    bundle: Bundle = "demo",
    threads: Threads = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Nothing but the JSON line.")] = False,
) -> None:
    """Time this machine: input, and close of a window to prediction beside the bare encoder."""
    from nuclr_stream.commands.bench import run_bench

    model = _model(bundle, provider="auto", threads=threads)
    if not 1 <= units <= model.manifest.max_units:
        raise ConfigError(f"--units {units}: bundle {model.bundle_id} takes 1 to {model.manifest.max_units}")
    with _progress(disable=as_json) as progress:
        task = progress.add_task("steps", total=steps)
        figures = run_bench(model, units=units, steps=steps, on_step=lambda n: progress.update(task, completed=n))
    _say(figures)


@app.command()
def doctor(
    data_endpoint: Data = DATA_ENDPOINT,
    results_endpoint: Results = RESULTS_ENDPOINT,
    query_endpoint: Query = QUERY_ENDPOINT,
) -> None:
    """Say which port answers, what was seen and why nothing arrives. Exit 1 when something is wrong."""
    from nuclr_stream.commands.doctor import diagnose

    findings = diagnose(data=data_endpoint, results=results_endpoint, query=query_endpoint)
    for finding in findings:
        print(f"{finding.verdict:<5} {finding.text}")
    bad = sum(finding.verdict == "bad" for finding in findings)
    _say({"findings": len(findings), "bad": bad})
    raise typer.Exit(1 if bad else 0)


@app.command()
def check(bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A shipped name or a directory.")]) -> None:
    """Verify a bundle: every hash, and its sample window replayed on this machine."""
    loaded = load_bundle(find_bundle(bundle))
    differences = check_bundle(loaded)
    _say({"bundle": loaded.bundle_id, "files": len(loaded.files), "max_abs": differences})


def main() -> None:
    """Run the command line; an error raised on purpose is one line on stderr and exit code 2."""
    try:
        app()
    except NuclrStreamError as error:
        print(f"nuclr-stream: {error}", file=sys.stderr)
        sys.exit(2)


def _model(bundle: str, *, provider: Provider, threads: int) -> Model:
    if not bundle:
        shipped = ", ".join(shipped_bundles()) or "none in this installation"
        raise ConfigError(
            f"no bundle: pass --bundle NAME (shipped: {shipped}) or --bundle DIR; "
            "nuclr-export bundle RUN --out DIR makes one from a training run"
        )
    model = Model(load_bundle(find_bundle(bundle)), provider=provider, threads=threads or None)
    if model.provider_note:
        logging.getLogger(__name__).warning("running on %s: %s", model.provider, model.provider_note)
    return model


def _check_hop(model: Model, hop_s: float) -> None:
    try:
        model.manifest.spec.with_hop_s(hop_s)
    except ValueError as error:
        raise ConfigError(f"--hop-s: {error}") from error


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise ConfigError(f"--speed {text!r}: a positive number, or max")
    return speed


def _end_on_signals(stop: Any) -> None:
    """The first SIGTERM or SIGINT ends the daemon in order, the second at once."""

    def end(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
        signal.signal(signal.SIGINT, lambda *_: os._exit(1))
        stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


def _progress(*, disable: bool = False) -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=disable or not console.is_terminal)


def _say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)
