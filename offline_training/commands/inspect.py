"""`nuclr-train inspect`: what recordings hold, and what a training would use of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from offline_training.commands.recordings_cli import HELP
from offline_training.config import TrainConfig
from offline_training.data.inspection import in_words, inspect_path

DEFAULTS = {"name": "defaults", "training": {"steps": 1}}
"""Without a config: the published window and its rules, every unit, no task."""


def inspect(
    path: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help=HELP)],
    config: Annotated[Path | None, typer.Option("--config", help="Whose rules and tasks to apply.")] = None,
    population_by: Annotated[
        str, typer.Option("--population-by", help="Column whose values are populations instead of probes, or all.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Nothing but one JSON document.")] = False,
) -> None:
    """Show what is there, what reading left out and guessed, and what a training would use of it, and why.

    Exit code 1 when something is not readable.
    """
    settings = TrainConfig.load(config) if config is not None else TrainConfig.parse(DEFAULTS)
    facts = inspect_path(path, settings, population_by=population_by)
    for line in [json.dumps(facts)] if as_json else in_words(facts):
        typer.echo(line)
    raise typer.Exit(1 if facts["errors"] else 0)
