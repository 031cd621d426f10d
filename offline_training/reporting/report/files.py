"""The files that a report is made of, and what is said when one cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nuclr_stream.errors import NuclrStreamError


class ReportError(NuclrStreamError):
    """A file that a report is made of is missing, damaged or something else."""


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises ReportError naming the file."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ReportError(f"{path}: not a readable JSON object ({error}); was it written by nuclr-train?") from error
