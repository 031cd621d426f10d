"""RoiResponseSeries of NWB files, read with h5py alone.

* A series in a DfOverF container is taken as it is. If there is none, every series in a Fluorescence container is made
  dF/F (`fluorescence`); the container named Neuropil holds the surround under the same series name, Deconvolved is left
  out.
* Times: `starting_time` with its rate, else `timestamps`, whose steps are whole frames: a frame that is missing there
  becomes a gap.
* Units are the rows of the plane segmentation, with its plain columns; where it has `iscell` (suite2p), cells only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers.fluorescence import delta_f_over_f
from nuclr_stream.recordings.readers.hdf5 import numbers, opened, required, table_columns, text_of
from nuclr_stream.recordings.readers.trains import UNKNOWN_SUBJECT, declared_rate, named_session
from nuclr_stream.recordings.recording import NO_STRETCHES
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.windows.binning import Float32Array, Int64Array

if TYPE_CHECKING:
    import h5py

MOST_MISSING = 10
"""Timestamps that claim more frames than this times those that are there are no frame times."""


@dataclass(frozen=True)
class Times:
    """When frames were taken: their rate, and the frame number (T,) of each."""

    rate: Fraction
    frames: Int64Array


def read_roi_series(path: Path) -> list[TraceRecording]:
    """Read every series of a file, one recording each. Raises RecordingError naming file, field, value and remedy."""
    with opened(path) as file:
        series = _chosen(file)
        if not series:
            raise RecordingError(f"{path.name}: holds no RoiResponseSeries in a DfOverF or Fluorescence container")
        subject = text_of(file.get("general/subject"), "subject_id")
        session = text_of(file.get("general"), "session_id") or text_of(file, "identifier") or path.stem
        named = named_session(subject, session)
        ids = [named if len(series) == 1 else f"{named}_{each.name.rsplit('/', 1)[-1]}" for each in series]
        return [
            replace(
                _recording(each, recording_id, path.name),
                subject_id=subject or UNKNOWN_SUBJECT,
                session_date=text_of(file, "session_start_time")[:10],
            )
            for each, recording_id in zip(series, ids, strict=True)
        ]


def _chosen(file: h5py.File) -> list[h5py.Group]:
    found: dict[str, list[h5py.Group]] = {"DfOverF": [], "Fluorescence": []}

    def visit(_name: str, item: h5py.HLObject) -> None:
        holder = item.parent.attrs.get("neurodata_type")
        if item.attrs.get("neurodata_type") == "RoiResponseSeries" and holder in found:
            found[holder].append(item)

    file.visititems(visit)
    raw = [each for each in found["Fluorescence"] if _holder(each) not in ("Neuropil", "Deconvolved")]
    return found["DfOverF"] or raw


def _holder(series: h5py.Group) -> str:
    return str(series.parent.name.rsplit("/", 1)[-1])


def _recording(series: h5py.Group, recording_id: str, where: str) -> TraceRecording:
    values = _values(series, where)
    times = _times(series, values.shape[1], where)
    ids, columns, chosen = _units(series, len(values), where)
    if series.parent.attrs["neurodata_type"] == "DfOverF":
        traces = values[chosen]
    else:
        name = series.name.rsplit("/", 1)[-1]
        surround = series.parent.parent.get(f"Neuropil/{name}")
        neuropil = None if surround is None else _values(surround, where)[chosen]
        traces = delta_f_over_f(values[chosen], neuropil, times.rate, where=f"{where}: {series.name}")
    length = int(times.frames[-1]) + 1
    placed = np.zeros((len(traces), length), dtype=np.float32)
    placed[:, times.frames] = traces
    jumps = np.flatnonzero(np.diff(times.frames) > 1)
    gaps = np.stack([times.frames[jumps] + 1, times.frames[jumps + 1]], axis=1) if jumps.size else NO_STRETCHES
    try:
        return TraceRecording(
            recording_id=recording_id,
            subject_id=UNKNOWN_SUBJECT,
            frame_rate=times.rate,
            traces=placed,
            unit_ids=ids,
            units=columns,
            gap_samples=gaps,
        )
    except RecordingError as error:
        raise RecordingError(f"{where}: {series.name}: {error}") from None


def _values(series: h5py.Group, where: str) -> Float32Array:
    """The data (U, T); the file has (T, U), or (T,) for one ROI."""
    data = numbers(series, "data", where)
    if data.ndim not in (1, 2) or not data.size:
        raise RecordingError(f"{where}: {series.name}/data is {data.shape}; (frames, ROIs) is needed")
    return np.ascontiguousarray(data.reshape(len(data), -1).T, dtype=np.float32)


def _times(series: h5py.Group, frames: int, where: str) -> Times:
    field = f"{where}: {series.name}"
    if "starting_time" in series:
        return Times(declared_rate(series["starting_time"].attrs.get("rate", 0), where=field), np.arange(frames))
    seconds = numbers(series, "timestamps", where).astype(np.float64)
    steps = np.diff(seconds)
    if seconds.shape != (frames,) or frames < 2 or not np.isfinite(seconds).all() or (steps <= 0).any():
        raise RecordingError(f"{field}/timestamps: {frames} ascending times are needed, one a frame")
    taken = np.round(steps / np.median(steps)).astype(np.int64)
    if taken.min() < 1 or taken.sum() > MOST_MISSING * frames:
        raise RecordingError(
            f"{field}/timestamps: steps of {steps.min():g} to {steps.max():g} s are no frames of one rate; write "
            "starting_time and rate, or a series for every stretch"
        )
    # Exact to a millionth of a frame rate: times are floats, and their last digits say nothing.
    rate = declared_rate(round(float(taken.sum() / (seconds[-1] - seconds[0])), 6), where=field)
    return Times(rate, np.concatenate([[0], np.cumsum(taken)]))


def _units(
    series: h5py.Group, rows: int, where: str
) -> tuple[npt.NDArray[np.str_], dict[str, npt.NDArray[Any]], Int64Array]:
    """Ids and columns of the units, and which rows of the data they are."""
    region = numbers(series, "rois", where)
    table = series.file[series["rois"].attrs["table"]]
    ids = required(table, "id", where)
    if region.shape != (rows,) or (region.size and (region.min() < 0 or region.max() >= len(ids))):
        raise RecordingError(
            f"{where}: {series.name}/rois names {region.shape} of {len(ids)} ROIs; the data have {rows}"
        )
    chosen = np.arange(rows)
    judged = table.get("iscell")
    if judged is not None and judged.shape == (len(ids), 2):
        chosen = np.flatnonzero(np.asarray(judged[()])[region, 0] > 0)
    columns = {name: values[region[chosen]] for name, values in table_columns(table, len(ids), where).items()}
    return ids[region[chosen]].astype(np.str_), columns, chosen
