"""Kilosort and phy folders: spike samples, clusters, their tables and templates. params.py is parsed, never executed.

Units are the clusters that have spikes, after curation where there was one (spike_clusters.npy, else
spike_templates.npy). Every column of `cluster_info.tsv` and of the `cluster_<column>.tsv` (or .csv) beside it is a
column of the unit table under its own name (`group`, `KSLabel`, `ContamPct`, ...); so labels of your own go into a
`cluster_brain_region.tsv`. A unit's place is the channel on which its commonest template is largest.

Spikes before sample 0, which Kilosort 4 finds at the edge of the filter, are left out. spike_times.npy and the clusters
belong together row by row: whoever sorts one must sort the other.

Such folders do not say whose they are: a file `recording.toml` in them may, with any of `recording_id`, `subject_id`
and `session_date`. Without it the recording is named after the folder, and its subject is unknown.
"""

from __future__ import annotations

import re
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.left_out import keep_good
from nuclr_stream.recordings.readers.clock import (
    FASTEST_HZ,
    LONG_S,
    MAX_LEAD_S,
    MIN_SPIKES,
    SLOW_HZ,
    SLOWEST_HZ,
    TOO_FAST_HZ,
    check_order,
    finite_times,
    rates_of,
)
from nuclr_stream.recordings.readers.cluster_tables import MAX_TEXT_BYTES, cluster_columns
from nuclr_stream.recordings.readers.params import sample_rate_in
from nuclr_stream.recordings.readers.trains import Trains, declared_rate
from nuclr_stream.recordings.readers.unit_table import add_region, parted_by_sorting, probes_in
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import MAX_SAMPLE, BoolArray

ABOUT = "recording.toml"
ABOUT_KEYS = ("recording_id", "subject_id", "session_date")
_SORTERS_NAME = re.compile(r"kilosort.*|ks[\d._]*|sorter_output|phy.*|outputs?|results?|sorting.*", re.IGNORECASE)


def read_phy(folder: Path, *, population_by: str = "") -> list[Recording]:
    """Read a folder; units with different `probe` in a cluster table become different recordings.

    `population_by` is a column to use instead. Raises RecordingError naming folder, file, field, value and remedy.
    """
    notes: list[str] = []
    where = f"{folder.name}/params.py"
    rate = declared_rate(
        sample_rate_in(_text(folder / "params.py", where), where, notes), where=f"{where}: field sample_rate"
    )
    samples = _samples(folder, rate, notes)
    source = "spike_clusters.npy" if (folder / "spike_clusters.npy").is_file() else "spike_templates.npy"
    clusters = _vector(folder, source)
    if clusters.shape != samples.shape:
        raise RecordingError(
            f"{folder.name}/{source}: {len(clusters)} clusters for {len(samples)} spikes of spike_times.npy; "
            "both files must come from one sorting: export it again"
        )
    used = _vector(folder, "spike_templates.npy") if (folder / "spike_templates.npy").is_file() else None
    keep = _usable(samples, clusters, rate, folder, notes)
    ids, rows = np.unique(clusters[keep], return_inverse=True)
    columns = cluster_columns(folder, ids, notes)
    columns |= _places(folder, rows, len(ids), used[keep] if used is not None and used.shape == keep.shape else used)
    add_region(columns, field=folder.name, notes=notes)
    if "depth_um" not in columns and "depth" in columns and columns["depth"].dtype.kind in "if":
        columns["depth_um"] = columns["depth"].astype(np.float32)
    about = _about(folder)
    stated = probes_in(columns)
    probes = np.full(len(ids), "", dtype=np.str_) if stated is None else stated
    return Trains(
        where=folder.name,
        session_id=about.get("recording_id") or _folder_id(folder),
        subject_id=about.get("subject_id", ""),
        session_date=about.get("session_date", ""),
        sample_rate=rate,
        samples=_from_the_beginning(np.rint(samples[keep]).astype(np.int64), rate, folder, notes),
        rows=rows,
        unit_ids=ids.astype(np.str_),
        probes=parted_by_sorting(probes, columns, field=folder.name, notes=notes),
        columns=columns,
        population_by=population_by,
        notes=tuple(notes),
        spikes_in=f"{folder.name}/spike_times.npy",
    ).recordings()


def _from_the_beginning(
    samples: npt.NDArray[np.int64], rate: Fraction, folder: Path, notes: list[str]
) -> npt.NDArray[np.int64]:
    """Samples (N,) counted from the first second of a clock that was running long before."""
    first_s = int(samples.min(initial=MAX_SAMPLE) / rate)
    if not samples.size or first_s <= MAX_LEAD_S:
        return samples
    notes.append(
        f"{folder.name}/spike_times.npy: samples begin {first_s / 3600:.4g} h after zero; here time counts from "
        f"{first_s} s"
    )
    return samples - int(first_s * rate)


def _samples(folder: Path, rate: Fraction, notes: list[str]) -> npt.NDArray[Any]:
    """Sample number of every spike (N,): of whole numbers whatever their type, and of seconds, which are not whole."""
    values = _array(folder, "spike_times.npy")
    if values.dtype.kind != "f" or values.size != max(values.shape, default=0):
        return _vector(folder, "spike_times.npy")
    flat = np.asarray(values.reshape(-1), dtype=np.float64)
    known = flat[np.isfinite(flat)]
    if (known == np.rint(known)).all():
        return flat
    notes.append(
        f"{folder.name}/spike_times.npy: has type {values.dtype} and times that are not whole, the first is "
        f"{known[known != np.rint(known)][0]:.9g}: taken as seconds"
    )
    seconds: npt.NDArray[Any] = flat * float(rate)
    return seconds


def _usable(
    samples: npt.NDArray[Any], clusters: npt.NDArray[np.int64], rate: Fraction, folder: Path, notes: list[str]
) -> BoolArray:
    """Which spikes (N,) have a time and a cluster; RecordingError where times start over or the rate can not be."""
    field = f"{folder.name}/spike_times.npy"
    keep = finite_times(samples, field=field, notes=notes)
    keep &= keep_good(
        clusters < 0,
        what=f"{folder.name}: {{}} spikes",
        why="have a cluster below 0",
        first=clusters,
        remedy="export the sorting again",
        notes=notes,
    )
    times, rows = samples[keep], np.unique(clusters[keep], return_inverse=True)[1]
    if not len(times):
        return keep
    check_order(times, rows, field=field, notes=notes)
    rates = rates_of(times, rows) * float(rate)
    span_s = float(times.max() - times.min()) / float(rate)
    if len(times) >= MIN_SPIKES and span_s > LONG_S and float(rates.max()) < SLOW_HZ and rate < 1000:
        median = float(np.median(rates)) * 1000
        likely = f": is it in kHz? write {float(rate) * 1000:g}" if SLOWEST_HZ <= median <= FASTEST_HZ else ""
        raise RecordingError(
            f"{folder.name}/params.py: field sample_rate is {float(rate):g}; with it {len(times)} spikes last "
            f"{span_s / 3600:.4g} h and the busiest unit fires at {rates.max():.3g} Hz{likely or ': write it in Hz'}"
        )
    if len(times) >= MIN_SPIKES and float(np.median(rates)) > TOO_FAST_HZ:
        raise RecordingError(
            f"{folder.name}/params.py: field sample_rate is {float(rate):g}; with it the median unit fires at "
            f"{np.median(rates):.3g} Hz over {span_s:.3g} s: write the rate of the device in Hz"
        )
    return keep


def _vector(folder: Path, name: str) -> npt.NDArray[np.int64]:
    values = _array(folder, name)
    flat = np.asarray(values.reshape(-1))
    whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool((flat == np.rint(flat)).all()))
    if values.size != max(values.shape, default=0) or not whole:
        raise RecordingError(
            f"{folder.name}/{name}: has type {values.dtype} {values.shape}; it must be one integer a spike: export the "
            "sorting again"
        )
    return flat.astype(np.int64)


def _array(folder: Path, name: str) -> npt.NDArray[Any]:
    try:
        values: npt.NDArray[Any] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise RecordingError(f"{folder.name}/{name}: no such file; export the sorting for phy again") from error
    except (OSError, ValueError, EOFError) as error:
        raise RecordingError(
            f"{folder.name}/{name}: not a whole .npy of plain numbers ({error}); copy it or export the sorting again"
        ) from error
    return values


def _text(path: Path, where: str) -> str:
    if not path.is_file():
        raise RecordingError(f"{where}: no such file; it says the sample rate, write one with sample_rate = 30000.")
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise RecordingError(f"{where}: larger than {MAX_TEXT_BYTES} bytes; this is no such file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordingError(f"{where}: not UTF-8 text ({error}); save it as UTF-8") from error


def _places(
    folder: Path, rows: npt.NDArray[np.integer], units: int, used: npt.NDArray[np.int64] | None
) -> dict[str, npt.NDArray[Any]]:
    """`depth_um`, `x_um`, `channel` and `shank` of every cluster where the folder has templates and positions.

    `used` (N,) is the template that every spike was found with.
    """
    needed = ("templates.npy", "channel_positions.npy")
    if not units or used is None or not all((folder / name).is_file() for name in needed):
        return {}
    templates, positions = _array(folder, "templates.npy"), _array(folder, "channel_positions.npy")
    if templates.ndim != 3 or positions.ndim != 2 or used.shape != rows.shape or used.max() >= len(templates):
        raise RecordingError(
            f"{folder.name}: templates.npy {templates.shape}, channel_positions.npy {positions.shape} and "
            f"spike_templates.npy {used.shape} (up to {used.max()}) do not belong together; export the sorting again"
        )
    pairs, counts = np.unique(np.stack([rows, used], axis=1), axis=0, return_counts=True)
    peak = np.zeros(units, dtype=np.int64)
    for unit in range(units):
        mine = pairs[:, 0] == unit
        peak[unit] = _peak_channel(folder, templates, int(pairs[mine][counts[mine].argmax(), 1]), len(positions))
    places: dict[str, npt.NDArray[Any]] = {
        "x_um": np.asarray(positions[peak, 0], dtype=np.float32),
        "depth_um": np.asarray(positions[peak, 1], dtype=np.float32),
        "channel": peak.astype(np.int32),
    }
    if (folder / "channel_shanks.npy").is_file():
        places["shank"] = _array(folder, "channel_shanks.npy").reshape(-1)[peak].astype(np.int32)
    return places


def _peak_channel(folder: Path, templates: npt.NDArray[Any], template: int, channels: int) -> int:
    """Channel on which a template (samples, channels) spans most, unwhitened where the folder has the matrix."""
    waveform = np.asarray(templates[template], dtype=np.float64)
    unwhitening = folder / "whitening_mat_inv.npy"
    if unwhitening.is_file() and waveform.shape[1] == channels:
        matrix = _array(folder, unwhitening.name)
        waveform = waveform @ matrix if matrix.shape == (channels, channels) else waveform
    peak = int(np.ptp(waveform, axis=0).argmax())
    sparse = [name for name in ("templates_ind.npy", "template_ind.npy") if (folder / name).is_file()]
    channel = int(_array(folder, sparse[0])[template, peak]) if sparse else peak
    if not 0 <= channel < channels:
        raise RecordingError(
            f"{folder.name}: template {template} is largest on channel {channel}, but channel_positions.npy has "
            f"{channels}; export the sorting again"
        )
    return channel


def _about(folder: Path) -> dict[str, str]:
    """What `recording.toml` says. Raises RecordingError for unknown keys and values that are no text."""
    path, where = folder / ABOUT, f"{folder.name}/{ABOUT}"
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(_text(path, where))
    except tomllib.TOMLDecodeError as error:
        raise RecordingError(f"{where}: not TOML ({error}); correct it") from error
    for key, value in values.items():
        if key not in ABOUT_KEYS or not isinstance(value, str) or not value:
            raise RecordingError(f"{where}: {key} = {value!r}; it may hold the texts {', '.join(ABOUT_KEYS)}")
    return values


def _folder_id(folder: Path) -> str:
    """The folder's name, after those of the folders above as long as a name is one that sorters give."""
    path = folder.resolve()
    names = [path.name]
    while _SORTERS_NAME.fullmatch(path.name) and path.parent.name:
        path = path.parent
        names.insert(0, path.name)
    return "_".join(names)
