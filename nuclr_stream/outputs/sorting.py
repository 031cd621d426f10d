"""Predictions for SpikeInterface: curation in its format 2, and properties of a sorting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.outputs.files import new_file
from nuclr_stream.outputs.phy import UNDECIDED, called
from nuclr_stream.outputs.result import Result
from nuclr_stream.outputs.wide import unit_columns

if TYPE_CHECKING:
    import pandas as pd
    import spikeinterface as si


def write_curation(path: Path, results: Sequence[Result], *, force: bool) -> None:
    """Write one recording's predictions as manual labels `predicted_<task>`: a class each, or "undecided".

    `spikeinterface.curation.apply_curation(sorting, json.load(open(path)))` makes properties of them. Nothing is
    removed, merged or split. Ids that are all whole numbers are numbers in the file, as in sortings of Kilosort and
    phy. Raises NuclrStreamError for several recordings.
    """
    if len(results) != 1:
        names = ", ".join(result.recording_id for result in results)
        raise NuclrStreamError(f"--out {path}: a curation is of one sorting, not of {names}; label one at a time")
    with new_file(path, force=force) as temporary:
        temporary.write_text(json.dumps(curation(results[0]), indent=1) + "\n", encoding="utf-8")


def curation(result: Result) -> dict[str, Any]:
    """Return the document of SpikeInterface's curation format 2."""
    ids = _own_ids(result.predictions.unit_ids)
    labels: list[dict[str, Any]] = [{"unit_id": unit_id, "labels": {}} for unit_id in ids]
    definitions = {}
    for task in result.predictions.tasks:
        name = f"predicted_{task.name}"
        definitions[name] = {"label_options": [*task.classes, UNDECIDED], "exclusive": True}
        for label, value in zip(labels, called(task), strict=True):
            label["labels"][name] = [value]
    return {
        "format_version": "2",
        "unit_ids": ids,
        "label_definitions": definitions,
        "manual_labels": labels,
        "removed": [],
        "merges": [],
        "splits": [],
    }


def set_properties(sorting: si.BaseSorting, table: Result | pd.DataFrame) -> list[str]:
    """Set the columns of predictions as properties of the sorting that they were made from; returns their names.

    `table` is what `nuclr_stream.label` returned for the sorting. A class that is not called is "undecided". Raises
    NuclrStreamError naming a unit of the sorting that has no row.
    """
    if isinstance(table, Result):
        columns = {column.name: list(column.values) for column in unit_columns(table)}
    else:
        columns = {str(name): table[name].tolist() for name in table.columns}
    row_of = {str(unit_id): row for row, unit_id in enumerate(columns.pop("unit_id"))}
    missing = [unit_id for unit_id in sorting.unit_ids if str(unit_id) not in row_of]
    if missing:
        raise NuclrStreamError(
            f"unit {missing[0]} of the sorting has no row in the table ({len(missing)} have none); "
            "give the table that label() returned for this sorting"
        )
    rows = [row_of[str(unit_id)] for unit_id in sorting.unit_ids]
    for name, values in columns.items():
        sorting.set_property(name, _property([values[row] for row in rows]))
    return list(columns)


def _property(values: list[Any]) -> np.ndarray[Any, Any]:
    """Values as SpikeInterface takes them: text without a missing value, or numbers."""
    if any(isinstance(value, str) for value in values) or all(value is None for value in values):
        return np.array([value if isinstance(value, str) else UNDECIDED for value in values])
    return np.array(values)


def _own_ids(unit_ids: Sequence[str]) -> list[int | str]:
    """Unit ids as a sorting has them: numbers where all of them are whole ones."""
    if all(unit_id.isdecimal() for unit_id in unit_ids):
        return [int(unit_id) for unit_id in unit_ids]
    return list(unit_ids)
