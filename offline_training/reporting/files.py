"""The files that pages are made of, and the error for one that is missing or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nuclr_stream.errors import NuclrStreamError


class ResultsError(NuclrStreamError):
    """A file that a page is made of is missing, damaged or something else."""


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises ResultsError naming the file."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ResultsError(f"{path}: not a readable JSON object ({error}); was it written by nuclr-train?") from error
