"""Predictions as columns of an NWB file's units: a copy of the file that they were made from, or a new one.

They never go into `electrodes.location`, which is anatomy: every name begins with `predicted_` or `prediction_`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.outputs.files import new_file
from nuclr_stream.outputs.result import Result
from nuclr_stream.outputs.tables import needed
from nuclr_stream.outputs.wide import Column, unit_columns
from nuclr_stream.recordings.readers import UNKNOWN_SUBJECT
from nuclr_stream.recordings.recording import Recording

if TYPE_CHECKING:
    from pynwb import NWBFile

UNDECIDED = ""
_IN_FILE = ("recording_id", "unit_id", "shank", "depth_um")
"""Columns that the file has in its own way."""


def write_nwb(path: Path, results: Sequence[Result], *, force: bool) -> None:
    """Write the predictions of one session as columns of its units.

    Of recordings that were read from an NWB file, all probes of it, `path` becomes a copy of that file with more
    columns; of one other recording it becomes a new file with the spike times. Raises NuclrStreamError for several
    files, for a session without a date, for traces, and for a file that has such columns already.
    """
    pynwb = needed("pynwb", path)
    sources = {result.source for result in results}
    if len(sources) != 1:
        raise NuclrStreamError(f"--out {path}: an NWB file is one session, not {len(sources)} files; label one at once")
    source = sources.pop()
    with new_file(path, force=force) as temporary:
        if source is not None and source.suffix.lower() == ".nwb" and source.is_file():
            shutil.copyfile(source, temporary)
            with pynwb.NWBHDF5IO(str(temporary), "a") as io:
                file = io.read()
                _add_columns(file, results, path)
                io.write(file)
            return
        if len(results) != 1:
            raise NuclrStreamError(f"--out {path}: {source} holds {len(results)} recordings; an NWB file takes one")
        with pynwb.NWBHDF5IO(str(temporary), "w") as io:
            io.write(_new_file(pynwb, results[0], path))


def _add_columns(file: NWBFile, results: Sequence[Result], path: Path) -> None:
    """Add the columns of all results to the units of `file`, each value to the unit of its id."""
    table = file.units
    if table is None:
        raise NuclrStreamError(f"--out {path}: the units of the file are not in /units; write .csv or .parquet")
    row_of = {_name(unit_id): row for row, unit_id in enumerate(table.id[:])}
    for columns in zip(*(_columns(result) for result in results), strict=True):
        name, values = columns[0].name, _empty(columns[0], len(row_of))
        if name in table.colnames:
            raise NuclrStreamError(
                f"--out {path}: the units have a column {name} already; label the file as it was before predictions"
            )
        for result, column in zip(results, columns, strict=True):
            for unit_id, value in zip(result.predictions.unit_ids, _plain(column), strict=True):
                values[row_of[unit_id]] = value
        data = values if any(isinstance(value, str) for value in values) else np.array(values)
        table.add_column(name=name, description=columns[0].meaning, data=data)


def _new_file(pynwb: Any, result: Result, path: Path) -> NWBFile:
    """Return a file with the spike times of a recording and its predictions."""
    recording = result.recording
    if not isinstance(recording, Recording):
        raise NuclrStreamError(f"--out {path}: only spikes are written as NWB units; write .csv or .parquet")
    file = pynwb.NWBFile(
        session_description="spike times with predictions of nuclr-stream; at what time of day it began is not known",
        identifier=str(uuid4()),
        session_start_time=_start(recording, path),
        session_id=recording.recording_id,
    )
    if recording.subject_id != UNKNOWN_SUBJECT:
        file.subject = pynwb.file.Subject(subject_id=recording.subject_id)
    columns = list(_columns(result))
    geometry = [column for column in unit_columns(result) if column.name in ("shank", "depth_um")]
    file.add_unit_column("unit_name", "id of the unit in its recording")
    for column in (*geometry, *columns):
        file.add_unit_column(column.name, column.meaning)
    seconds = recording.spike_samples / float(recording.sample_rate)
    observed = _observed_s(recording)
    values = [_plain(column) for column in (*geometry, *columns)]
    names = [column.name for column in (*geometry, *columns)]
    for u, unit_id in enumerate(result.predictions.unit_ids):
        row = {name: value[u] for name, value in zip(names, values, strict=True)}
        file.add_unit(unit_name=unit_id, spike_times=seconds[recording.spike_units == u], obs_intervals=observed, **row)
    return file


def _observed_s(recording: Recording) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Stretches (M, 2) in seconds that were recorded: all but the gaps."""
    gaps = sorted(recording.gap_samples.tolist())
    begins, ends = [0, *(stop for _, stop in gaps)], [*(start for start, _ in gaps), recording.num_samples]
    found = [(a, b) for a, b in zip(begins, ends, strict=True) if a < b]
    return np.array(found, dtype=np.float64) / float(recording.sample_rate)


def _start(recording: Recording, path: Path) -> datetime:
    try:
        return datetime.fromisoformat(recording.session_date).replace(tzinfo=UTC)
    except ValueError as error:
        raise NuclrStreamError(
            f"--out {path}: {recording.recording_id} has the session date {recording.session_date!r}; NWB needs one: "
            "give session_date as YYYY-MM-DD (in recording.toml or the .npz), or write .csv"
        ) from error


def _columns(result: Result) -> list[Column]:
    """The columns of predictions under names that an NWB file can hold and that nobody takes for anatomy."""
    found = []
    for column in unit_columns(result):
        if column.name in _IN_FILE:
            continue
        name = column.name if column.name.startswith("predicted_") else f"prediction_{column.name}"
        found.append(Column(re.sub(r"[/:.\s]", "_", name), column.values, f"nuclr-stream: {column.meaning}"))
    return found


def _plain(column: Column) -> list[Any]:
    return [UNDECIDED if value is None else value for value in column.values]


def _empty(column: Column, units: int) -> list[Any]:
    """What stands for units that are in no recording: they were left out when the file was read."""
    is_number = all(isinstance(value, int | float) for value in column.values)
    return [float("nan") if is_number else UNDECIDED] * units


def _name(unit_id: object) -> str:
    return str(unit_id)
