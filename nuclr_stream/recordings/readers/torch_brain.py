"""torch_brain (temporaldata) HDF5, read with h5py alone.

`spikes/timestamps` (N,) float64 s and `spikes/unit_index` (N,) are the spikes, `units/*` the unit table with
`units/id`, `spikes/domain` or `domain` with `start` and `end` (M,) in seconds what was recorded; the `id` and
`recording_date` of the groups `subject` and `session` are attributes. A domain that begins before zero is counted from
its first second.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.left_out import keep_good
from nuclr_stream.recordings.readers.clock import check_order, clock_of, finite_times
from nuclr_stream.recordings.readers.hdf5 import numbers, opened, required, table_columns, text_of
from nuclr_stream.recordings.readers.observation import (
    clock_of_intervals,
    good_intervals,
    heeded,
    stretches_on,
)
from nuclr_stream.recordings.readers.trains import (
    DEFAULT_SAMPLE_RATE_HZ,
    Float64Array,
    Trains,
    declared_rate,
    named_session,
)
from nuclr_stream.recordings.readers.unit_table import add_depth, add_region, parted_by_sorting, probes_in, unit_names
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Int64Array

if TYPE_CHECKING:
    import h5py


def read_torch_brain(path: Path, *, population_by: str = "") -> list[Recording]:
    """Read a file; units with different `probe_id` (or `probe_name`, `probe`) become different recordings.

    `population_by` is a column to use instead. Raises RecordingError naming file, field, value and remedy.
    """
    where, notes = path.name, list[str]()
    with opened(path) as file:
        spikes, units = file["spikes"], file["units"]
        ids = unit_names(required(units, "id", where), field=f"{where}: field units/id", notes=notes)
        seconds, rows = numbers(spikes, "timestamps", where), numbers(spikes, "unit_index", where)
        columns = table_columns(units, len(ids), where)
        domain = _domain(file, where, notes)
        subject, session = text_of(file.get("subject"), "id"), text_of(file.get("session"), "id")
        date = text_of(file.get("session"), "recording_date")
    times, rows = _usable(seconds, rows, len(ids), domain, where=where, notes=notes)
    add_depth(columns)
    add_region(columns, field=f"{where}: units", notes=notes)
    stated = probes_in(columns)
    probes = np.full(len(ids), "", dtype=np.str_) if stated is None else stated
    probes = parted_by_sorting(probes, columns, field=f"{where}: units", notes=notes)

    # The clock, then what was observed on it.
    clock = clock_of(
        times,
        rows,
        rate=declared_rate(DEFAULT_SAMPLE_RATE_HZ, where=where),
        rate_known=False,
        begins=None if domain is None else float(domain.min()),
        field=f"{where}: field spikes/timestamps",
        notes=notes,
    )
    samples, observed = clock.samples(times), {}
    if domain is not None and len(times):
        stretches = stretches_on(clock_of_intervals(clock, domain, float(times.max())), domain, samples)
        field = f"{where}: field domain"
        keep, trusted = heeded(samples, rows, [stretches] * len(ids), field=field, notes=notes)
        samples, rows = samples[keep], rows[keep]
        observed = dict.fromkeys(np.unique(probes).tolist(), stretches) if trusted else {}
    return Trains(
        where=where,
        session_id=named_session(subject, session or path.stem),
        subject_id=subject,
        session_date=date[:10],
        sample_rate=clock.rate,
        samples=samples,
        rows=rows,
        unit_ids=ids,
        probes=probes,
        columns=columns,
        observed=observed,
        population_by=population_by,
        notes=tuple(notes),
        spikes_in=f"{where}: field spikes/timestamps",
    ).recordings()


def _usable(
    seconds: npt.NDArray[Any],
    rows: npt.NDArray[Any],
    units: int,
    domain: Float64Array | None,
    *,
    where: str,
    notes: list[str],
) -> tuple[Float64Array, Int64Array]:
    """Times and unit rows (N,) of the spikes that have a time and a unit, checked for times that start over."""
    if seconds.ndim != 1 or seconds.shape != rows.shape or rows.dtype.kind not in "iu":
        raise RecordingError(
            f"{where}: spikes/timestamps {seconds.shape} and spikes/unit_index {rows.shape} {rows.dtype} must be one "
            "time and one integer row a spike"
        )
    keep = keep_good(
        (rows < 0) | (rows >= units),
        what=f"{where}: field spikes/unit_index: {{}} spikes",
        why=f"name no row of the {units} units",
        first=rows,
        remedy="write unit_index and units from one sorting",
        notes=notes,
    )
    times, kept = seconds[keep].astype(np.float64), rows[keep].astype(np.int64)
    field = f"{where}: field spikes/timestamps"
    keep = finite_times(times, field=field, notes=notes)
    times, kept = times[keep], kept[keep]
    check_order(times, kept, field=field, notes=notes)
    return times, kept


def _domain(file: h5py.File, where: str, notes: list[str]) -> Float64Array | None:
    """The intervals (M, 2) in which spikes were observed, in seconds; None when the file does not say."""
    for name in ("spikes/domain", "domain"):
        if name in file and {"start", "end"} <= set(file[name]):
            start, end = (numbers(file[name], each, where).astype(np.float64) for each in ("start", "end"))
            if start.shape != end.shape or start.ndim != 1:
                raise RecordingError(f"{where}: field {name} has {start.shape} starts and {end.shape} ends")
            intervals: Float64Array = np.stack([start, end], axis=1)
            found = intervals[good_intervals(intervals, field=f"{where}: field {name}", notes=notes)]
            return found if len(found) else None
    return None
