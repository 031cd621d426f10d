"""`nuclr-train readout`: fit the readouts of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offline_training.commands.recordings_cli import HELP, load_recordings


def readout(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory that pretrain wrote.")],
    recordings: Annotated[Path, typer.Option("--recordings", help=HELP)],
    hop_s: Annotated[float | None, typer.Option(help="Seconds between windows; one window if not given.")] = None,
) -> None:
    """Fit the readouts of every task of the run on labelled recordings and store them with the run.

    Prints macro-F1 of the training units, of animals left out, and of animals left out with readouts of whole
    recordings only, by length of the stretch; warns where the readouts of the length are worse than those.
    """
    from offline_training.pretraining.runs import Run
    from offline_training.readouts.run_readouts import fit_readouts
    from offline_training.readouts.task_model import below_plain

    loaded = load_recordings(recordings, Run.open(run).config)
    for task, model in fit_readouts(run, loaded, hop_s=hop_s).items():
        typer.echo(f"{task}: {', '.join(model.pools[0].predictors)}")
        for length, score in model.scores.items():
            words = "whole recordings" if length == "0" else f"{length} windows"
            typer.echo(
                f"  {words}: macro-F1 {score['training']:.3f} on training units, {score['left_out']:.3f} on "
                f"animals left out, {score['plain']:.3f} there with readouts of whole recordings"
            )
        typer.echo(f"  {model.threshold_promise}")
        for warning in below_plain(model):
            typer.echo(f"warning: {task}, {warning}", err=True)
