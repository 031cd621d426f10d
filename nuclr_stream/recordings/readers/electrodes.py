"""Where the units of an NWB file were recorded: probe, shank, depth and region from its electrodes and their groups.

Shape letters: U units, E electrodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.recordings.left_out import MOST_UNITS, keep_good
from nuclr_stream.recordings.readers.hdf5 import members, numbers, table_columns, text_of
from nuclr_stream.recordings.readers.probes import probes_of_groups
from nuclr_stream.recordings.readers.ragged import ends_of
from nuclr_stream.recordings.readers.unit_table import PROBE_COLUMNS, StrArray, known_regions
from nuclr_stream.windows.binning import Int64Array

if TYPE_CHECKING:
    import h5py

Columns = dict[str, npt.NDArray[Any]]
DEPTHS = ("rel_y", "probe_vertical_position")
ACROSS = ("rel_x", "probe_horizontal_position")
PEAKS = ("peak_channel_id", "peak_electrode_id")
"""Columns of the units table that hold the id of the electrode on which a unit is largest."""
SHANKS = ("shank", "shank_ids", "shank_id")


@dataclass(frozen=True)
class Electrodes:
    """Of every unit: its probe (U,), "" where nothing says, and columns (U,) of its place; `all_probes` of the file."""

    probes: StrArray
    columns: Columns
    all_probes: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """The electrodes of a file: their ids, columns, group and probe (E,); `locations` and `probe_of` by group name."""

    ids: npt.NDArray[Any]
    columns: Columns
    groups: StrArray
    probes: StrArray
    locations: dict[str, str]
    probe_of: dict[str, str]


def read_electrodes(units: h5py.Group, rows: int, where: str, notes: list[str]) -> Electrodes:
    """Read the place of every one of `rows` units from their table, /general/extracellular_ephys and its electrodes.

    What is left out and guessed is added to `notes`. Raises RecordingError where most units name electrodes that are
    not there, or lie on two probes.
    """
    table = _table(units.file, where, notes)
    own = _electrodes_of_units(units, rows, table, where=where, notes=notes)
    groups = _groups_of_units(units, own, table)
    at = [_peak(units, unit, listed, table.ids) for unit, listed in enumerate(own)]
    probes = _probes_of_units(own, at, groups, table, where=where, notes=notes)
    known = sorted({*table.probes.tolist(), *table.probe_of.values()} - {""})
    if len(known) == 1:
        probes = known * rows
    columns: Columns = {"brain_region": _regions(at, groups, table)}
    for name, sources in (("depth_um", DEPTHS), ("x_um", ACROSS)):
        column = next((table.columns[source] for source in sources if source in table.columns), None)
        if column is not None and column.dtype.kind in "iuf":
            columns[name] = np.array([_agreed(column[listed], np.nan) for listed in at], dtype=np.float32)
    shanks = _shanks(table)
    if shanks is not None:
        columns["shank"] = np.array([_agreed(shanks[listed], -1) for listed in at], dtype=np.int32)
    if len(set(groups)) > 1:
        columns["electrode_group"] = np.array(groups, dtype=np.str_)
    return Electrodes(np.array(probes, dtype=np.str_), columns, tuple(known))


def _table(file: h5py.File, where: str, notes: list[str]) -> _Table:
    folder = file.get("general/extracellular_ephys", {})
    groups = {name: group for name, group in members(folder) if "device" in group}
    if "electrodes" not in folder:
        nothing = np.empty(0, dtype=np.str_)
        ids, columns, group_of = np.empty(0, dtype=np.int64), {}, nothing
    else:
        ids = numbers(folder["electrodes"], "id", where)
        columns = table_columns(folder["electrodes"], len(ids), where)
        group_of = _names(file, folder["electrodes"], "group", groups, len(ids))
    stated = next((columns[name].astype(np.str_) for name in PROBE_COLUMNS if name in columns), None)
    probe_of = {}
    if stated is None:
        names = {device: name for name, device in members(file.get("general/devices", {}))}
        device_of = {name: names.get(group["device"], "") for name, group in groups.items()}
        probe_of = probes_of_groups(device_of, group_of, columns, field=f"{where}: electrode groups", notes=notes)
    return _Table(
        ids,
        columns,
        group_of,
        np.array([probe_of.get(name, "") for name in group_of.tolist()], dtype=np.str_) if stated is None else stated,
        {name: text_of(group, "location") for name, group in groups.items()},
        probe_of,
    )


def _names(file: h5py.File, table: h5py.Group, column: str, groups: dict[str, h5py.Group], rows: int) -> StrArray:
    """Names of the electrode groups that a column refers to (rows,); "" where it does not, or is not there."""
    if column not in table:
        return np.full(rows, "", dtype=np.str_)
    names = {group: name for name, group in groups.items()}
    return np.array([names.get(file[reference], "") if reference else "" for reference in table[column][()]], np.str_)


def _electrodes_of_units(
    units: h5py.Group, rows: int, table: _Table, *, where: str, notes: list[str]
) -> list[Int64Array]:
    """Rows of the electrodes table that each unit lists, or that its peak channel is; none where that is not there."""
    if "electrodes" not in units:
        peaks = _peaks(units, rows)
        nowhere = np.empty(0, dtype=np.int64)
        return [nowhere] * rows if peaks is None else [np.flatnonzero(table.ids == peak) for peak in peaks]
    listed = numbers(units, "electrodes", where).astype(np.int64)
    ends = ends_of(units, "electrodes", rows, where) if "electrodes_index" in units else np.arange(1, rows + 1)
    outside = (listed < 0) | (listed >= len(table.ids))
    own = np.split(listed, ends[:-1])
    bad = np.array([part.any() for part in np.split(outside, ends[:-1])], dtype=bool)
    first = np.flatnonzero(outside)
    keep = keep_good(
        bad,
        what=f"{where}: field {units.name}/electrodes: places of {{}} units",
        why=f"are not among the {len(table.ids)} rows of the electrodes table",
        first=f"row {np.flatnonzero(bad)[0]}, electrode {listed[first[0]]}" if first.size else "",
        remedy="write the electrodes table that the rows stand for (rows, counted from 0, not ids)",
        notes=notes,
        most=MOST_UNITS,
    )
    return [part if good else part[:0] for part, good in zip(own, keep, strict=True)]


def _peaks(units: h5py.Group, rows: int) -> npt.NDArray[Any] | None:
    """Id of the electrode on which each unit is largest (U,), None where no column says so."""
    name = next((name for name in PEAKS if name in units and units[name].shape == (rows,)), None)
    return None if name is None else np.asarray(units[name][()])


def _groups_of_units(units: h5py.Group, own: Sequence[Int64Array], table: _Table) -> list[str]:
    """Electrode group of each unit: of the electrodes that it lists, else of its own column; "" where neither says."""
    folder = units.file.get("general/extracellular_ephys", {})
    groups = {name: folder[name] for name in table.locations}
    stated = _names(units.file, units, "electrode_group", groups, len(own)).tolist()
    return [str(table.groups[rows[0]]) if len(rows) else stated[unit] for unit, rows in enumerate(own)]


def _probes_of_units(
    own: Sequence[Int64Array],
    at: Sequence[Int64Array],
    groups: Sequence[str],
    table: _Table,
    *,
    where: str,
    notes: list[str],
) -> list[str]:
    """Probe of each unit, by where it is largest if its electrodes are on several; "" where nothing says.

    A few units that lie on two probes all the same lie nowhere. Raises RecordingError for many.
    """
    found, torn = [], np.zeros(len(own), dtype=bool)
    named = ""
    for unit, listed in enumerate(own):
        probes = np.unique(table.probes[listed]).tolist()
        if len(probes) > 1:
            probes = np.unique(table.probes[at[unit]]).tolist()
        torn[unit] = len(probes) > 1
        named = named or (f"row {unit}, on {', '.join(probes)}" if torn[unit] else "")
        found.append("" if torn[unit] else str(probes[0]) if probes else table.probe_of.get(groups[unit], ""))
    keep_good(
        torn,
        what=f"{where}: field units/electrodes: places of {{}} units",
        why="are on two probes, while a unit is from one",
        first=named,
        remedy="list for each unit the electrodes of its probe, or take the probes together with --population-by all",
        notes=notes,
        most=MOST_UNITS,
    )
    return found


def _peak(units: h5py.Group, unit: int, rows: Int64Array, ids: npt.NDArray[Any]) -> Int64Array:
    """The electrodes (1,) or, where nothing tells which of several it is, all electrodes that a unit lists."""
    peak = next((units[name][unit] for name in PEAKS if name in units), None)
    if peak is not None and (ids == peak).any():
        same = np.flatnonzero(ids == peak)
        return np.intersect1d(same, rows) if np.isin(same, rows).any() else same
    waveforms = units.get("waveform_mean")
    if len(rows) > 1 and waveforms is not None and waveforms.ndim == 3 and waveforms.shape[2] == len(rows):
        heights = np.ptp(np.asarray(waveforms[unit], dtype=np.float64), axis=0)
        return rows[[int(heights.argmax())]] if np.isfinite(heights).all() else rows
    return rows


def _regions(at: Sequence[Int64Array], groups: Sequence[str], table: _Table) -> StrArray:
    """Where each unit is: what its electrodes agree on, else where its group is."""
    column = table.columns.get("location")
    column = None if column is None else known_regions(column)
    found = ["" if column is None else str(_agreed(column[rows], "")) for rows in at]
    pairs = zip(found, groups, at, strict=True)
    return known_regions(
        np.array([own or ("" if len(rows) else table.locations.get(g, "")) for own, g, rows in pairs], np.str_)
    )


def _shanks(table: _Table) -> npt.NDArray[np.int32] | None:
    """Shank of every electrode (E,), counted per probe in the order of the shanks' names; None when nothing tells."""
    column = next((table.columns[name] for name in SHANKS if name in table.columns), None)
    if column is not None and column.dtype.kind in "iu":
        return column.astype(np.int32)
    names = table.groups if column is None else column.astype(np.str_)
    shanks = np.zeros(len(names), dtype=np.int32)
    for probe in np.unique(table.probes):
        mine = table.probes == probe
        shanks[mine] = np.unique(names[mine], return_inverse=True)[1]
    return shanks if shanks.any() or column is not None else None


def _agreed(values: npt.NDArray[Any], unknown: Any) -> Any:
    """The value that all of `values` share, `unknown` when they differ or there are none."""
    return values[0] if len(values) and (values == values[0]).all() else unknown
