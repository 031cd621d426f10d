"""torch_brain (temporaldata) HDF5, read with h5py alone.

`spikes/timestamps` (N,) float64 s, ascending, and `spikes/unit_index` (N,) are the spikes, `units/*` the unit table
with `units/id`, `spikes/domain` or `domain` with `start` and `end` (M,) in seconds what was recorded; the `id` and
`recording_date` of the groups `subject` and `session` are attributes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers.hdf5 import numbers, opened, required, table_columns, text_of
from nuclr_stream.recordings.readers.trains import (
    DEFAULT_SAMPLE_RATE_HZ,
    Trains,
    add_depth,
    declared_rate,
    named_session,
    probes_in,
    stretches_of,
    to_samples,
)
from nuclr_stream.recordings.recording import Recording

if TYPE_CHECKING:
    import h5py


def read_torch_brain(path: Path) -> list[Recording]:
    """Read a file; units with different `probe_id` (or `probe_name`, `probe`) become different recordings.

    Raises RecordingError naming file, field, value and remedy.
    """
    where = path.name
    with opened(path) as file:
        spikes, units = file["spikes"], file["units"]
        ids = required(units, "id", where).astype(np.str_)
        seconds, rows = numbers(spikes, "timestamps", where), numbers(spikes, "unit_index", where)
        rate = declared_rate(DEFAULT_SAMPLE_RATE_HZ, where=where)
        _check_spikes(seconds, rows, len(ids), where)
        columns = table_columns(units, len(ids), where)
        add_depth(columns)
        probes = probes_in(columns)
        probes = np.full(len(ids), "") if probes is None else probes
        observed = _domain(file)
        samples = to_samples(seconds, rate, where=f"{where}: field spikes/timestamps")
        stretches = (
            None if observed is None else stretches_of(observed, rate, spikes=samples, where=f"{where}: field domain")
        )
        subject, session = text_of(file.get("subject"), "id"), text_of(file.get("session"), "id")
        date = text_of(file.get("session"), "recording_date")
    return Trains(
        where=where,
        session_id=named_session(subject, session or path.stem),
        subject_id=subject,
        session_date=date[:10],
        sample_rate=rate,
        samples=samples,
        rows=rows.astype(np.int64),
        unit_ids=ids,
        probes=probes,
        columns=columns,
        observed={} if stretches is None else dict.fromkeys(np.unique(probes).tolist(), stretches),
    ).recordings()


def _check_spikes(seconds: np.ndarray, rows: np.ndarray, units: int, where: str) -> None:
    if seconds.ndim != 1 or seconds.shape != rows.shape or rows.dtype.kind not in "iu":
        raise RecordingError(
            f"{where}: spikes/timestamps {seconds.shape} and spikes/unit_index {rows.shape} {rows.dtype} must be one "
            "time and one integer row a spike"
        )
    back = np.flatnonzero(np.diff(seconds) < 0)
    if back.size:
        row = int(back[0]) + 1
        raise RecordingError(
            f"{where}: field spikes/timestamps: row {row} ({seconds[row]} s) is before row {row - 1}; sort by time"
        )
    outside = np.flatnonzero((rows < 0) | (rows >= units))
    if outside.size:
        row = int(outside[0])
        raise RecordingError(
            f"{where}: field spikes/unit_index: row {row} is {rows[row]}, but units has {units} rows; correct it"
        )


def _domain(file: h5py.File) -> np.ndarray | None:
    """The intervals (M, 2) in which spikes were observed, in seconds; None when the file does not say."""
    for name in ("spikes/domain", "domain"):
        if name in file and {"start", "end"} <= set(file[name]):
            return np.stack([file[name]["start"][()], file[name]["end"][()]], axis=1)
    return None
