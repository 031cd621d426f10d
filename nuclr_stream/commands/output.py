"""What commands write beside their results: progress on stderr, and one line of JSON for programs on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nuclr_stream.recordings.readers import AnyRecording


def progress_bar(*, disable: bool = False) -> Progress:
    """Return a progress bar on stderr; there is none without a terminal. Descriptions are plain text, not markup."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=disable or not console.is_terminal)


def print_json(document: dict[str, Any]) -> None:
    """Print a document on one line, the last that a command writes to stdout."""
    print(json.dumps(document), flush=True)


def print_notes(recordings: Sequence[AnyRecording]) -> None:
    """Print on stderr what the readers of recordings left out and guessed, each note once."""
    for note in dict.fromkeys(note for recording in recordings for note in recording.notes):
        print(note, file=sys.stderr)
