"""`nuclr-train`: simulate, pretrain, readout, evaluate, bench, check-reference. Heavy imports wait for a command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nuclr_stream.errors import ConfigError, NuclrStreamError
from nuclr_stream.recordings.recording import Recording
from offline_training.commands import calcium_cli, placement_cli, recordings_cli, report_cli
from offline_training.commands import compare as compare_command
from offline_training.commands import evaluate as evaluate_command
from offline_training.commands import readout as readout_command

app = typer.Typer(
    name="nuclr-train",
    help="Train NuCLR encoders and readouts on recordings, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Recordings = Annotated[Path, typer.Option("--recordings", help=recordings_cli.HELP)]
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file, see configs/pretrain_*.toml.")]


@app.command()
def simulate(
    out: Annotated[Path, typer.Option("--out", help="Folder for the .npz recordings.")],
    animals: Annotated[int, typer.Option(help="How many animals.")] = 16,
    first_seed: Annotated[int, typer.Option(help="Seed of the first animal; the next ones count up.")] = 1000,
    sessions: Annotated[int, typer.Option(help="Recordings of each animal.")] = 1,
    units: Annotated[int, typer.Option(help="Units of each recording.")] = 120,
    duration_s: Annotated[float, typer.Option(help="Length of each recording in seconds.")] = 600.0,
) -> None:
    """Write labelled populations of simulated animals."""
    from offline_training.simulation.animals import write_simulated

    paths = write_simulated(
        out, animals=animals, first_seed=first_seed, recordings=sessions, units=units, duration_s=duration_s
    )
    typer.echo(f"{len(paths)} recordings in {out}")


@app.command()
def pretrain(
    config: ConfigFile,
    recordings: Recordings,
    out: Annotated[Path, typer.Option("--out", help="Directory of the run.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    only: Annotated[str, typer.Option(help="Train on these subjects only, separated by commas.")] = "",
    without: Annotated[str, typer.Option(help="Leave these subjects out, separated by commas.")] = "",
    seed: Annotated[int | None, typer.Option(help="Instead of the config's training.seed.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of the config's training.steps.")] = None,
) -> None:
    """Train an encoder without labels. Ctrl-C saves and ends; --resume goes on with the very next step."""
    from offline_training.config import TrainConfig
    from offline_training.pretraining.distributed import is_first
    from offline_training.pretraining.pretrain import load_run
    from offline_training.pretraining.pretrain import pretrain as train

    settings = TrainConfig.load(config)
    if seed is not None:
        settings = settings.with_training(seed=seed)
    if steps is not None:
        settings = settings.with_training(steps=steps, epochs=None)
    loaded = recordings_cli.load_recordings(recordings, settings)
    chosen = _of_subjects(loaded, only=_names(only), without=_names(without))
    train(settings, chosen, out, resume=resume, title=settings.name)
    if not is_first():
        return
    info = load_run(out)[2]
    state = "finished" if info["finished"] else "stopped; --resume goes on"
    typer.echo(f"{out}: {info['step']}/{info['steps']} steps, {info['windows_per_s']} windows/s, {state}")


app.command()(readout_command.readout)
app.command()(recordings_cli.inspect)
app.command()(evaluate_command.evaluate)
app.command()(compare_command.compare)
app.command()(report_cli.report_results)
app.command()(calcium_cli.simulate_calcium)
app.command()(calcium_cli.normaliser_distance)
app.command()(placement_cli.placement)
app.command()(report_cli.report)
app.command()(report_cli.submission)
app.command()(report_cli.reproduce)


@app.command()
def bench(
    config: ConfigFile = Path("configs/pretrain_demo.toml"),
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of each precision and number of threads.")] = 12,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the JSON document in this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: the figures as one JSON document.")] = False,
) -> None:
    """Time training on this machine, on simulated animals: windows/s and CPU time by precision and threads."""
    import json

    from nuclr_stream.commands.machine import MachineWatch
    from offline_training.config import TrainConfig
    from offline_training.studies.bench import run_bench

    watch = MachineWatch()
    figures = run_bench(TrainConfig.load(config), steps=steps)
    document = json.dumps(figures | {"machine": watch.facts()})
    for run in figures["runs"]:
        typer.echo(
            f"{run['precision']}, {run['threads']} threads: {run['windows_per_s']:g} windows/s, "
            f"{run['step_s']:g} s and {run['cpu_s']:g} CPU s a step, {run['matmul_share']:.0%} of a large matrix "
            f"product; {run['loader_workers_to_keep_up']} loader workers keep up"
        )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(document + "\n", encoding="utf-8")
    if as_json:
        typer.echo(document)


@app.command()
def report_speed(
    speed: Annotated[Path, typer.Option(help="Folder of what the bench commands said.")] = Path("results/speed"),
    page: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/performance.md"),
) -> None:
    """Write docs/performance.md from measurements; nothing there is typed by hand."""
    from offline_training.reporting.performance import write_performance

    typer.echo(str(write_performance(speed, page)))


@app.command()
def check_reference(
    file: Annotated[Path, typer.Argument(metavar="FILE.npz", help="Published inputs, weights and outputs.")],
) -> None:
    """Compare encoder, losses and exported graph with the published numbers; exit 0 when all are within their bars."""
    import json

    from exporters.parity import graph_embedder
    from offline_training.studies.reference import check_reference as check

    report = check(file, graph_embedder)
    typer.echo(json.dumps(report.as_dict()))
    raise typer.Exit(0 if report.passed else 1)


def main() -> None:
    """Run the command line: an error raised on purpose is one line on stderr and exit code 2."""
    try:
        app()
    except NuclrStreamError as error:
        print(f"nuclr-train: {error}", file=sys.stderr)
        sys.exit(2)


def _names(listed: str) -> set[str]:
    return {name.strip() for name in listed.split(",") if name.strip()}


def _of_subjects(recordings: list[Recording], *, only: set[str], without: set[str]) -> list[Recording]:
    known = {recording.subject_id for recording in recordings}
    if unknown := (only | without) - known:
        raise ConfigError(f"no recording of subject {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    chosen = (only or known) - without
    return [recording for recording in recordings if recording.subject_id in chosen]
