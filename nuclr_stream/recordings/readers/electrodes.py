"""Where the units of an NWB file were recorded: probe, shank, depth and region from its electrodes and their groups.

Shape letters: U units, E electrodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers.hdf5 import members, numbers, table_columns, text_of
from nuclr_stream.recordings.readers.ragged import ends_of
from nuclr_stream.recordings.readers.trains import PROBE_COLUMNS, StrArray
from nuclr_stream.windows.binning import Int64Array

if TYPE_CHECKING:
    import h5py

Columns = dict[str, npt.NDArray[Any]]
DEPTHS = ("rel_y", "probe_vertical_position")
ACROSS = ("rel_x", "probe_horizontal_position")
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


def read_electrodes(file: h5py.File, units: int, where: str) -> Electrodes:
    """Read the place of every unit from /units, /general/extracellular_ephys and its electrodes table.

    Raises RecordingError for electrodes that are not there, and for a unit on two probes.
    """
    table = _table(file, where)
    own = _electrodes_of_units(file["units"], units, len(table.ids), where)
    groups = _groups_of_units(file["units"], own, table)
    probes = [_probe(unit, rows, groups[unit], table, where) for unit, rows in enumerate(own)]
    known = sorted({*table.probes.tolist(), *table.probe_of.values()} - {""})
    if len(known) == 1:
        probes = known * units
    at = [_peak(file["units"], unit, rows, table.ids) for unit, rows in enumerate(own)]
    columns: Columns = {"brain_region": _regions(at, groups, table)}
    for name, sources in (("depth_um", DEPTHS), ("x_um", ACROSS)):
        column = next((table.columns[source] for source in sources if source in table.columns), None)
        if column is not None and column.dtype.kind in "iuf":
            columns[name] = np.array([_agreed(column[rows], np.nan) for rows in at], dtype=np.float32)
    shanks = _shanks(table)
    if shanks is not None:
        columns["shank"] = np.array([_agreed(shanks[rows], -1) for rows in at], dtype=np.int32)
    return Electrodes(np.array(probes, dtype=np.str_), columns, tuple(known))


def _table(file: h5py.File, where: str) -> _Table:
    folder = file.get("general/extracellular_ephys", {})
    groups = {name: group for name, group in members(folder) if "device" in group}
    if "electrodes" not in folder:
        nothing = np.empty(0, dtype=np.str_)
        ids, columns, group_of = np.empty(0, dtype=np.int64), {}, nothing
    else:
        ids = numbers(folder["electrodes"], "id", where)
        columns = table_columns(folder["electrodes"], len(ids), where)
        group_of = _names(file, folder["electrodes"], "group", groups, len(ids))
    probe_of = _probes_of_groups(file, groups, group_of, columns)
    stated = next((columns[name].astype(np.str_) for name in PROBE_COLUMNS if name in columns), None)
    return _Table(
        ids,
        columns,
        group_of,
        np.array([probe_of.get(name, "") for name in group_of.tolist()], dtype=np.str_) if stated is None else stated,
        {name: text_of(group, "location") for name, group in groups.items()},
        probe_of if stated is None else {},
    )


def _names(file: h5py.File, table: h5py.Group, column: str, groups: dict[str, h5py.Group], rows: int) -> StrArray:
    """Names of the electrode groups that a column refers to (rows,); "" where it does not, or is not there."""
    if column not in table:
        return np.full(rows, "", dtype=np.str_)
    names = {group: name for name, group in groups.items()}
    return np.array([names.get(file[reference], "") if reference else "" for reference in table[column][()]], np.str_)


def _probes_of_groups(
    file: h5py.File, groups: dict[str, h5py.Group], group_of: StrArray, columns: Columns
) -> dict[str, str]:
    """The probe of every electrode group: its device, or itself where groups of a device overlap."""
    names = {device: name for name, device in members(file.get("general/devices", {}))}
    device_of = {name: names.get(group["device"], "") for name, group in groups.items()}
    probe_of = {}
    for name, device in device_of.items():
        shared = [other for other in groups if device_of[other] == device and (group_of == other).any()]
        probe_of[name] = name if not device or _overlap(shared, group_of, columns) else device
    return probe_of


def _overlap(shared: Sequence[str], group_of: StrArray, columns: Columns) -> bool:
    """Whether electrodes of different groups lie at one place; unknown places do not count."""
    if "rel_x" not in columns or "rel_y" not in columns:
        return False
    seen: set[tuple[float, float]] = set()
    for name in shared:
        mine = np.stack([columns["rel_x"][group_of == name], columns["rel_y"][group_of == name]], axis=1)
        places = {(float(x), float(y)) for x, y in mine[np.isfinite(mine).all(axis=1)]}
        if places & seen:
            return True
        seen |= places
    return False


def _electrodes_of_units(units: h5py.Group, rows: int, electrodes: int, where: str) -> list[Int64Array]:
    """Rows of the electrodes table that each unit lists."""
    if "electrodes" not in units:
        return [np.empty(0, dtype=np.int64)] * rows
    listed = numbers(units, "electrodes", where).astype(np.int64)
    ends = ends_of(units, "electrodes", rows, where) if "electrodes_index" in units else np.arange(1, rows + 1)
    outside = np.flatnonzero((listed < 0) | (listed >= electrodes))
    if outside.size:
        unit = int(np.searchsorted(ends, outside[0], side="right"))
        raise RecordingError(
            f"{where}: field units/electrodes: row {unit} lists electrode {listed[outside[0]]}, but the electrodes "
            f"table has {electrodes} rows; correct it"
        )
    return np.split(listed, ends[:-1])


def _groups_of_units(units: h5py.Group, own: Sequence[Int64Array], table: _Table) -> list[str]:
    """Electrode group of each unit: of the electrodes that it lists, else of its own column; "" where neither says."""
    folder = units.file.get("general/extracellular_ephys", {})
    groups = {name: folder[name] for name in table.locations}
    stated = _names(units.file, units, "electrode_group", groups, len(own)).tolist()
    return [str(table.groups[rows[0]]) if len(rows) else stated[unit] for unit, rows in enumerate(own)]


def _probe(unit: int, rows: Int64Array, group: str, table: _Table, where: str) -> str:
    probes = np.unique(table.probes[rows]).tolist()
    if len(probes) > 1:
        raise RecordingError(
            f"{where}: field units/electrodes: row {unit} lists electrodes of the probes {', '.join(probes)}; "
            "a unit is from one probe: correct it"
        )
    return str(probes[0]) if probes else table.probe_of.get(group, "")


def _peak(units: h5py.Group, unit: int, rows: Int64Array, ids: npt.NDArray[Any]) -> Int64Array:
    """The electrodes (1,) or, where nothing tells which of several it is, all electrodes that a unit lists."""
    if "peak_channel_id" in units:
        return np.flatnonzero(ids == units["peak_channel_id"][unit])
    waveforms = units.get("waveform_mean")
    if len(rows) > 1 and waveforms is not None and waveforms.ndim == 3 and waveforms.shape[2] == len(rows):
        heights = np.ptp(np.asarray(waveforms[unit], dtype=np.float64), axis=0)
        return rows[[int(heights.argmax())]] if np.isfinite(heights).all() else rows
    return rows


def _regions(at: Sequence[Int64Array], groups: Sequence[str], table: _Table) -> StrArray:
    """Where each unit is: what its electrodes agree on, else where its group is."""
    column = table.columns.get("location")
    found = ["" if column is None else str(_agreed(column[rows], "")) for rows in at]
    pairs = zip(found, groups, at, strict=True)
    return np.array([own or ("" if len(rows) else table.locations.get(g, "")) for own, g, rows in pairs], np.str_)


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
