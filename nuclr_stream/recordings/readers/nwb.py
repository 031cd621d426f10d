"""NWB `units` tables, read with h5py alone: every NWB 2 file has them in one layout.

* The table is /units; where there is none, a Units table of /processing, each of several as recordings of its own.
* Spike times in seconds become samples at the rate that the file declares (`resolution` of units/spike_times, else the
  fastest ElectricalSeries in /acquisition of at least 10 kHz), else at DEFAULT_SAMPLE_RATE_HZ. `clock` says what
  happens to times that are in another unit, or begin elsewhere than at zero.
* A unit's electrode is the one that it lists; of several, the one that `peak_channel_id` names or where `waveform_mean`
  is largest. Without either, a unit takes from its electrodes what they agree on, and nothing else. A table without
  `electrodes` is read by its `peak_channel_id`.
* `probes` says which electrode groups are one probe. A column `probe_id`, `probe_name` or `probe`, of the units or of
  the electrodes, has the last word; `--population-by` overrides all of them.
* `obs_intervals`: what no unit of a probe was observed in is a gap of the probe. Without it recording begins with the
  `starting_time` of the ElectricalSeries. `invalid_times` are masked.

Every column of the units table with one plain value a unit is kept under its own name. Added where they are known:
`brain_region` (a column of the units, else the electrode's location, else its group's), `depth_um` and `x_um` (rel_y
and rel_x), `shank`, `electrode_group`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nuclr_stream.recordings.left_out import MOST_UNITS, keep_good
from nuclr_stream.recordings.readers.clock import Clock, check_order, clock_of, finite_times
from nuclr_stream.recordings.readers.electrodes import Electrodes, read_electrodes
from nuclr_stream.recordings.readers.hdf5 import members, numbers, opened, required, table_columns, text_of
from nuclr_stream.recordings.readers.observation import (
    clock_of_intervals,
    good_intervals,
    heeded,
    partly_observed,
    stretches_on,
)
from nuclr_stream.recordings.readers.ragged import ends_of
from nuclr_stream.recordings.readers.trains import (
    DEFAULT_SAMPLE_RATE_HZ,
    MIN_LEAD_S,
    Float64Array,
    Trains,
    declared_rate,
    named_session,
)
from nuclr_stream.recordings.readers.unit_table import (
    Columns,
    StrArray,
    add_depth,
    add_region,
    parted_by_sorting,
    probes_in,
    unit_names,
)
from nuclr_stream.recordings.recorded import NO_STRETCHES
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import BoolArray, Int64Array

if TYPE_CHECKING:
    from fractions import Fraction

    import h5py

MIN_SPIKE_BAND_HZ = 10_000
"""An ElectricalSeries that is slower holds field potentials: its rate is not the spikes'."""


@dataclass
class _Spikes:
    """Samples and unit rows (N,) on `clock`, what was observed of every unit (None where the file does not say)."""

    samples: Int64Array
    rows: Int64Array
    clock: Clock
    observed: list[Int64Array] | None


@dataclass(frozen=True)
class _Series:
    """The raw recording that spikes are from: its rate, and when it begins and ends in seconds (NaN: not known)."""

    rate_hz: float
    begin_s: float
    end_s: float


def units_tables(file: h5py.File) -> list[h5py.Group]:
    """Every table of units with spike times in an NWB file, /units first."""
    found: list[h5py.Group] = []

    def visit(_name: str, item: h5py.HLObject) -> None:
        if item.attrs.get("neurodata_type") == "Units" and "spike_times" in item and item.name != "/units":
            found.append(item)

    file.visititems(visit)
    return [*([file["units"]] if "units" in file else []), *found]


def read_nwb(path: Path, *, population_by: str = "") -> list[Recording]:
    """Read the units of a file, a recording per probe, or per value of the column `population_by`.

    Raises RecordingError naming file, field, value and remedy.
    """
    with opened(path) as file:
        tables = units_tables(file)
        notes, chosen = _choice(tables, path.name)
        found = []
        for table in chosen:
            name = "" if len(chosen) == 1 else table.name.rsplit("/", 1)[-1]
            found += _read_table(table, path, name, population_by=population_by, notes=list(notes)).recordings()
    return found


def _choice(tables: list[h5py.Group], where: str) -> tuple[list[str], list[h5py.Group]]:
    """Which tables to read, and what is to be noted: /units alone if it is there, else all."""
    names = ", ".join(table.name for table in tables)
    if tables[0].name == "/units" and ("spike_times" in tables[0] or len(tables) == 1):
        more = [f"{where}: also holds other sortings, which are not read: {names[len('/units, ') :]}"]
        return more if len(tables) > 1 else [], tables[:1]
    chosen = [table for table in tables if table.name != "/units"]
    if len(chosen) == 1:
        return [f"{where}: has no spikes in /units; read from {chosen[0].name}"], chosen
    return [
        f"{where}: holds {len(chosen)} sortings ({', '.join(table.name for table in chosen)}): each is a recording of "
        f"its "
        "own, for a neuron may be in all of them"
    ], chosen


def _read_table(table: h5py.Group, path: Path, name: str, *, population_by: str, notes: list[str]) -> Trains:
    """The spike trains of one table of units; `name` tells it from others of the file."""
    file, where = table.file, path.name
    ids = unit_names(required(table, "id", where), field=f"{where}: field {table.name}/id", notes=notes)
    series = _raw_series(file)
    spikes = _spikes(table, len(ids), series, where=where, notes=notes)
    columns = table_columns(table, len(ids), where)
    electrodes = read_electrodes(table, len(ids), where, notes)
    _add_electrodes(columns, electrodes, where=where, notes=notes)
    probes, keep = _probes(columns, electrodes, ids, population_by=population_by, where=where, notes=notes)
    probes = parted_by_sorting(probes, columns, field=f"{where}: {table.name}", notes=notes)
    new_row, mine = np.cumsum(keep) - 1, keep[spikes.rows]
    subject = text_of(file.get("general/subject"), "subject_id")
    session = text_of(file.get("general"), "session_id") or text_of(file, "identifier") or path.stem
    return Trains(
        where=where,
        session_id="_".join(part for part in (named_session(subject, session), name) if part),
        subject_id=subject,
        session_date=text_of(file, "session_start_time")[:10],
        sample_rate=spikes.clock.rate,
        samples=spikes.samples[mine],
        rows=new_row[spikes.rows[mine]],
        unit_ids=ids[keep],
        probes=probes[keep],
        columns={column: values[keep] for column, values in columns.items()},
        observed=_of_probes(spikes, probes, series),
        masked=_invalid(file, spikes.clock, where=where, notes=notes),
        population_by=population_by,
        notes=tuple(notes),
        spikes_in=f"{where}: field {table.name}/spike_times",
    )


def _raw_series(file: h5py.File) -> list[_Series]:
    """The ElectricalSeries of /acquisition that are fast enough for spikes."""
    found = []
    for _, series in members(file.get("acquisition", {})):
        if series.attrs.get("neurodata_type") != "ElectricalSeries" or "data" not in series:
            continue
        if "starting_time" in series:
            rate, begin = float(series["starting_time"].attrs.get("rate", 0)), float(series["starting_time"][()])
            end = begin + len(series["data"]) / rate if rate > 0 else np.nan
        elif "timestamps" in series and len(series["timestamps"]) > 1:
            times = series["timestamps"]
            begin, end = float(times[0]), float(times[-1])
            rate = float(round((len(times) - 1) / (end - begin), 3)) if end > begin else 0.0
        else:
            continue
        if rate >= MIN_SPIKE_BAND_HZ:
            found.append(_Series(rate, begin, end))
    return found


def _sample_rate(table: h5py.Group, series: list[_Series], where: str) -> tuple[Fraction, bool]:
    """The sample rate, and whether the file declares it."""
    resolution = table["spike_times"].attrs.get("resolution") if "spike_times" in table else None
    if isinstance(resolution, float) and 0 < resolution <= 1 / MIN_SPIKE_BAND_HZ:
        return declared_rate(1 / resolution, where=f"{where}: units/spike_times: resolution"), True
    fastest = max((each.rate_hz for each in series), default=DEFAULT_SAMPLE_RATE_HZ)
    return declared_rate(fastest, where=f"{where}: field rate of an ElectricalSeries"), bool(series)


def _spikes(table: h5py.Group, units: int, series: list[_Series], *, where: str, notes: list[str]) -> _Spikes:
    """The spikes of a table on the clock that their times are found to be on."""
    field = f"{where}: field {table.name}/spike_times"
    times = numbers(table, "spike_times", where).astype(np.float64)
    rows = np.repeat(np.arange(units), np.diff(ends_of(table, "spike_times", units, where), prepend=0))
    rate, rate_known = _sample_rate(table, series, where)
    intervals = _intervals(table, units, where=where, notes=notes)
    keep = finite_times(times, field=field, notes=notes)
    times, rows = times[keep], rows[keep]
    check_order(times, rows, field=field, notes=notes)
    begins = (
        [each.begin_s for each in series]
        if intervals is None
        else [float(each.min()) for each in intervals if len(each)]
    )
    begin = min(begins, default=None)
    clock = clock_of(times, rows, rate=rate, rate_known=rate_known, begins=begin, field=field, notes=notes)
    samples = clock.samples(times)
    if intervals is None or not len(times):
        return _Spikes(samples, rows, clock, None)
    everything = np.concatenate(intervals)
    own_clock = clock_of_intervals(clock, everything, float(times.max())) if everything.size else clock
    observed = [stretches_on(own_clock, each, samples) for each in intervals]
    field = f"{where}: field {table.name}/obs_intervals"
    keep, trusted = heeded(samples, rows, observed, field=field, notes=notes)
    if trusted:
        partly_observed(observed, field=field, notes=notes)
    return _Spikes(samples[keep], rows[keep], clock, observed if trusted else None)


def _intervals(table: h5py.Group, units: int, *, where: str, notes: list[str]) -> list[Float64Array] | None:
    """What was observed of every unit (M, 2) in the file's time; None where the file does not say."""
    if "obs_intervals" not in table or not len(table["obs_intervals"]):
        return None
    ends = ends_of(table, "obs_intervals", units, where)
    values = numbers(table, "obs_intervals", where).astype(np.float64).reshape(-1, 2)
    keep = good_intervals(values, field=f"{where}: field {table.name}/obs_intervals", notes=notes)
    return [
        part[good] if good.any() else values[keep]
        for part, good in zip(np.split(values, ends[:-1]), np.split(keep, ends[:-1]), strict=True)
    ]


def _of_probes(spikes: _Spikes, probes: StrArray, series: list[_Series]) -> dict[str, Int64Array]:
    """What was observed of each probe: what was observed of any of its units, else while the raw series ran."""
    names = np.unique(probes).tolist()
    if spikes.observed is not None:
        of_units = zip(probes.tolist(), spikes.observed, strict=True)
        parts: dict[str, list[Int64Array]] = {name: [] for name in names}
        for name, stretches in of_units:
            parts[name].append(stretches)
        return {name: np.unique(np.concatenate(found), axis=0) for name, found in parts.items()}
    if not series or not spikes.samples.size:
        return {}
    begin, stop = (
        int(spikes.clock.samples(edge))
        for edge in (min(each.begin_s for each in series), np.nanmax([each.end_s for each in series]))
    )
    first, last = int(spikes.samples.min()), int(spikes.samples.max())
    if not 0 <= begin <= first or (stop < first and first - begin > MIN_LEAD_S * spikes.clock.rate):
        return {}  # the series is on another clock than the spikes, or a stub
    end = max(stop, last + 1)
    return dict.fromkeys(names, np.array([[begin, end]], dtype=np.int64))


def _invalid(file: h5py.File, clock: Clock, *, where: str, notes: list[str]) -> Int64Array:
    """Stretches (M, 2) that the file calls invalid."""
    table = file.get("intervals/invalid_times")
    if table is None or not {"start_time", "stop_time"} <= set(table):
        return NO_STRETCHES
    times = np.stack([numbers(table, name, where) for name in ("start_time", "stop_time")], axis=1).astype(np.float64)
    keep = good_intervals(times, field=f"{where}: intervals/invalid_times", notes=notes)
    stretches = stretches_on(clock, times[keep], np.empty(0, dtype=np.int64))
    if len(stretches):
        seconds = float((stretches[:, 1] - stretches[:, 0]).sum() / clock.rate)
        notes.append(f"{where}: intervals/invalid_times: {len(stretches)} stretches, {seconds:.6g} s, are masked")
    return stretches


def _add_electrodes(columns: Columns, electrodes: Electrodes, *, where: str, notes: list[str]) -> None:
    """Put what the electrodes know beside what the units table says itself, which goes first, in place."""
    add_depth(columns)
    add_region(columns, field=f"{where}: units", notes=notes)
    for name, values in electrodes.columns.items():
        columns.setdefault(name, values)


def _probes(
    columns: Columns, electrodes: Electrodes, ids: StrArray, *, population_by: str, where: str, notes: list[str]
) -> tuple[StrArray, BoolArray]:
    """Probe of every unit (U,), and which units are kept: where there are several probes, those that name one."""
    stated = probes_in(columns)
    everyone = np.ones(len(ids), dtype=bool)
    if stated is not None:
        return stated, everyone
    lost = electrodes.probes == ""
    if len(electrodes.all_probes) < 2 or population_by:
        return electrodes.probes, everyone
    known = ", ".join(electrodes.all_probes)
    keep = keep_good(
        lost,
        what=f"{where}: {{}} units",
        why=f"name no electrode and no electrode group, and the file knows the probes {known}",
        first=f"unit {ids[np.flatnonzero(lost)[0]]}" if lost.any() else "",
        remedy="write units with electrodes, electrode_group, peak_channel_id or a column probe_id, or take all units "
        "of the file as one population with --population-by all",
        notes=notes,
        most=MOST_UNITS,
    )
    return electrodes.probes, keep
