"""What `nuclr-stream source spikeglx` and `falcon` have in common: the options about templates, and their reading."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nuclr_stream.errors import ConfigError
from nuclr_stream.matching.folders import read_templates
from nuclr_stream.matching.templates import Templates

TemplatesFolder = Annotated[
    Path | None,
    typer.Option(
        "--templates",
        help="Folder of an earlier sorting: Kilosort 4, or a SortingAnalyzer. Without: unsorted crossings.",
    ),
]
HighPass = Annotated[float | None, typer.Option(help="High-pass of the sorting, in Hz, where the folder is silent.")]
Reference = Annotated[
    bool | None, typer.Option("--reference/--no-reference", help="Whether the sorting took a common median away.")
]
Scale = Annotated[
    float | None, typer.Option(help="What one step of the live samples is in the unit of the sorting's templates.")
]


def open_templates(folder: Path | None, *, highpass_hz: float | None, reference: bool | None) -> Templates | None:
    """Read the templates that were asked for and print what was left out and guessed."""
    if folder is None:
        return None
    templates = read_templates(folder, highpass_hz=highpass_hz, reference=reference)
    for note in templates.notes:
        print(note, file=sys.stderr)
    return templates


def host_and_port(address: str, port: int) -> tuple[str, int]:
    """Split HOST[:PORT]. Raises ConfigError."""
    host, _, text = address.partition(":")
    if text and not text.isdigit():
        raise ConfigError(f"{address}: give HOST:PORT, such as 127.0.0.1:{port}")
    return host, int(text or port)
