"""The command of `nuclr-train` that scores labels as time goes on: anytime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from offline_training.commands.recordings_cli import HELP, load_recordings


def anytime(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG|RUN", help="Settings of the encoders of folds, or a ready run.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Result file.")],
    recordings: Annotated[Path | None, typer.Option("--recordings", help=f"With a CONFIG. {HELP}")] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the encoders of the folds.")] = Path("runs/folds"),
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help="Folder of the encoders that saw neither of two folds.")
    ] = None,
    split: Annotated[str, typer.Option(help="As for evaluate.")] = "leave-one-subject-out",
    seed: Annotated[int, typer.Option(help="Seed of the encoders.")] = 0,
    selected: Annotated[
        bool, typer.Option("--selected", help="The predictors were designed by scores on these very folds: say so.")
    ] = False,
    animals: Annotated[int, typer.Option(min=1, help="With a RUN: how many fresh simulated animals.")] = 10,
    first_seed: Annotated[int, typer.Option(help="With a RUN: seed of the first one.")] = 9800,
    units: Annotated[int, typer.Option(help="With a RUN: units of each.")] = 120,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: the result as one JSON document.")] = False,
) -> None:
    """Score labels against seconds observed and against the size of the population, every predictor alone and together.

    A CONFIG is scored on animals held out, by the encoders that `evaluate` trained; a RUN, whose readouts have predictors,
    on simulated animals that nothing was trained on.
    """
    from offline_training.config import TrainConfig
    from offline_training.data.splits import parse_split
    from offline_training.studies.anytime import anytime_folds, anytime_fresh

    if config.is_dir():
        result = anytime_fresh(config, seeds=range(first_seed, first_seed + animals), units=units, out=out)
    elif recordings is None:
        raise typer.BadParameter("a CONFIG needs the recordings that are held out", param_hint="--recordings")
    else:
        settings = TrainConfig.load(config)
        loaded = load_recordings(recordings, settings)
        parsed = parse_split(split, settings, loaded)
        result = anytime_folds(
            settings, loaded, parsed, runs_dir=runs, pairs_dir=pairs, seed=seed, selected=selected, out=out
        )
    for task, found in result["tasks"].items():
        for name, row in found["rows"].items():
            f1 = "  ".join(f"{seconds} s {point['macro_f1']:.3f}" for seconds, point in row["single"].items())
            typer.echo(f"{task:15} {name:25} macro-F1  {f1}")
    if as_json:
        typer.echo(json.dumps(result))
