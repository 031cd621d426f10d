"""Allen Visual Coding Neuropixels 2019: NWB files of sessions, three cell types from opto-tagging.

Layout: `session_<id>.nwb` anywhere below the folder, as the Allen cache and its S3 bucket have them, and
`allen_vc_2019.csv` (columns unit_id, lolcat_celltype; "wt": no label), which the authors of NuCLR publish with their
neuron metadata. Read from a file: the units table, the electrode that `peak_channel_id` names (probe_id, location),
/intervals/invalid_times and /processing/optotagging.
Rules: units in VIS* that pass the quality limits of AllenSDK's defaults; invalid times are masked; what follows 300 s
before the first opto-tagging pulse is dropped. A mouse has one session here, so the session is the animal.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nuclr_stream.recordings.readers.hdf5 import numbers, opened, required, table_columns
from nuclr_stream.recordings.readers.trains import DEFAULT_SAMPLE_RATE_HZ, StrArray, Trains, to_samples
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import BoolArray, Int64Array, rational
from offline_training.studies.reproduce.archive import Archive, ArchiveError, ending_at

if TYPE_CHECKING:
    import h5py

LABELS = "allen_vc_2019.csv"
NO_LABEL = "wt"
BEFORE_OPTOTAGGING_S = 300.0
MOST_AMPLITUDE_CUTOFF, LEAST_PRESENCE, MOST_ISI_VIOLATIONS = 0.1, 0.95, 0.5
RATE = rational(DEFAULT_SAMPLE_RATE_HZ)


def read_allen(folder: Path) -> Sequence[Recording]:
    """Every probe of every session. Raises ArchiveError for a folder without sessions or labels."""
    sessions = sorted(folder.rglob("session_*.nwb"))
    tables = sorted(folder.rglob(LABELS))
    if not sessions or not tables:
        missing = "session_*.nwb" if not sessions else LABELS
        raise ArchiveError(f"{folder}: no {missing} in it or below; see `nuclr-train reproduce --help`")
    labels = _labels(tables[0])
    return [recording for path in sessions for recording in _session(path, labels)]


def _labels(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"unit_id", "lolcat_celltype"} <= rows[0].keys():
        raise ArchiveError(f"{path}: needs the columns unit_id and lolcat_celltype and at least one row")
    return {row["unit_id"]: row["lolcat_celltype"] for row in rows if row["lolcat_celltype"] != NO_LABEL}


def _session(path: Path, labels: dict[str, str]) -> list[Recording]:
    session = path.stem.removeprefix("session_")
    with opened(path) as file:
        ids = required(file["units"], "id", path.name).astype(np.str_)
        columns = table_columns(file["units"], len(ids), path.name)
        location, probe = _places(file, columns, ids, path.name)
        used = _good(columns, path.name) & np.char.startswith(location, "VIS")
        rows, samples = _spikes(file["units"], used, path.name)
        masks = _stretches(file.get("intervals/invalid_times"), path.name)
        optotagging = _first_start(file.get("processing/optotagging/optogenetic_stimulation"), path.name)
    if not used.any():
        return []
    trains = Trains(
        where=path.name,
        session_id=session,
        subject_id=session,
        session_date="",
        sample_rate=RATE,
        samples=samples,
        rows=rows,
        unit_ids=ids[used],
        probes=probe[used],
        columns={"brain_region": location[used], "cell_type": np.array([labels.get(i, "") for i in ids[used]])},
    )
    found = [replace(recording, mask_samples=masks) for recording in trains.recordings()]
    if optotagging is None:
        return found
    return [ending_at(recording, optotagging - BEFORE_OPTOTAGGING_S) for recording in found]


def _places(file: h5py.File, columns: dict[str, np.ndarray], ids: StrArray, where: str) -> tuple[StrArray, StrArray]:
    """Region and probe of every unit, by its peak channel."""
    table = file["general/extracellular_ephys/electrodes"]
    channel = required(table, "id", where)
    row = {int(one): i for i, one in enumerate(channel)}
    peaks = columns["peak_channel_id"].astype(np.int64) if "peak_channel_id" in columns else np.empty(0, np.int64)
    if len(peaks) != len(ids) or any(int(peak) not in row for peak in peaks):
        raise ArchiveError(f"{where}: field units/peak_channel_id names no row of the electrodes table for every unit")
    own = np.array([row[int(peak)] for peak in peaks], dtype=np.int64)
    location, probe = (required(table, name, where).astype(np.str_) for name in ("location", "probe_id"))
    return location[own], probe[own]


def _good(columns: dict[str, np.ndarray], where: str) -> BoolArray:
    limits = ("amplitude_cutoff", "presence_ratio", "isi_violations")
    if missing := [name for name in limits if name not in columns]:
        raise ArchiveError(f"{where}: field units/{missing[0]} is missing; the membership rules need it")
    good: BoolArray = (
        (columns["amplitude_cutoff"] <= MOST_AMPLITUDE_CUTOFF)
        & (columns["presence_ratio"] >= LEAST_PRESENCE)
        & (columns["isi_violations"] <= MOST_ISI_VIOLATIONS)
    )
    return good & (columns["quality"] == "good") if "quality" in columns else good


def _spikes(units: h5py.Group, used: BoolArray, where: str) -> tuple[Int64Array, Int64Array]:
    """Rows among the used units, and samples, of their spikes (N,)."""
    ends: Int64Array = numbers(units, "spike_times_index", where).astype(np.int64)
    per_unit: Int64Array = np.concatenate([ends[:1], ends[1:] - ends[:-1]])
    kept = np.repeat(used, per_unit)
    seconds = numbers(units, "spike_times", where)[kept]
    return np.repeat(np.arange(used.sum()), per_unit[used]), to_samples(seconds, RATE, where=f"{where}: spike_times")


def _stretches(table: h5py.Group | None, where: str) -> Int64Array:
    if table is None or not len(table["start_time"]):
        return np.empty((0, 2), dtype=np.int64)
    seconds = np.stack([numbers(table, "start_time", where), numbers(table, "stop_time", where)], axis=1)
    stretches: Int64Array = to_samples(seconds, RATE, where=f"{where}: invalid_times") + np.array([0, 1])
    return stretches


def _first_start(table: h5py.Group | None, where: str) -> float | None:
    if table is None or not len(table["start_time"]):
        return None
    return float(numbers(table, "start_time", where).min())


ARCHIVE = Archive(
    name="allen",
    source="Allen Visual Coding Neuropixels: AllenSDK's EcephysProjectCache, or the S3 bucket allen-brain-observatory, "
    f"folder visual-coding-neuropixels/ecephys-cache; {LABELS} is in neuron_metadata.zip of github.com/nerdslab/nuclr",
    config=Path("configs/pretrain_paper_spikes.toml"),
    tasks={"cell_type": {"column": "cell_type", "min_spikes": 0, "classes": {c: [c] for c in ("Pvalb", "Sst", "Vip")}}},
    balance="weights",
    read=read_allen,
    held_out="labelled",
)
