"""`nuclr-train`: simulate, pretrain, readout, evaluate, bench, check-reference. Heavy imports wait for a command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nuclr_stream.errors import NuclrStreamError
from offline_training.commands import (
    anytime_cli,
    calcium_cli,
    evaluation_cli,
    experts_cli,
    inspect,
    placement_cli,
    pretrain,
    recordings_cli,
    report_cli,
    simulate,
    simulate_calcium,
    study_cli,
)

app = typer.Typer(
    name="nuclr-train",
    help="Train NuCLR encoders and readouts on recordings, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Recordings = Annotated[Path, typer.Option("--recordings", help=recordings_cli.HELP)]
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file, see configs/pretrain_*.toml.")]


app.command()(simulate.simulate)
app.command()(simulate_calcium.simulate_calcium)
app.command()(inspect.inspect)
app.command()(pretrain.pretrain)


@app.command()
def readout(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory that pretrain wrote.")],
    recordings: Recordings,
    hop_s: Annotated[float | None, typer.Option(help="Seconds between windows; one window if not given.")] = None,
) -> None:
    """Fit one readout per task of the run on labelled recordings and store them with the run."""
    from offline_training.pretraining.runs import Run
    from offline_training.readouts.run_readouts import fit_readouts

    loaded = recordings_cli.load_recordings(recordings, Run.open(run).config)
    for task, fitted in fit_readouts(run, loaded, hop_s=hop_s).items():
        typer.echo(f"{task}: macro-F1 {fitted.out_of_fold_f1:.3f} out of fold by {fitted.grouped_by}, C = {fitted.c:g}")


@app.command()
def recalibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run with readouts.")],
    folds: Annotated[Path, typer.Option("--folds", help="Folder of the encoders that `evaluate` trained per fold.")],
    recordings: Recordings,
    seed: Annotated[int, typer.Option(help="Take the folds of this seed.")] = 0,
) -> None:
    """Calibrate the readouts of a run on animals that neither the fold's encoder nor its readouts had seen."""
    from offline_training.pretraining.runs import Run
    from offline_training.readouts.run_readouts import recalibrate as calibrate_on_folds

    found = sorted(folds.glob(f"fold_*_seed{seed}"))
    loaded = recordings_cli.load_recordings(recordings, Run.open(run).config)
    for task, fitted in calibrate_on_folds(run, found, loaded).items():
        typer.echo(
            f"{task}: T(n) {fitted.calibration.temperature}, abstain below {fitted.calibration.abstain_below:.3f}"
        )


app.command()(evaluation_cli.evaluate)
app.command()(evaluation_cli.peer)
app.command()(experts_cli.predictors)
app.command()(anytime_cli.anytime)
app.command()(evaluation_cli.evaluate_simulated)
app.command()(study_cli.ablate)
app.command()(study_cli.scale)
app.command()(study_cli.label_efficiency)
app.command()(evaluation_cli.report_results)
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

    # Offline code does not know exporters; a command is where the packages meet, and only when it is called.
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
