"""NWB `units` tables, read with h5py alone: every NWB 2 file has them in one layout.

* Spike times in seconds become samples at the rate that the file declares (`resolution` of units/spike_times, else the
  fastest ElectricalSeries in /acquisition of at least 10 kHz), else at DEFAULT_SAMPLE_RATE_HZ.
* A unit's electrode is the one that it lists; of several, the one that `peak_channel_id` names or where `waveform_mean`
  is largest. Without either, a unit takes from its electrodes what they agree on, and nothing else.
* A probe is a Device: its electrode groups are shanks, unless two of them hold electrodes at the same place (rel_x,
  rel_y), for then every group is a probe. A column `probe_id`, `probe_name` or `probe`, of the units or of the
  electrodes, has the last word.
* `obs_intervals`: what no unit of a probe was observed in is a gap of the probe.

Every column of the units table with one plain value a unit is kept under its own name. Added where they are known:
`brain_region` (the electrode's location, else its group's), `depth_um` and `x_um` (rel_y and rel_x), `shank`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers.electrodes import Electrodes, read_electrodes
from nuclr_stream.recordings.readers.hdf5 import members, numbers, opened, required, table_columns, text_of
from nuclr_stream.recordings.readers.ragged import ends_of
from nuclr_stream.recordings.readers.trains import (
    DEFAULT_SAMPLE_RATE_HZ,
    StrArray,
    Trains,
    add_depth,
    declared_rate,
    named_session,
    probes_in,
    stretches_of,
    to_samples,
)
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Int64Array

if TYPE_CHECKING:
    from fractions import Fraction

    import h5py

Columns = dict[str, npt.NDArray[Any]]
MIN_SPIKE_BAND_HZ = 10_000
"""An ElectricalSeries that is slower holds field potentials: its rate is not the spikes'."""


def read_nwb(path: Path) -> list[Recording]:
    """Read the units of a file, a recording per probe. Raises RecordingError naming file, field, value and remedy."""
    where = path.name
    with opened(path) as file:
        units = file["units"]
        ids = required(units, "id", where).astype(np.str_)
        rate = _sample_rate(file, where)
        index, samples = _spikes(units, ids, rate, where)
        columns = table_columns(units, len(ids), where)
        electrodes = read_electrodes(file, len(ids), where)
        _add_electrodes(columns, electrodes)
        probes = _probes(columns, electrodes, ids, where)
        subject = text_of(file.get("general/subject"), "subject_id")
        session = text_of(file.get("general"), "session_id") or text_of(file, "identifier") or path.stem
        return Trains(
            where=where,
            session_id=named_session(subject, session),
            subject_id=subject,
            session_date=text_of(file, "session_start_time")[:10],
            sample_rate=rate,
            samples=samples,
            rows=np.repeat(np.arange(len(ids)), np.diff(index, prepend=0)),
            unit_ids=ids,
            probes=probes,
            columns=columns,
            observed=_observed(units, probes, samples, rate=rate, where=where),
        ).recordings()


def _sample_rate(file: h5py.File, where: str) -> Fraction:
    resolution = file["units/spike_times"].attrs.get("resolution") if "spike_times" in file["units"] else None
    if isinstance(resolution, float) and 0 < resolution <= 1 / MIN_SPIKE_BAND_HZ:
        return declared_rate(1 / resolution, where=f"{where}: units/spike_times: resolution")
    rates = [
        float(series["starting_time"].attrs.get("rate", 0))
        for _, series in members(file.get("acquisition", {}))
        if series.attrs.get("neurodata_type") == "ElectricalSeries" and "starting_time" in series
    ]
    fast = [rate for rate in rates if rate >= MIN_SPIKE_BAND_HZ]
    return declared_rate(max(fast, default=DEFAULT_SAMPLE_RATE_HZ), where=f"{where}: field rate of an ElectricalSeries")


def _spikes(units: h5py.Group, ids: StrArray, rate: Fraction, where: str) -> tuple[Int64Array, Int64Array]:
    """Where each unit's spikes end (U,), and the samples of all spikes (N,), unit by unit."""
    seconds = numbers(units, "spike_times", where)
    index = ends_of(units, "spike_times", len(ids), where)
    field = f"{where}: field units/spike_times"
    owner = np.repeat(np.arange(len(ids)), np.diff(index, prepend=0))
    samples = to_samples(seconds, rate, where=field, names=ids[owner].tolist())
    back = np.flatnonzero((np.diff(seconds) < 0) & (np.diff(owner) == 0))
    if back.size:
        row = int(back[0]) + 1
        raise RecordingError(
            f"{field}: row {row} ({seconds[row]} s, unit {ids[owner[row]]}) is before row {row - 1}; "
            "sort the spikes of each unit by time"
        )
    return index, samples


def _add_electrodes(columns: Columns, electrodes: Electrodes) -> None:
    """Put what the electrodes know beside what the units table says itself, which goes first, in place."""
    if "depth_um" not in columns:
        add_depth(columns)
    for name, values in electrodes.columns.items():
        columns.setdefault(name, values)


def _probes(columns: Columns, electrodes: Electrodes, ids: StrArray, where: str) -> StrArray:
    stated = probes_in(columns)
    if stated is not None:
        return stated
    lost = np.flatnonzero(electrodes.probes == "")
    if len(electrodes.all_probes) > 1 and lost.size:
        raise RecordingError(
            f"{where}: unit {ids[lost[0]]} names no electrode and no electrode group, and the file knows the probes "
            f"{', '.join(electrodes.all_probes)}; write units with electrodes, electrode_group or a column probe_id"
        )
    return electrodes.probes


def _observed(
    units: h5py.Group, probes: StrArray, samples: Int64Array, *, rate: Fraction, where: str
) -> dict[str, Int64Array]:
    """What was observed of each probe: what was observed of any of its units."""
    if "obs_intervals" not in units:
        return {}
    index = ends_of(units, "obs_intervals", len(probes), where)
    field = f"{where}: field units/obs_intervals"
    stretches = stretches_of(numbers(units, "obs_intervals", where), rate, spikes=samples, where=field)
    owner = np.repeat(probes, np.diff(index, prepend=0))
    return {probe: np.unique(stretches[owner == probe], axis=0) for probe in np.unique(owner).tolist()}
