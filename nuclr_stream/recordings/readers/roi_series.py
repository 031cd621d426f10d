"""RoiResponseSeries of NWB files, read with h5py alone.

* What a series holds, and which belong together, says `optical_roles`, by names; `roi_screening` looks at the values.
  dF/F is taken as it is, and raw fluorescence made dF/F (`fluorescence`) with the surround of the same ROIs.
* Times: `starting_time` with its rate, else `timestamps`, whose steps are whole frames: a frame that is missing there
  becomes a gap.
* Units are the rows of the plane segmentation, with its plain columns; where one says which are cells (JUDGED), cells
  only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers.hdf5 import is_dataset, numbers, opened, required, table_columns, text_of
from nuclr_stream.recordings.readers.optical_roles import Optical, Population, populations
from nuclr_stream.recordings.readers.roi_screening import holds, screened
from nuclr_stream.recordings.readers.trains import UNKNOWN_SUBJECT, Float64Array, declared_rate, named_session
from nuclr_stream.recordings.readers.unit_table import Columns, StrArray, unit_names
from nuclr_stream.recordings.recorded import NO_STRETCHES
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array

if TYPE_CHECKING:
    import h5py

MOST_MISSING = 10
"""Timestamps that claim more frames than this times those that are there are no frame times."""

MOST_TIMES = 0.05
"""Share of timestamps that may be wrong."""

JUDGED = ("iscell", "is_cell", "is_accepted", "accepted", "Accepted")
"""Columns of a plane segmentation that say which ROIs are cells: suite2p's, and those of neuroconv and CaImAn."""
REJECTED = ("rejected", "Rejected", "is_rejected")


@dataclass(frozen=True)
class Times:
    """When frames were taken: their rate, and the frame number (T,) of each."""

    rate: Fraction
    frames: Int64Array


@dataclass(frozen=True)
class Rois:
    """Ids (U,) and columns of the ROIs that a series has a trace of, and which of them are cells."""

    ids: StrArray
    columns: Columns
    cells: BoolArray


def read_roi_series(path: Path) -> list[TraceRecording]:
    """Read every population of a file, one recording each. Raises RecordingError naming file, field and remedy."""
    with opened(path) as file:
        notes: list[str] = []
        found = populations(file, path.name, notes)
        subject = text_of(file.get("general/subject"), "subject_id")
        session = text_of(file.get("general"), "session_id") or text_of(file, "identifier") or path.stem
        named = named_session(subject, session)
        return [
            replace(
                _recording(each, named if len(found) == 1 else f"{named}_{each.name}", path.name, list(notes)),
                subject_id=subject or UNKNOWN_SUBJECT,
                session_date=text_of(file, "session_start_time")[:10],
            )
            for each in found
        ]


def _recording(population: Population, recording_id: str, where: str, notes: list[str]) -> TraceRecording:
    series = population.cells.group
    field = f"{where}: {series.name}"
    values = _values(population.cells, where, notes)
    times = _times(series, values.shape[1], where, notes)
    rois = _rois(series, len(values), where, notes)
    raw = holds(values, "dff" if population.cells.role == "dff" else "raw", where=field, notes=notes) == "raw"
    neuropil = _neuropil(population, values, where, notes) if raw else None
    made = screened(
        values[rois.cells],
        None if neuropil is None else neuropil[rois.cells],
        raw=raw,
        frame_rate=times.rate,
        names=rois.ids[rois.cells].tolist(),
        where=field,
        notes=notes,
    )
    chosen = np.flatnonzero(rois.cells)[made.keep]
    placed = np.zeros((len(chosen), int(times.frames[-1]) + 1), dtype=np.float32)
    placed[:, times.frames] = made.traces
    recorded = np.zeros(placed.shape[1], dtype=bool)
    recorded[times.frames[~made.lost]] = True
    try:
        return TraceRecording(
            recording_id=recording_id,
            subject_id=UNKNOWN_SUBJECT,
            frame_rate=times.rate,
            traces=placed,
            unit_ids=rois.ids[chosen],
            units={name: column[chosen] for name, column in rois.columns.items()},
            gap_samples=_stretches(~recorded),
            notes=tuple(notes),
        )
    except RecordingError as error:
        raise RecordingError(f"{field}: {error}") from None


def _stretches(frames: BoolArray) -> Int64Array:
    """Stretches (M, 2) [start, stop) of the frames that are set (T,)."""
    if not frames.any():
        return NO_STRETCHES
    edges = np.flatnonzero(np.diff(np.concatenate([[False], frames, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2).astype(np.int64)


def _neuropil(population: Population, values: Float32Array, where: str, notes: list[str]) -> Float32Array | None:
    """The surround (U, T) of raw fluorescence; None, and a note, where there is none."""
    field = f"{where}: {population.cells.group.name}"
    if population.cells.role == "corrected":
        return None
    if population.neuropil is None:
        notes.append(f"{field}: no neuropil was found for it: dF/F is not corrected for the surround")
        return None
    found = _values(population.neuropil, where, notes)
    if found.shape != values.shape:
        notes.append(
            f"{field}: {population.neuropil.group.name} is {found.shape}, the cells are {values.shape}: not subtracted"
        )
        return None
    return found


def _values(optical: Optical, where: str, notes: list[str]) -> Float32Array:
    """The data (U, T); the file has (T, U), (T,) for one ROI, or by mistake (U, T)."""
    series = optical.group
    data, rois = numbers(series, "data", where), len(series["rois"])
    if data.ndim not in (1, 2) or not data.size:
        raise RecordingError(f"{where}: {series.name}/data is {data.shape}; (frames, ROIs) is needed")
    data = data.reshape(len(data), -1)
    if data.shape[1] != rois and len(data) == rois:
        notes.append(f"{where}: {series.name}/data is {data.shape} for {rois} ROIs: taken as (ROIs, frames)")
        data = data.T
    return np.ascontiguousarray(data.T, dtype=np.float32)


def _times(series: h5py.Group, frames: int, where: str, notes: list[str]) -> Times:
    field = f"{where}: {series.name}"
    if "starting_time" in series:
        return Times(declared_rate(series["starting_time"].attrs.get("rate", 0), where=field), np.arange(frames))
    seconds = _ascending(numbers(series, "timestamps", where).astype(np.float64), frames, field, notes)
    steps = np.diff(seconds)
    taken = np.round(steps / np.median(steps)).astype(np.int64)
    if taken.min() < 1 or taken.sum() > MOST_MISSING * frames:
        raise RecordingError(
            f"{field}/timestamps: steps of {steps.min():g} to {steps.max():g} s are no frames of one rate; write "
            "starting_time and rate, or a series for every stretch"
        )
    hertz = float(taken.sum() / (seconds[-1] - seconds[0]))
    if hertz < 0.3 and 1 <= 1000 * hertz <= 1000:
        notes.append(
            f"{field}/timestamps: as seconds, frames would be {1 / hertz:.4g} s apart: taken as milliseconds, "
            f"{1000 * hertz:.4g} frames a second"
        )
        hertz *= 1000
    # Exact to a millionth of a frame rate: times are floats, and their last digits say nothing.
    return Times(declared_rate(round(hertz, 6), where=field), np.concatenate([[0], np.cumsum(taken)]))


def _ascending(seconds: Float64Array, frames: int, field: str, notes: list[str]) -> Float64Array:
    """Timestamps (T,), a few wrong ones interpolated. Raises RecordingError when they are no times of frames."""
    if seconds.shape == (frames,) and frames > 1:
        filled = np.where(np.isfinite(seconds), seconds, -np.inf)
        good = filled > np.concatenate([[-np.inf], np.maximum.accumulate(filled)[:-1]])
        wrong = int((~good).sum())
        if wrong <= MOST_TIMES * frames and good.sum() > 1:
            if wrong:
                row = int(np.flatnonzero(~good)[0])
                notes.append(
                    f"{field}/timestamps: {wrong} of {frames} times are not finite or not later than the one before, "
                    "the "
                    f"first is row {row} ({seconds[row]:g}): interpolated"
                )
            numbered = np.arange(frames)
            return np.interp(numbered, numbered[good], seconds[good])
    raise RecordingError(f"{field}/timestamps: {frames} ascending times are needed, one a frame, got {seconds.shape}")


def _rois(series: h5py.Group, rows: int, where: str, notes: list[str]) -> Rois:
    """The ROIs of the rows of the data."""
    region = numbers(series, "rois", where)
    table = series.file[series["rois"].attrs["table"]]
    ids = unit_names(required(table, "id", where), field=f"{where}: {table.name}/id", notes=notes)
    if region.shape != (rows,) or (region.size and (region.min() < 0 or region.max() >= len(ids))):
        raise RecordingError(
            f"{where}: {series.name}/rois names {region.shape} of {len(ids)} ROIs; the data have {rows}"
        )
    columns = {name: values[region] for name, values in table_columns(table, len(ids), where).items()}
    cells = _judged(table, len(ids), where, notes)[region]
    if not cells.any():
        raise RecordingError(
            f"{where}: {table.name}: none of {rows} ROIs is judged to be a cell; judge them, or remove "
            "the column that says so"
        )
    return Rois(ids[region], columns, cells)


def _judged(table: h5py.Group, rois: int, where: str, notes: list[str]) -> BoolArray:
    """Which ROIs (U,) of a plane segmentation are cells by its own columns; all, and a note, where nobody judged."""
    for name, good in [(name, True) for name in JUDGED] + [(name, False) for name in REJECTED]:
        column = table.get(name)
        if (
            not is_dataset(column)
            or column.shape not in ((rois,), (rois, 1), (rois, 2))
            or column.dtype.kind not in "biuf"
        ):
            continue
        stated = np.asarray(column[()]).reshape(rois, -1)[:, 0] > 0
        if stated.any():
            return stated if good else ~stated
    notes.append(f"{where}: {table.name}: no column says which ROIs are cells: all {rois} are used")
    return np.ones(rois, dtype=bool)
