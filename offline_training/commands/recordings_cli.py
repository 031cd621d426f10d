"""`nuclr-train inspect`, and how every command of `nuclr-train` reads recordings: by the rules of its config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nuclr_stream.recordings.readers import AnyRecording
from offline_training.config import TrainConfig
from offline_training.data.inspection import in_words, inspect_path
from offline_training.data.membership import load_selected, recordings_of

HELP = "Recordings: .npz, .nwb, torch_brain .h5, a Kilosort/phy folder, or a folder of any of these."

DEFAULTS = {"name": "defaults", "training": {"steps": 1}}
"""Without a config: the published window and its rules, every unit, no task."""


def load_recordings(path: Path, config: TrainConfig) -> list[AnyRecording]:
    """Read the recordings at `path` and leave out the units that `[recordings]` of the config rejects, saying so.

    What the readers left out and guessed is said on stderr too.
    """
    selected = load_selected(path, config.recordings)
    for note in dict.fromkeys(note for recording in recordings_of(selected) for note in recording.notes):
        typer.echo(note, err=True)
    for each in selected:
        if each.left_out:
            typer.echo(str(each), err=True)
    return recordings_of(selected)


def inspect(
    path: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help=HELP)],
    config: Annotated[Path | None, typer.Option("--config", help="Whose rules and tasks to apply.")] = None,
    population_by: Annotated[
        str, typer.Option("--population-by", help="Column whose values are populations instead of probes, or all.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Nothing but one JSON document.")] = False,
) -> None:
    """Say what is there, what reading left out and guessed, and what a training would use of it, and why.

    Exit code 1 when something is not readable.
    """
    settings = TrainConfig.load(config) if config is not None else TrainConfig.parse(DEFAULTS)
    facts = inspect_path(path, settings, population_by=population_by)
    for line in [json.dumps(facts)] if as_json else in_words(facts):
        typer.echo(line)
    raise typer.Exit(1 if facts["errors"] else 0)
