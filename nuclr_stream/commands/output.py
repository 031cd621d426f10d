"""What commands write beside their results: progress on stderr, and one line of JSON for programs on stdout."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


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
