"""What every recording has, of spikes or of traces: who was recorded, unit table, masked stretches and gaps, notes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.npz import Arrays, integers
from nuclr_stream.windows.binning import MAX_SAMPLE, Float32Array, Grid, InputKind, Int64Array

MAX_UNITS = 65536
NO_STRETCHES = np.empty((0, 2), dtype=np.int64)
"""No [start, stop) stretch at all (0, 2)."""


class Recorded(Protocol):
    """What windows are cut from and labels are given to: a Recording of spikes or a TraceRecording.

    Samples are those of the device's clock; for traces a sample is a frame.
    """

    @property
    def input_kind(self) -> InputKind:
        """What the encoder gets of it."""

    @property
    def recording_id(self) -> str:
        """The recording."""

    @property
    def subject_id(self) -> str:
        """The animal."""

    @property
    def session_date(self) -> str:
        """The day, as the file writes it; may be empty."""

    @property
    def sample_rate(self) -> Fraction:
        """Samples per second of the device's clock."""

    @property
    def num_samples(self) -> int:
        """Length in samples."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""

    @property
    def unit_ids(self) -> npt.NDArray[np.str_]:
        """Ids of the units (U,)."""

    @property
    def units(self) -> dict[str, npt.NDArray[Any]]:
        """Columns of the unit table by name, (U, ...) each."""

    @property
    def mask_samples(self) -> Int64Array:
        """Stretches (M, 2) [start, stop) that must not be used."""

    @property
    def gap_samples(self) -> Int64Array:
        """Stretches (M, 2) [start, stop) that were not recorded."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader left out and guessed, a line each."""

    def counts(self, grid: Grid) -> Float32Array:
        """Values (U, bins) in every whole bin of `grid` from sample 0 on, zero where nothing was recorded."""

    def spikes(self, start: int, stop: int) -> tuple[Int64Array, Int64Array]:
        """Sample numbers (N,), ascending, and unit rows (N,) of the spikes in [start, stop); traces have none."""


def shared_arrays(recording: Recorded) -> dict[str, Any]:
    """Return the fields of a .npz that both kinds of recording have; the columns of the unit table get a prefix."""
    columns = {f"unit_{name}": values for name, values in recording.units.items()}
    return columns | {
        "recording_id": recording.recording_id,
        "subject_id": recording.subject_id,
        "session_date": recording.session_date,
        "unit_ids": recording.unit_ids,
        "mask_samples": recording.mask_samples,
        "gap_samples": recording.gap_samples,
        "notes": np.array(recording.notes, dtype=np.str_),
    }


def shared_fields(arrays: Arrays, path: Path) -> dict[str, Any]:
    """Return what `shared_arrays` wrote as arguments of a recording. Raises RecordingError naming the field."""
    fields: dict[str, Any] = {
        name: integers(arrays.get(name, NO_STRETCHES), name, path).astype(np.int64)
        for name in ("mask_samples", "gap_samples")
    }
    # "unit_ids" begins like a column and is none
    columns = {name[5:]: values for name, values in arrays.items() if name.startswith("unit_") and name != "unit_ids"}
    return fields | {
        "recording_id": str(arrays["recording_id"]),
        "subject_id": str(arrays["subject_id"]),
        "session_date": str(arrays.get("session_date", "")),
        "unit_ids": arrays["unit_ids"].astype(np.str_),
        "units": columns,
        "notes": tuple(str(note) for note in np.atleast_1d(arrays.get("notes", np.empty(0, dtype=np.str_)))),
    }


def check_table(recording: Recorded, where: str) -> None:
    """Raise RecordingError unless unit ids, columns and stretches of a recording are in order."""
    units = len(recording.unit_ids)
    if recording.unit_ids.ndim != 1 or not 0 < units <= MAX_UNITS:
        raise RecordingError(f"{where}: unit_ids holds {units} units; between 1 and {MAX_UNITS} are needed")
    empty = np.flatnonzero(recording.unit_ids == "")
    if empty.size:
        raise RecordingError(f"{where}: unit_ids: row {empty[0]} is empty; every unit needs an id")
    if len(np.unique(recording.unit_ids)) != units:
        names, counts = np.unique(recording.unit_ids, return_counts=True)
        raise RecordingError(
            f"{where}: unit_ids: {str(names[counts > 1][0])!r} stands for {counts.max()} units; ids must differ"
        )
    for name, column in recording.units.items():
        if column.ndim < 1 or len(column) != units:
            raise RecordingError(f"{where}: unit_{name} has shape {column.shape}; it needs {units} rows, one a unit")
    for name in ("mask_samples", "gap_samples"):
        stretches = getattr(recording, name)
        if stretches.ndim != 2 or stretches.shape[1:] != (2,) or (stretches[:, 0] >= stretches[:, 1]).any():
            raise RecordingError(f"{where}: {name} must be (M, 2) stretches [start, stop) with start < stop")
        if stretches.size and max(-int(stretches.min()), int(stretches.max())) > MAX_SAMPLE:
            raise RecordingError(f"{where}: {name} holds sample numbers beyond +-2**53")
