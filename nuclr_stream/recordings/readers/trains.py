"""What every reader ends in: the spike trains of one file, and how they become one Recording per population.

A population is a probe, unless a user chooses otherwise (`population_by`). A file says of each unit which probe it is
from: in one of PROBE_COLUMNS of its unit table, or in its own way. Times in seconds become sample numbers by rounding
to the nearest sample: at DEFAULT_SAMPLE_RATE_HZ, which is taken where a file in seconds declares no rate, a spike
moves by at most 17 us, against bins of 20 ms.
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
from nuclr_stream.recordings.left_out import keep_good
from nuclr_stream.recordings.readers.clock import bound_span
from nuclr_stream.recordings.readers.unit_table import PROBE_COLUMNS
from nuclr_stream.recordings.recorded import NO_STRETCHES
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import MAX_SAMPLE, Int64Array, WindowRules, rational

DEFAULT_SAMPLE_RATE_HZ = 30000
UNKNOWN_SUBJECT = "unknown"
"""All recordings of which nobody says whose they are count as one animal: a split can then never part a real one."""

ALL = "all"
"""The value of `population_by` that takes the units of all probes of a file together."""

MIN_LEAD_S, MIN_EXPECTED = 10.0, 100
"""A beginning without any spike is not silence if it is this long and this many spikes would be expected in it."""

DOUBLE_S, DOUBLE_SHARE = 1e-4, 0.02
"""Spikes of one unit closer than DOUBLE_S were counted twice; named where they are DOUBLE_SHARE of a unit's."""

StrArray = npt.NDArray[np.str_]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Trains:
    """Spike trains of one file on one clock: `samples` and unit rows `rows` (N,), in any order.

    `probes` (U,) names each unit's probe. `observed` holds per probe the stretches (M, 2) in samples that were
    recorded; a probe that is not in it was recorded from its first spikes to the end. `masked` (M, 2) must not be used.
    `population_by` is a column of the unit table, or ALL, to use instead of the probes. `where` names the file in
    errors, `spikes_in` the field with the times, `notes` what was left out and guessed so far.
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
    masked: Int64Array = field(default_factory=lambda: NO_STRETCHES)
    population_by: str = ""
    notes: tuple[str, ...] = ()
    spikes_in: str = ""

    def recordings(self) -> list[Recording]:
        """One Recording per population in the order of their names, all as long as the file.

        With several populations an id is `<session>_<name>`. Raises RecordingError naming the file.
        """
        if not len(self.unit_ids):
            raise RecordingError(f"{self.where}: the unit table is empty; there is nothing to read")
        notes = list(self.notes)
        keep = keep_good(
            self.samples < 0,
            what=f"{self.spikes_in or self.where}: {{}} spikes",
            why="lie before sample 0, where the recording begins",
            first=self.samples,
            remedy="samples count from the beginning of the recording: add to all of them what the clock is behind",
            notes=notes,
        )
        samples, rows = self.samples[keep], self.rows[keep]
        ends = [int(samples.max()) + 1 if samples.size else 0]
        ends += [int(stretches.max()) for stretches in self.observed.values() if stretches.size]
        stop = max(ends)
        if stop <= 0:
            raise RecordingError(f"{self.where}: {len(self.unit_ids)} units and no spike; there is nothing to read")
        bound_span(float(stop / self.sample_rate), len(self.unit_ids), where=self.where)
        begin = self._silent_lead(samples, notes)
        notes += self._double_spikes(samples, rows)
        populations = self._populations()
        names = np.unique(populations).tolist()
        notes += self._too_small(populations)
        found = []
        for name in names:
            members = np.flatnonzero(populations == name)
            observed = self._observed(members, begin=begin, stop=stop)
            recording_id = self.session_id if len(names) == 1 else f"{self.session_id}_{name}"
            found.append(
                self._recording(members, samples, rows, observed, recording_id=recording_id, notes=tuple(notes))
            )
        return found

    def _recording(
        self,
        members: Int64Array,
        samples: Int64Array,
        rows: npt.NDArray[np.integer],
        observed: Int64Array,
        *,
        recording_id: str,
        notes: tuple[str, ...],
    ) -> Recording:
        """The units `members` (U',) as a Recording that lasts to the end of `observed` (M, 2)."""
        stop = int(observed[:, 1].max())
        new_row = np.full(len(self.probes), -1, dtype=np.int32)
        new_row[members] = np.arange(len(members))
        mine = np.flatnonzero(new_row[rows] >= 0)
        order = mine[np.lexsort((rows[mine], samples[mine]))]
        columns = {name: values[members] for name, values in self.columns.items()}
        if (self.probes[members] != "").any():
            columns["probe_id"] = self.probes[members]
        try:
            return Recording(
                recording_id=recording_id,
                subject_id=self.subject_id or UNKNOWN_SUBJECT,
                session_date=self.session_date,
                sample_rate=self.sample_rate,
                num_samples=stop,
                spike_samples=samples[order],
                spike_units=new_row[rows[order]],
                unit_ids=self.unit_ids[members],
                units=columns,
                mask_samples=self.masked,
                gap_samples=_complement(observed, stop),
                notes=notes,
            )
        except RecordingError as error:
            raise RecordingError(f"{self.where}: {error}") from None

    def _populations(self) -> StrArray:
        """Name of the population of every unit (U,)."""
        if not self.population_by:
            return self.probes
        if self.population_by == ALL:
            return np.full(len(self.unit_ids), "", dtype=np.str_)
        column = self.columns.get(self.population_by)
        if column is None and self.population_by in PROBE_COLUMNS:
            return self.probes
        if column is None or column.ndim != 1:
            names = ", ".join(name for name, values in self.columns.items() if values.ndim == 1) or "none"
            raise RecordingError(
                f"{self.where}: --population-by {self.population_by}: there is no such column; choose one of {names}, "
                "or "
                f"{ALL}"
            )
        return column.astype(np.str_)

    def _observed(self, members: Int64Array, *, begin: int, stop: int) -> Int64Array:
        """What was recorded (M, 2) of the units `members`, ending with `stop`."""
        probes = np.unique(self.probes[members]).tolist()
        if not all(probe in self.observed for probe in probes):
            return np.array([[begin, stop]], dtype=np.int64)
        end = np.array([[stop, stop]], dtype=np.int64)
        return np.concatenate([*(self.observed[probe] for probe in probes), end])

    def _silent_lead(self, samples: Int64Array, notes: list[str]) -> int:
        """The sample at which recording began where the file does not say so: no probe is silent for long."""
        if self.observed or samples.size < 2:
            return 0
        first, last = int(samples.min()), int(samples.max())
        lead_s = float(first / self.sample_rate)
        expected = samples.size * first / max(last - first, 1)
        if lead_s < MIN_LEAD_S or expected < MIN_EXPECTED:
            return 0
        begin = int(int(lead_s) * self.sample_rate)
        notes.append(
            f"{self.where}: no unit fires before {lead_s:.9g} s: the first {int(lead_s)} s are taken as not recorded"
        )
        return begin

    def _double_spikes(self, samples: Int64Array, rows: npt.NDArray[np.integer]) -> list[str]:
        """A note on units that hold many spikes twice."""
        order = np.lexsort((samples, rows))
        near = (np.diff(rows[order]) == 0) & (np.diff(samples[order]) <= int(DOUBLE_S * self.sample_rate))
        doubles = np.bincount(rows[order][1:][near], minlength=len(self.unit_ids))
        many = np.flatnonzero(doubles > np.maximum(DOUBLE_SHARE * np.bincount(rows, minlength=len(doubles)), 5))
        if not many.size:
            return []
        return [
            f"{self.where}: {int(doubles[many].sum())} spikes of {many.size} units, the first is "
            f"{self.unit_ids[many[0]]}, "
            "follow another of the same unit within 0.1 ms: kept, though they were probably counted twice and raise "
            "its "
            "rate and its short intervals"
        ]

    def _too_small(self, populations: StrArray) -> list[str]:
        """A note where populations are too small to be used although the units together are not."""
        names, sizes = np.unique(populations, return_counts=True)
        needed = WindowRules().min_population
        small = names[sizes < needed]
        if len(names) < 2 or not small.size or len(populations) < needed:
            return []
        return [
            f"{self.where}: {small.size} of {len(names)} populations have fewer than {needed} units, the first is "
            f"{small[0]}: where they are parts of one (tetrodes, shanks), --population-by {ALL} takes the "
            f"{len(populations)} units of the file together, and --population-by COLUMN those with one value in a "
            "column"
        ]


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


def declared_rate(hertz: float, *, where: str) -> Fraction:
    """A sample rate as an exact rational. Raises RecordingError naming the field and its value."""
    try:
        return rational(float(hertz))
    except (ValueError, TypeError) as error:
        raise RecordingError(f"{where}: {error}; give the sample rate in Hz") from error


def named_session(subject: str, session: str) -> str:
    """An id that differs between animals too: the session's own, after the animal's unless that is part of it."""
    return session if not subject or subject in session else f"{subject}_{session}"


def _complement(stretches: Int64Array, stop: int) -> Int64Array:
    """What lies in [0, stop) outside the union of `stretches` (M, 2), as (M', 2)."""
    found, at = [], 0
    for start, end in sorted(stretches.tolist()):
        if start > at:
            found.append((at, start))
        at = max(at, end)
    if at < stop:
        found.append((at, stop))
    return np.array(found, dtype=np.int64).reshape(-1, 2)
