"""What every reader ends in: the spike trains of one file, and how they become one Recording per probe.

A file says of each unit which probe it is from: in one of PROBE_COLUMNS of its unit table, or in its own way. Times in
seconds become sample numbers by rounding to the nearest sample: at DEFAULT_SAMPLE_RATE_HZ, which is taken where a file
in seconds declares no rate, a spike moves by at most 17 us, against bins of 20 ms.
Shape letters: N spikes, U units, M stretches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import MAX_SAMPLE, Int64Array, rational

DEFAULT_SAMPLE_RATE_HZ = 30000
UNKNOWN_SUBJECT = "unknown"
"""All recordings of which nobody says whose they are count as one animal: a split can then never part a real one."""

PROBE_COLUMNS = ("probe_id", "probe_name", "probe")
DEPTH_COLUMNS = ("depth_um", "axial_um", "depths")

StrArray = npt.NDArray[np.str_]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Trains:
    """Spike trains of one file on one clock: `samples` and unit rows `rows` (N,), in any order.

    `probes` (U,) names each unit's probe. `observed` holds per probe the stretches (M, 2) in samples that were
    recorded; a probe that is not in it was recorded from 0 to the end. `where` names the file in errors.
    """

    where: str
    session_id: str
    subject_id: str
    session_date: str
    sample_rate: Fraction
    samples: Int64Array
    rows: npt.NDArray[np.integer]
    unit_ids: StrArray
    probes: StrArray
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    observed: dict[str, Int64Array] = field(default_factory=dict)

    def recordings(self) -> list[Recording]:
        """One Recording per probe in the order of their names, all as long as the file.

        With several probes an id is `<session>_<probe>`. Raises RecordingError naming the file.
        """
        if not len(self.unit_ids):
            raise RecordingError(f"{self.where}: the unit table is empty; there is nothing to read")
        early = np.flatnonzero(self.samples < 0)
        if early.size:
            raise RecordingError(
                f"{self.where}: spike {early[0]} is at sample {self.samples[early[0]]}; samples count from the "
                "beginning of the recording: remove it"
            )
        ends = [int(self.samples.max()) + 1 if self.samples.size else 0]
        ends += [int(stretches.max()) for stretches in self.observed.values() if stretches.size]
        if max(ends) <= 0:
            raise RecordingError(f"{self.where}: {len(self.unit_ids)} units and no spike; there is nothing to read")
        names = np.unique(self.probes).tolist()
        return [self._recording(name, alone=len(names) == 1, stop=max(ends)) for name in names]

    def _recording(self, probe: str, *, alone: bool, stop: int) -> Recording:
        members = np.flatnonzero(self.probes == probe)
        new_row = np.full(len(self.probes), -1, dtype=np.int32)
        new_row[members] = np.arange(len(members))
        mine = np.flatnonzero(new_row[self.rows] >= 0)
        order = mine[np.lexsort((self.rows[mine], self.samples[mine]))]
        columns = {name: values[members] for name, values in self.columns.items()}
        if probe:
            columns["probe_id"] = np.full(len(members), probe)
        try:
            return Recording(
                recording_id=self.session_id if alone else f"{self.session_id}_{probe}",
                subject_id=self.subject_id or UNKNOWN_SUBJECT,
                session_date=self.session_date,
                sample_rate=self.sample_rate,
                num_samples=stop,
                spike_samples=self.samples[order],
                spike_units=new_row[self.rows[order]],
                unit_ids=self.unit_ids[members],
                units=columns,
                gap_samples=_complement(self.observed[probe], stop) if probe in self.observed else _complement(None, 0),
            )
        except RecordingError as error:
            raise RecordingError(f"{self.where}: {error}") from None


def to_samples(seconds: npt.ArrayLike, rate: Fraction, *, where: str, names: Sequence[str] | None = None) -> Int64Array:
    """Nearest sample number of every time, same shape.

    `where` names file and field in errors, `names` what each row belongs to. Raises RecordingError for a time that is
    NaN, infinite, before zero or beyond 2**53 samples.
    """
    values = np.asarray(seconds, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(values) | (values < 0) | (values * float(rate) > MAX_SAMPLE)
    if bad.any():
        row = int(np.flatnonzero(bad.reshape(len(values), -1).any(axis=1))[0])
        whose = f" (unit {names[row]})" if names is not None else ""
        raise RecordingError(
            f"{where}: row {row}{whose} is {values[row].tolist()} s; times must be finite, count from the beginning of "
            "the recording and not be negative: correct or remove it"
        )
    return np.rint(values * float(rate)).astype(np.int64)


def stretches_of(intervals: npt.ArrayLike, rate: Fraction, *, spikes: Int64Array, where: str) -> Int64Array:
    """Sample stretches (M, 2) [start, stop) of intervals [start, end] in seconds; a spike at the end is inside."""
    seconds = np.asarray(intervals, dtype=np.float64).reshape(-1, 2)
    stretches: Int64Array = to_samples(seconds, rate, where=where)
    stretches[:, 1] += np.isin(stretches[:, 1], spikes)
    backward = np.flatnonzero(stretches[:, 0] >= stretches[:, 1])
    if backward.size:
        row = int(backward[0])
        raise RecordingError(f"{where}: row {row} ends before it begins: {seconds[row].tolist()} s; correct it")
    return stretches


def declared_rate(hertz: float, *, where: str) -> Fraction:
    """A sample rate as an exact rational. Raises RecordingError naming the field and its value."""
    try:
        return rational(float(hertz))
    except (ValueError, TypeError) as error:
        raise RecordingError(f"{where}: {error}; give the sample rate in Hz") from error


def probes_in(columns: dict[str, npt.NDArray[Any]]) -> StrArray | None:
    """Which probe each unit (U,) is from by the unit table, None when no column of PROBE_COLUMNS is there."""
    return next((columns[name].astype(np.str_) for name in PROBE_COLUMNS if name in columns), None)


def add_depth(columns: dict[str, npt.NDArray[Any]]) -> None:
    """Give the table a numeric `depth_um` from the first of DEPTH_COLUMNS that there is, in place."""
    for name in DEPTH_COLUMNS:
        if name in columns and np.issubdtype(columns[name].dtype, np.number):
            columns["depth_um"] = columns[name].astype(np.float32)
            return


def named_session(subject: str, session: str) -> str:
    """An id that differs between animals too: the session's own, after the animal's unless that is part of it."""
    return session if not subject or subject in session else f"{subject}_{session}"


def _complement(stretches: Int64Array | None, stop: int) -> Int64Array:
    """What lies in [0, stop) outside the union of `stretches` (M, 2), as (M', 2); nothing when they are None."""
    found, at = [], 0
    for start, end in sorted(stretches.tolist()) if stretches is not None else ():
        if start > at:
            found.append((at, start))
        at = max(at, end)
    if at < stop:
        found.append((at, stop))
    return np.array(found, dtype=np.int64).reshape(-1, 2)
