"""Result files for tests: nested_example.json is a small, complete file of the format that pages are made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).with_name("nested_example.json")
"""Three animals in two folds; in cell_type the pool is ahead of spike statistics, in brain_region it is behind."""


def write_example(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    """Write the example, changed in place by `change`, as nested.json of a data set; return its folder."""
    found = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    change(found)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nested.json").write_text(json.dumps(found), encoding="utf-8")
    return folder
