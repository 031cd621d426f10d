"""`nuclr-train compare`: comparison methods on the recordings and folds of `evaluate`, as one result file."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from offline_training.commands.evaluate import SPLIT, show
from offline_training.commands.recordings_cli import HELP, load_recordings

METHODS = "rate|isi|isi_aggregated|lolcat|nemo|neuprint|depth|trace_statistics"


def compare(
    method: Annotated[str, typer.Argument(metavar=METHODS, help="Which method.")],
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file with window, tasks and seed.")],
    recordings: Annotated[Path, typer.Option("--recordings", help=HELP)],
    out: Annotated[Path, typer.Option("--out", help="Result file; rows of other methods in it stay.")],
    split: Annotated[str, typer.Option(help=f"Which animals are left out together: {SPLIT}")] = "leave-one-subject-out",
    length: Annotated[float, typer.Option(help="How many times as long as by default it trains.")] = 1.0,
) -> None:
    """Train another method on every fold and score it as `evaluate` scores the product, its training costs beside it.

    NeuPRINT is trained on the activity of the tested animals too ("transductive zero-shot"). Depth cheats: it shows
    what a score is worth that needs no activity.
    """
    from offline_training.config import TrainConfig
    from offline_training.data.splits import parse_split
    from offline_training.evaluation.nested import evaluation_facts, write_result
    from offline_training.studies.comparison import Method, comparison_result, joined_with
    from offline_training.studies.comparison import compare as run

    settings = TrainConfig.load(config)
    loaded = load_recordings(recordings, settings)
    found = run(cast(Method, method), settings, loaded, parse_split(split, settings, loaded).folds, length=length)
    facts = evaluation_facts(settings, command=shlex.join(["nuclr-train", *sys.argv[1:]]), fresh=False)
    document = joined_with(comparison_result(settings, loaded, found, facts), out)
    write_result(out, document)
    show(document)
