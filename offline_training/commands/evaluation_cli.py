"""The commands of `nuclr-train` that score: evaluate, evaluate-simulated, report-results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from offline_training.commands.recordings_cli import HELP, load_recordings

SEEDS = Annotated[str, typer.Option(help="Seeds of the pretraining, separated by commas.")]


def evaluate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG|RUN", help="Settings to pretrain with, or a ready run.")],
    recordings: Annotated[Path, typer.Option("--recordings", help=HELP)],
    split: Annotated[
        str, typer.Option(help="leave-one-subject-out, held-out=ID,ID, or a .json file.")
    ] = "leave-one-subject-out",
    out: Annotated[Path, typer.Option("--out", help="Folder for the result files.")] = Path("results/evaluation"),
    runs: Annotated[Path, typer.Option("--runs", help="Folder for the encoders of the folds.")] = Path("runs/folds"),
    seeds: SEEDS = "0",
    fold: Annotated[str, typer.Option(help="Only the fold that holds out this animal.")] = "",
    baselines: Annotated[bool, typer.Option("--baselines", help="Only the training-free baselines.")] = False,
    hop_s: Annotated[float | None, typer.Option(help="Seconds between windows, instead of the config's.")] = None,
    claim: Annotated[str | None, typer.Option(help="Refuse to score anything else, e.g. inductive.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: the scores as one JSON document.")] = False,
) -> None:
    """Score on animals held out. A CONFIG pretrains anew for every fold and seed; what is done already is not repeated.

    A RUN is scored as it is: "transductive zero-shot" where its encoder saw the activity of the animals held out.
    """
    from offline_training.config import TrainConfig
    from offline_training.data.splits import parse_split
    from offline_training.evaluation.aggregate import combine
    from offline_training.evaluation.evaluate import run_baselines, run_fold, run_with_encoder
    from offline_training.pretraining.pretrain import load_run

    ready = config.is_dir()
    settings = load_run(config)[1] if ready else TrainConfig.load(config)
    loaded = load_recordings(recordings, settings)
    parsed = parse_split(split, settings, loaded)
    folds = [parsed.fold(fold)] if fold else parsed.folds
    for each in folds:
        typer.echo(f"{run_baselines(settings, loaded, each, out_dir=out, split=parsed)}", err=True)
    if ready and not baselines:
        for done in run_with_encoder(config, loaded, folds, out_dir=out, hop_s=hop_s, split=parsed, claim=claim):
            typer.echo(f"{done}", err=True)
    for each in () if ready or baselines else folds:
        for seed in (int(s) for s in seeds.split(",")):
            done = run_fold(settings, loaded, each, seed=seed, out_dir=out, runs_dir=runs, hop_s=hop_s, split=parsed)
            typer.echo(f"{done}", err=True)
    if fold:
        typer.echo("when all folds are done: the same command without --fold pools them", err=True)
        return
    _show(combine(out), as_json=as_json)


def peer(
    name: Annotated[str, typer.Argument(metavar="NAME", help="lolcat, nemo, neuprint or depth.")],
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file, see configs/pretrain_*.toml.")],
    recordings: Annotated[Path, typer.Option("--recordings", help=HELP)],
    split: Annotated[
        str, typer.Option(help="leave-one-subject-out, held-out=ID,ID, or a .json file.")
    ] = "leave-one-subject-out",
    out: Annotated[Path, typer.Option("--out", help="Folder for the result files.")] = Path("results/evaluation"),
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    fold: Annotated[str, typer.Option(help="Only the fold that holds out this animal.")] = "",
    claim: Annotated[str | None, typer.Option(help="Refuse to score anything else, e.g. inductive.")] = None,
    length: Annotated[float, typer.Option(help="Train so many times as long as by default.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: the scores as one JSON document.")] = False,
) -> None:
    """Train and test a peer, a method to compare with, on the same folds; what is done already is not repeated."""
    from offline_training.config import TrainConfig
    from offline_training.data.splits import parse_split
    from offline_training.evaluation.aggregate import combine
    from offline_training.studies.comparison import run_peer

    settings = TrainConfig.load(config)
    loaded = load_recordings(recordings, settings)
    parsed = parse_split(split, settings, loaded)
    for each in [parsed.fold(fold)] if fold else parsed.folds:
        done = run_peer(name, settings, loaded, each, seed=seed, out_dir=out, split=parsed, claim=claim, length=length)
        typer.echo(f"{done}", err=True)
    if fold:
        typer.echo("when all folds are done: the same command without --fold pools them", err=True)
        return
    _show(combine(out), as_json=as_json)


def evaluate_simulated(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run with readouts, trained on simulated animals.")],
    recordings: Annotated[Path, typer.Option("--recordings", help="The recordings that its readouts were fitted on.")],
    out: Annotated[Path, typer.Option("--out", help="Result file.")] = Path("results/demo/fresh_animals.json"),
    animals: Annotated[int, typer.Option(help="How many fresh animals.")] = 10,
    first_seed: Annotated[int, typer.Option(help="Seed of the first one.")] = 9700,
    units: Annotated[int, typer.Option(help="Units of each.")] = 120,
    duration_s: Annotated[float, typer.Option(help="Length of each recording in seconds.")] = 600.0,
    hop_s: Annotated[float | None, typer.Option(help="Seconds between windows, instead of the config's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: the result as one JSON document.")] = False,
) -> None:
    """Score a run on simulated animals that nothing was trained on, beside readouts of mean rate and ISI histogram."""
    from offline_training.evaluation.simulated import evaluate_simulated as evaluate_fresh
    from offline_training.pretraining.pretrain import load_run

    result = evaluate_fresh(
        run,
        load_recordings(recordings, load_run(run)[1]),
        out=out,
        seeds=range(first_seed, first_seed + animals),
        units=units,
        duration_s=duration_s,
        hop_s=hop_s,
    )
    for task, found in result["tasks"].items():
        for feature, times in found["features"].items():
            for seconds, score in times.items():
                low, high = score["range"]
                typer.echo(f"{task:15} {feature:10} {seconds:>4} s  {score['median']:.3f} ({low:.3f}-{high:.3f})")
    if as_json:
        typer.echo(json.dumps(result))


def report_results(
    results: Annotated[Path, typer.Option(help="Folder of result folders.")] = Path("results"),
    page: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/results.md"),
    readme: Annotated[Path, typer.Option(help="File with a table between markers.")] = Path("README.md"),
) -> None:
    """Write docs/results.md and the table of the README from the result files; nothing there is typed by hand."""
    from offline_training.reporting.results import write_pages

    for path in write_pages(results, page=page, readme=readme):
        typer.echo(str(path))


def _show(summary: dict[str, Any], *, as_json: bool) -> None:
    typer.echo(f"{summary['setting']}, {summary['split']}, seeds {summary['seeds']}")
    for task, found in summary["tasks"].items():
        for feature, scores in found["features"].items():
            for seconds, score in scores["mean"].items():
                typer.echo(
                    f"{task:15} {feature:18} {seconds:>4} s  macro-F1 {score['macro_f1']:.3f}  "
                    f"balanced accuracy {score['balanced_accuracy']:.3f}  ECE {score['ece']:.3f}"
                )
    if as_json:
        typer.echo(json.dumps(summary))


if __name__ == "__main__":
    alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    for command in (evaluate, peer, evaluate_simulated, report_results):
        alone.command()(command)
    alone()
