"""Objects of other packages as recordings: told apart by their type's module, so that none of them is imported here.

Shapes: N spikes, U units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers import UNKNOWN_SUBJECT, AnyRecording, open_recordings
from nuclr_stream.recordings.readers.trains import DEFAULT_SAMPLE_RATE_HZ, Trains, to_samples
from nuclr_stream.recordings.readers.unit_table import add_depth, unit_names
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Int64Array, rational

TimeUnit = Literal["s", "ms", "us", "samples"]
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
TAKEN = (
    "a path, a SpikeInterface sorting or sorting analyzer, a pynapple TsGroup, a pynwb NWBFile that was read from a "
    "file, a Recording, or (times, clusters) with time_unit"
)
Columns = dict[str, npt.NDArray[Any]]


def recordings_of(
    given: object,
    *,
    time_unit: TimeUnit | None = None,
    sample_rate: float | None = None,
    depth_um: Mapping[Any, float] | Sequence[float] | None = None,
    population_by: str = "",
) -> Sequence[AnyRecording]:
    """Return the recordings that `given` holds, one a population; the other arguments are those of `label`.

    Raises RecordingError naming what cannot be used, and what to give instead.
    """
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(given).__mro__}
    if isinstance(given, tuple | list) and len(given) == 2 and not isinstance(given[0], str | Path):
        return [_arrays(given, time_unit=time_unit, sample_rate=sample_rate, depth_um=depth_um)]
    # only arrays leave open what their numbers are: taking these for something else would look as if it were heeded
    for name, value in {"time_unit": time_unit, "sample_rate": sample_rate, "depth_um": depth_um}.items():
        if value is not None:
            raise RecordingError(f"{name} = {value!r}: only (times, clusters) arrays take it; leave it out")
    if isinstance(given, str | Path):
        return open_recordings(Path(given), population_by=population_by)
    if "pynwb.NWBFile" in kinds:
        return open_recordings(_path_of(given), population_by=population_by)
    if population_by:
        raise RecordingError(f"population_by = {population_by!r}: only files have populations to choose; leave it out")
    if isinstance(given, Recording):
        return [given]
    if "spikeinterface.SortingAnalyzer" in kinds:
        return [_analyzer(given)]
    if "spikeinterface.BaseSorting" in kinds:
        return [_sorting(given, _places(given))]
    if "pynapple.TsGroup" in kinds:
        return [_ts_group(given)]
    raise RecordingError(f"a {type(given).__module__}.{type(given).__name__} is no recording{_remedy(given, kinds)}")


def _remedy(given: object, kinds: set[str]) -> str:
    """What to give instead, for what people try."""
    if "spikeinterface.BaseRecording" in kinds:
        return ": it holds voltages, not spikes; sort it, and give the sorting"
    if "pynapple.Tsd" in kinds or "pynapple.Ts" in kinds:
        return ": it is one train; predictions need the population, give a TsGroup of all units of the probe"
    if isinstance(given, np.ndarray):
        return ": give times and clusters together, label((times, clusters), time_unit='s', ...)"
    return f"; give {TAKEN}"


def _arrays(
    given: Sequence[object],
    *,
    time_unit: TimeUnit | None,
    sample_rate: float | None,
    depth_um: Mapping[Any, float] | Sequence[float] | None,
) -> Recording:
    """Spike times and clusters (N,) as a recording."""
    times, clusters = (np.asarray(values) for values in given)
    if times.ndim != 1 or times.shape != clusters.shape:
        raise RecordingError(
            f"times {times.shape} and clusters {clusters.shape} must be two arrays of one length, a spike each; "
            "for a list of trains, join them: np.concatenate(trains), np.repeat(ids, [len(t) for t in trains])"
        )
    if time_unit is None or time_unit not in get_args(TimeUnit):
        raise RecordingError(
            f"time_unit is {time_unit!r}: say what the times are in, one of {', '.join(get_args(TimeUnit))}"
        )
    if not times.size or times.dtype.kind not in "iuf" or clusters.dtype.kind not in "iufUSO":
        raise RecordingError(
            f"times are {times.dtype} and clusters {clusters.dtype}, {times.size} spikes: give numbers"
        )
    rate = _rate(time_unit, sample_rate, times)
    values, rows = np.unique(clusters, return_inverse=True)
    notes: list[str] = []
    seconds = times.astype(np.float64) * _SECONDS.get(time_unit, 1.0)
    samples = times.astype(np.int64) if time_unit == "samples" else to_samples(seconds, rate, where="times")
    columns = {} if depth_um is None else {"depth_um": _depths(depth_um, values)}
    ids = unit_names(values, field="clusters", notes=notes)
    return _recording("arrays", rate=rate, samples=samples, rows=rows, ids=ids, columns=columns, notes=notes)


def _rate(time_unit: TimeUnit, sample_rate: float | None, times: npt.NDArray[Any]) -> Fraction:
    if time_unit != "samples":
        if sample_rate is not None:
            raise RecordingError(f"sample_rate = {sample_rate}: times in {time_unit} have none; leave it out")
        return Fraction(DEFAULT_SAMPLE_RATE_HZ)
    if sample_rate is None:
        raise RecordingError("time_unit is 'samples': give sample_rate too, in samples per second")
    if times.dtype.kind == "f" and (times != np.rint(times)).any():
        raise RecordingError("times are not whole: they are no samples; say time_unit='s', or 'ms'")
    try:
        return rational(sample_rate)
    except ValueError as error:
        raise RecordingError(f"sample_rate: {error}; give samples per second") from error


def _depths(given: Mapping[Any, float] | Sequence[float], values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Depths (U,) of the clusters `values` (U,), ascending."""
    if not isinstance(given, Mapping):
        if len(given) != len(values):
            raise RecordingError(
                f"depth_um has {len(given)} values for {len(values)} clusters; give one a cluster in ascending order, "
                "or a dict by cluster"
            )
        return np.asarray(given, dtype=np.float32)
    by_name = {str(key): value for key, value in given.items()}
    if missing := [value for value in values.tolist() if str(value) not in by_name]:
        raise RecordingError(f"depth_um names no depth of cluster {missing[0]} ({len(missing)} are missing); add them")
    return np.array([by_name[str(value)] for value in values.tolist()], dtype=np.float32)


def _sorting(sorting: Any, columns: Columns) -> Recording:
    """A SpikeInterface sorting of one segment; its own sample rate, ids and plain properties."""
    if sorting.get_num_segments() != 1:
        raise RecordingError(
            f"the sorting has {sorting.get_num_segments()} segments, which are no one recording; "
            "give sorting.select_segments(0), or join them with concatenate_sortings"
        )
    spikes = sorting.to_spike_vector()
    notes: list[str] = []
    ids = unit_names(np.asarray(sorting.unit_ids), field="unit_ids", notes=notes)
    rate = rational(float(sorting.get_sampling_frequency()))
    samples, rows = spikes["sample_index"].astype(np.int64), spikes["unit_index"].astype(np.int64)
    return _recording("sorting", rate=rate, samples=samples, rows=rows, ids=ids, columns=columns, notes=notes)


def _places(sorting: Any) -> Columns:
    """Plain properties of a sorting (U,), the depth under its own name."""
    columns: Columns = {}
    for name in sorting.get_property_keys():
        values = np.asarray(sorting.get_property(name))
        if values.ndim == 1 and values.dtype.kind in "iufbU":
            columns[name] = values
    add_depth(columns)
    return columns


def _analyzer(analyzer: Any) -> Recording:
    """A sorting analyzer: its sorting, with the places of units where it has computed them."""
    columns = _places(analyzer.sorting)
    locations = analyzer.get_extension("unit_locations")
    if locations is not None:
        places = np.asarray(locations.get_data(), dtype=np.float32)
        columns |= {"x_um": places[:, 0], "depth_um": places[:, 1]}
    recording = _sorting(analyzer.sorting, columns)
    length = int(analyzer.get_num_samples(0))
    return replace(recording, num_samples=max(length, recording.num_samples))


def _ts_group(group: Any) -> Recording:
    """A pynapple TsGroup: seconds, and its plain metadata; what lies outside of its time support was not recorded."""
    keys = list(group.keys())
    trains = [np.asarray(group[key].index, dtype=np.float64) for key in keys]
    notes: list[str] = []
    ids = unit_names(np.array(keys), field="TsGroup", notes=notes)
    columns: Columns = {}
    for name in group.metadata_columns:
        values = np.asarray(group.get_info(name))
        if name != "rate" and values.ndim == 1 and values.dtype.kind in "iufbU":
            columns[name] = values
    add_depth(columns)
    rate = Fraction(DEFAULT_SAMPLE_RATE_HZ)
    seconds = np.concatenate(trains) if trains else np.zeros(0)
    rows = np.repeat(np.arange(len(keys)), [len(train) for train in trains])
    support = np.stack([group.time_support.start, group.time_support.end], axis=1)
    begin = min(0.0, float(support.min()) if support.size else 0.0)
    if begin < 0:
        notes.append(f"TsGroup: times begin at {begin:g} s: time counts from there")
    samples = to_samples(seconds - begin, rate, where="TsGroup")
    observed = to_samples(support - begin, rate, where="time_support")
    if samples.size:  # rounding must not put a spike at the very end outside
        observed[-1, 1] = max(int(observed[-1, 1]), int(samples.max()) + 1)
    return _recording(
        "tsgroup", rate=rate, samples=samples, rows=rows, ids=ids, columns=columns, observed=observed, notes=notes
    )


def _path_of(file: Any) -> Path:
    """The path that an NWBFile was read from: the readers look at the file itself, with all that they know about it."""
    source = getattr(file, "container_source", None)
    if not source or not Path(source).is_file():
        raise RecordingError(
            "the NWBFile was not read from a file on this machine; write it with NWBHDF5IO and give the path"
        )
    if getattr(file, "modified", False):
        raise RecordingError(f"the NWBFile was changed since it was read from {source}; write it, and give the path")
    return Path(source)


def _recording(
    name: str,
    *,
    rate: Fraction,
    samples: Int64Array,
    rows: npt.NDArray[np.integer],
    ids: npt.NDArray[np.str_],
    columns: Columns,
    observed: Int64Array | None = None,
    notes: Sequence[str] = (),
) -> Recording:
    """One recording of one population, checked as those of files are."""
    trains = Trains(
        where=name,
        session_id=name,
        subject_id=UNKNOWN_SUBJECT,
        session_date="",
        sample_rate=rate,
        samples=samples,
        rows=rows,
        unit_ids=ids,
        probes=np.full(len(ids), "", dtype=np.str_),
        columns=columns,
        observed={} if observed is None else {"": observed},
        notes=tuple(notes),
        spikes_in=name,
    )
    (found,) = trains.recordings()
    return found
