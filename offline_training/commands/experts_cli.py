"""The command of `nuclr-train` that scores the predictors beside the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offline_training.commands.recordings_cli import HELP, load_recordings


def predictors(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Settings that the encoders were trained with.")],
    recordings: Annotated[Path, typer.Option("--recordings", help=HELP)],
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the encoders of the folds, as evaluate keeps them.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the result files, beside those of evaluate.")],
    split: Annotated[str, typer.Option(help="As for evaluate.")] = "leave-one-subject-out",
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help="Folder for encoders that saw neither of two folds; trained where missing."),
    ] = None,
    selected: Annotated[
        bool, typer.Option("--selected", help="The predictors were designed by scores on these very folds: say so.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="Seeds of the pretraining, separated by commas.")] = "0",
) -> None:
    """Score spike statistics, company and all predictors together on animals held out; evaluate trains the encoders.

    With --pairs, how the predictors speak together rests on animals that their encoders had not seen either.
    """
    from offline_training.config import TrainConfig
    from offline_training.data.splits import parse_split
    from offline_training.evaluation.aggregate import combine
    from offline_training.evaluation.predictors import pretrain_pairs, run_experts

    settings = TrainConfig.load(config)
    loaded = load_recordings(recordings, settings)
    parsed = parse_split(split, settings, loaded)
    for seed in (int(s) for s in seeds.split(",")):
        apart = pretrain_pairs(settings, loaded, parsed.folds, seed=seed, runs_dir=pairs) if pairs else []
        for fold in parsed.folds:
            run_dir = runs / f"fold_{fold.name}_seed{seed}"
            done = run_experts(
                settings,
                loaded,
                fold,
                seed=seed,
                run_dir=run_dir,
                pairs=apart,
                out_dir=out,
                split=parsed,
                selected=selected,
            )
            typer.echo(f"{done}", err=True)
    combine(out)
