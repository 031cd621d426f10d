"""The readouts that a run keeps, as its readouts.json describes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from offline_training.reporting.files import read_json
from offline_training.reporting.report.page import Missing, Section, Table

LEFT_OUT = ("classes", "single")
"""The classes have a column of their own; pools of single predictors are there for scores only."""
MOST_VALUES = 8
"""Longer lists are data, not settings, and are not shown."""
TITLE = "Readouts"
NOTE = (
    "Out-of-fold figures chose settings on the animals that the readouts are fitted on: they are no claim about new "
    "animals."
)


def readouts_section(run_dir: Path) -> Section:
    """Classes, settings and figures of the readouts of every task. Raises ResultsError for a damaged file."""
    path = run_dir / "readouts.json"
    if not path.is_file():
        return Section(TITLE, [Missing("this run has no readouts; `nuclr-train readout` fits them.")])
    rows = [
        [task, ", ".join(map(str, values["classes"])), ", ".join(_settings(values))]
        for task, values in read_json(path)["tasks"].items()
    ]
    return Section(TITLE, [Table(["task", "classes", "settings and figures"], rows), NOTE])


def _settings(values: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """`name = value` of every plain value, those of nested settings under their full name."""
    for key, value in values.items():
        name = f"{within}{key}"
        if name in LEFT_OUT or value is None:
            continue
        if isinstance(value, Mapping):
            yield from _settings(value, f"{name}.")
        elif not isinstance(value, list):
            yield f"{name} = {_plain(value)}"
        elif all(isinstance(one, Mapping) for one in value):
            for place, one in enumerate(value, start=1):
                yield from _settings(one, f"{name}.{place}.")
        elif len(value) <= MOST_VALUES and not any(isinstance(one, list) for one in value):
            yield f"{name} = {' '.join(map(_plain, value))}"


def _plain(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
