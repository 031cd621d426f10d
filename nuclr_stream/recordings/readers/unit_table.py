"""What readers make of a unit table, whoever wrote it: ids that differ, depth, region, and which probe a unit is
from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

PROBE_COLUMNS = ("probe_id", "probe_name", "probe")
DEPTH_COLUMNS = ("depth_um", "axial_um", "depths")
REGION_COLUMNS = (
    "brain_region",
    "brain_area",
    "location",
    "region",
    "area",
    "ecephys_structure_acronym",
    "structure_acronym",
    "acronym",
)
SORTING_COLUMNS = ("sorter", "sorter_name", "sorting", "sorting_name", "spike_sorter")
"""A column that says which of several sortings of the same spikes a unit is from."""

NO_REGION = ("unknown", "n/a", "na", "none", "nan", "null", "unspecified", "not available", "see electrode locations")

StrArray = npt.NDArray[np.str_]
Columns = dict[str, npt.NDArray[Any]]


def unit_names(values: npt.NDArray[Any], *, field: str, notes: list[str]) -> StrArray:
    """Ids (U,) that are not blank and differ: whole numbers without a fraction, and the row where an id is no name."""
    if values.dtype.kind == "f":
        whole = np.where(np.isfinite(values), values, 0.5) == np.rint(np.where(np.isfinite(values), values, 0.5))
        texts = [str(int(v)) if w else str(v) if np.isfinite(v) else "" for v, w in zip(values, whole, strict=True)]
    else:
        texts = [str(value).strip() for value in values.astype(np.str_).tolist()]
    taken: set[str] = set()
    named, changed = [], []
    for row, text in enumerate(texts):
        name = text or f"row{row}"
        while name in taken:
            name = f"{name}_row{row}"
        if name != text:
            changed.append((row, text, name))
        taken.add(name)
        named.append(name)
    if changed:
        row, text, name = changed[0]
        notes.append(
            f"{field}: {len(changed)} of {len(named)} ids are blank or stand for an earlier unit too, the first is row "
            f"{row} ({text!r}): called {name}"
        )
    return np.array(named, dtype=np.str_)


def probes_in(columns: Columns) -> StrArray | None:
    """Which probe each unit (U,) is from by the unit table, None when no column of PROBE_COLUMNS is there."""
    return next((columns[name].astype(np.str_) for name in PROBE_COLUMNS if name in columns), None)


def parted_by_sorting(probes: StrArray, columns: Columns, *, field: str, notes: list[str]) -> StrArray:
    """Populations (U,): those of `probes`, parted further where a column names several sortings of the same spikes."""
    name = next((name for name in SORTING_COLUMNS if name in columns and columns[name].ndim == 1), None)
    values = columns[name].astype(np.str_) if name else np.empty(0, dtype=np.str_)
    if len(set(values.tolist())) < 2:
        return probes
    sortings = sorted(set(values.tolist()))
    notes.append(
        f"{field}: column {name} names {len(sortings)} sortings ({', '.join(sortings)}): each is a population of its "
        "own, "
        "for a neuron may be in all of them"
    )
    pairs = zip(probes.tolist(), values.tolist(), strict=True)
    return np.array(["_".join(part for part in pair if part) for pair in pairs], dtype=np.str_)


def add_depth(columns: Columns) -> None:
    """Give the table a numeric `depth_um` from the first of DEPTH_COLUMNS that there is, in place."""
    for name in DEPTH_COLUMNS:
        if name in columns and np.issubdtype(columns[name].dtype, np.number):
            columns["depth_um"] = columns[name].astype(np.float32)
            return


def add_region(columns: Columns, *, field: str, notes: list[str], name: str = "brain_region") -> None:
    """Give the table a `brain_region` from the first of REGION_COLUMNS that names any, in place; unknown is ""."""
    for source in REGION_COLUMNS:
        values = columns.get(source)
        if values is None or values.ndim != 1 or values.dtype.kind != "U":
            continue
        regions = known_regions(values)
        if (regions != "").any():
            if source != name:
                notes.append(f"{field}: {name} is taken from the column {source}")
            columns[name] = regions
            return
    if name in columns and columns[name].dtype.kind == "U":
        columns[name] = known_regions(columns[name])


def known_regions(values: npt.NDArray[Any]) -> StrArray:
    """Regions (U,), "" where a value says that nobody knows."""
    texts = [str(value).strip() for value in values.tolist()]
    return np.array(["" if text.lower() in NO_REGION else text for text in texts], dtype=np.str_)
