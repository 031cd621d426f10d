"""`nuclr-train evaluate`: nested scores on animals left out, as one result file."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from offline_training.commands.recordings_cli import HELP, load_recordings

SPLIT = "leave-one-subject-out, held-out=ID,ID, or a .json file (configs/splits/)."


def evaluate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG|RUN", help="Settings to pretrain with, or a ready run.")],
    recordings: Annotated[Path, typer.Option("--recordings", help=HELP)],
    out: Annotated[Path, typer.Option("--out", help="Result file.")] = Path("results/evaluation/nested.json"),
    test: Annotated[
        Path | None, typer.Option("--test", help="Recordings of fresh animals to test on, instead of a split.")
    ] = None,
    split: Annotated[str, typer.Option(help=f"Which animals are left out together: {SPLIT}")] = "leave-one-subject-out",
    encoders: Annotated[
        str,
        typer.Option(help="Split of the encoders, each of which leaves out a fold's animals and maybe more."),
    ] = "",
    runs: Annotated[Path, typer.Option("--runs", help="Folder for the encoders.")] = Path("runs/folds"),
    as_json: Annotated[bool, typer.Option("--json", help="Last line: the result as one JSON document.")] = False,
) -> None:
    """Score the product's readouts on animals that encoder and readouts never saw; everything is chosen without them.

    A CONFIG pretrains an encoder for every fold of --encoders; one that is there already is not trained again. A RUN is
    used as it is: its scores are "transductive zero-shot" where its encoder saw the activity of a tested animal.
    """
    from offline_training.config import TrainConfig
    from offline_training.data.splits import Fold, parse_split
    from offline_training.evaluation.encoders import covering, pretrain_once
    from offline_training.evaluation.nested import evaluation_facts, result, run_fold, write_result
    from offline_training.pretraining.runs import Run

    ready = config.is_dir()
    settings = Run.open(config).config if ready else TrainConfig.load(config)
    loaded = load_recordings(recordings, settings)
    if test is not None:
        fresh = load_recordings(test, settings)
        folds = [Fold(tuple(sorted({recording.subject_id for recording in fresh})))]
        loaded = [*loaded, *fresh]
    else:
        folds = list(parse_split(split, settings, loaded).folds)
    sources = folds if test is not None or not encoders else list(parse_split(encoders, settings, loaded).folds)
    found = []
    for fold in folds:
        run_dir = config
        if not ready:
            encoder_fold = covering(fold, sources)
            run_dir = runs / f"fold_{encoder_fold.name}_seed{settings.training.seed}"
            pretrain_once(settings, encoder_fold.training(loaded), run_dir)
        found.append(run_fold(settings, loaded, fold, run_dir))
        typer.echo(f"{fold.name}: done", err=True)
    facts = evaluation_facts(settings, command=shlex.join(["nuclr-train", *sys.argv[1:]]), fresh=test is not None)
    document = result(settings, loaded, found, facts)
    write_result(out, document)
    show(document)
    if as_json:
        typer.echo(json.dumps(document))


def show(document: dict[str, Any]) -> None:
    """Print one line per row and time of a result file."""
    for task, found in document["tasks"].items():
        for row in found["rows"]:
            for seconds, score in row["seconds"].items():
                typer.echo(
                    f"{task:15} {row['row']:36} {seconds:>4} s  macro-F1 {score['macro_f1']:.3f}  balanced accuracy "
                    f"{score['balanced_accuracy']:.3f}  ECE {score['ece']:.3f}  called {score['called']:.2f}"
                )
