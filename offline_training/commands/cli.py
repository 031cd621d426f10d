"""`nuclr-train`: simulate, pretrain, readout, evaluate, bench, check-reference. Heavy imports wait for a command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nuclr_stream.errors import NuclrStreamError
from offline_training.commands import (
    calcium_cli,
    compare,
    evaluate,
    foreign_units,
    inspect,
    matching,
    placement_cli,
    pretrain,
    readout,
    report_cli,
    simulate,
    simulate_calcium,
)

app = typer.Typer(
    name="nuclr-train",
    help="Train NuCLR encoders and readouts on recordings, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file, see configs/pretrain_*.toml.")]


app.command()(simulate.simulate)
app.command()(simulate_calcium.simulate_calcium)
app.command()(inspect.inspect)
app.command()(pretrain.pretrain)
app.command()(readout.readout)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(foreign_units.foreign_units)
app.command()(report_cli.report_results)
app.command()(calcium_cli.normaliser_distance)
app.command()(placement_cli.placement)
app.command()(matching.matching)
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
    speed: Annotated[Path, typer.Option(help="Folder of what the bench commands wrote.")] = Path("results/speed"),
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
