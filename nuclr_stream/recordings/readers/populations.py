"""Parting a recording that is read already by a column of its unit table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers.trains import ALL
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.recordings.traces import TraceRecording


def parted(recording: Recording | TraceRecording, population_by: str) -> list[Recording | TraceRecording]:
    """The recording as one for each value of a column of its units; whole for "" and ALL, and where there is one value.

    Raises RecordingError, naming the columns that there are, when this one is not among them.
    """
    if population_by in ("", ALL):
        return [recording]
    column = recording.units.get(population_by)
    if column is None or column.ndim != 1:
        names = ", ".join(name for name, values in recording.units.items() if values.ndim == 1) or "none"
        raise RecordingError(
            f"{recording.recording_id}: --population-by {population_by}: there is no such column; choose one of "
            f"{names}, "
            f"or {ALL}"
        )
    values = column.astype(np.str_)
    names_of = np.unique(values).tolist()
    return [recording] if len(names_of) == 1 else [_only(recording, values == name, name) for name in names_of]


def _only(recording: Recording | TraceRecording, keep: np.ndarray, name: str) -> Recording | TraceRecording:
    """The units to keep (U,) as a recording of its own."""
    recording_id, ids = f"{recording.recording_id}_{name}", recording.unit_ids[keep]
    units = {column: values[keep] for column, values in recording.units.items()}
    if isinstance(recording, TraceRecording):
        return replace(recording, recording_id=recording_id, unit_ids=ids, units=units, traces=recording.traces[keep])
    new_row = (np.cumsum(keep) - 1).astype(np.int32)
    mine = keep[recording.spike_units]
    return replace(
        recording,
        recording_id=recording_id,
        unit_ids=ids,
        units=units,
        spike_samples=recording.spike_samples[mine],
        spike_units=new_row[recording.spike_units[mine]],
    )
