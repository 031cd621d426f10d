"""The cluster tables of a Kilosort or phy folder, whoever saved them: cluster_info.tsv and cluster_<column>.tsv or
.csv.

A table is read by its column `cluster_id` (or `id`, `cluster`), wherever that stands: pandas puts an index first, and
the .csv of phy 1 are separated by tabs. A table of another tool, and a row without a cluster, are passed over with a
note: the spikes are fine without them.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.recordings.left_out import MOST_UNITS

MAX_TEXT_BYTES = 2**24
IDS = ("cluster_id", "id", "cluster")
INFO = "cluster_info.tsv"
_INTEGER = re.compile(r"\d{1,18}(\.0*)?")

Rows = dict[int, dict[str, str]]


def cluster_columns(folder: Path, ids: npt.NDArray[np.int64], notes: list[str]) -> dict[str, npt.NDArray[Any]]:
    """The columns of all cluster tables, one value per cluster of `ids` (U,), "" or NaN where no table has one."""
    cells: dict[str, dict[int, str]] = {}
    for path in _tables(folder):
        table = _read_table(path, f"{folder.name}/{path.name}", notes)
        if path.name == INFO and not _of_this_sorting(table, ids, f"{folder.name}/{INFO}", notes):
            continue
        for cluster, row in table.items():
            for name, cell in row.items():
                values = cells.setdefault(name, {})
                values[cluster] = cell or values.get(cluster, "")
    if "group" not in cells and any((folder / f"cluster_group{suffix}").is_file() for suffix in (".tsv", ".csv")):
        notes.append(
            f"{folder.name}/cluster_group: has no column group, but {', '.join(cells) or 'nothing readable'}: nobody's "
            "curation is read"
        )
    return {name: _typed([values.get(cluster, "") for cluster in ids.tolist()]) for name, values in cells.items()}


def _tables(folder: Path) -> list[Path]:
    """cluster_info.tsv first, then the tables of one column; of one name the .tsv goes last, and so first."""
    others = [*sorted(folder.glob("cluster_*.csv")), *sorted(folder.glob("cluster_*.tsv"))]
    first = [folder / INFO] if (folder / INFO).is_file() else []
    return first + [path for path in others if path.name != INFO]


def _read_table(path: Path, where: str, notes: list[str]) -> Rows:
    """Rows by cluster; nothing, and a note, for what is no cluster table."""
    try:
        text = path.read_text(encoding="utf-8-sig") if path.stat().st_size <= MAX_TEXT_BYTES else ""
    except UnicodeDecodeError:
        text = path.read_text(encoding="latin-1")
    lines = text.splitlines()
    separator = "\t" if lines and "\t" in lines[0] else ","
    rows = list(csv.reader(lines, delimiter=separator))
    header = [cell.strip() for cell in rows[0]] if rows else []
    at = next((header.index(name) for name in IDS if name in header), None)
    if at is None:
        shown = ", ".join(header)[:80] or "nothing"
        notes.append(f"{where}: passed over, for it begins with {shown} and has no column cluster_id")
        return {}
    found: Rows = {}
    bad: list[str] = []
    twice: list[str] = []
    for number, cells in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        key = cells[at].strip() if at < len(cells) else ""
        if not _INTEGER.fullmatch(key) or len(cells) > len(header):
            bad.append(f"line {number} ({separator.join(cells)[:60]!r})")
            continue
        cluster = int(key.split(".")[0])
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if name and not _index(name)}
        row.pop(header[at])
        if cluster in found and found[cluster] != row:
            twice.append(f"cluster {cluster} at line {number}")
        found[cluster] = row
    if bad and len(bad) > max(1, MOST_UNITS * (len(found) + len(bad))):
        notes.append(
            f"{where}: passed over, for {len(bad)} of its {len(bad) + len(found)} rows name no cluster or do not fit "
            f"the "
            f"header, the first is {bad[0]}"
        )
        return {}
    if bad:
        notes.append(
            f"{where}: {len(bad)} of {len(bad) + len(found)} rows name no cluster or do not fit the header, the first "
            f"is "
            f"{bad[0]}: left out"
        )
    if twice:
        notes.append(
            f"{where}: {len(twice)} clusters have two rows that differ, the first is {twice[0]}: the last holds"
        )
    return found


def _index(name: str) -> bool:
    """Whether a column is the index that pandas writes."""
    return name.lower().startswith("unnamed:") or name in ("index", "level_0")


def _of_this_sorting(table: Rows, ids: npt.NDArray[np.int64], where: str, notes: list[str]) -> bool:
    """Whether a table of all clusters knows most of those with spikes; a note where it does not know all."""
    unknown = sorted(set(ids.tolist()) - set(table))
    if not unknown or not table:
        return bool(table)
    fits = len(unknown) <= MOST_UNITS * len(ids)
    notes.append(
        f"{where}: {len(unknown)} of {len(ids)} clusters with spikes have no row, the first is {unknown[0]}: "
        + ("their values are empty" if fits else "passed over, as a table of another sorting")
    )
    return fits


def _typed(cells: list[str]) -> npt.NDArray[Any]:
    """Whole numbers, numbers (NaN where a cell is empty), or text, as all cells allow."""
    if all(re.fullmatch(r"[+-]?\d{1,18}", cell) for cell in cells):
        return np.array([int(cell) for cell in cells], dtype=np.int64)
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells]) if any(cells) else np.array(cells)
    except ValueError:
        return np.array(cells, dtype=np.str_)
