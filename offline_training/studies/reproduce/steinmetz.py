"""Steinmetz et al. 2019: ALF-like folders of sessions, four groups of regions.

Layout: `<Animal>_<yyyy-mm-dd>/` anywhere below the folder with spikes.times.npy, spikes.clusters.npy,
clusters.probes.npy, clusters.peakChannel.npy (counted from 1), clusters.depths.npy and channels.brainLocation.tsv
(column allen_ontology, a row per channel of the session).
Rules: every unit; a probe is a recording. Groups of regions as in the authors' code (their slide names five).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nuclr_stream.recordings.readers.trains import DEFAULT_SAMPLE_RATE_HZ, Trains, to_samples
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import rational
from offline_training.studies.reproduce.archive import Archive, ArchiveError, load_array

GROUPS = {
    "HPF": ["CA1", "CA3", "DG", "POST", "SUB"],
    "MB": ["APN", "MRN", "PAG", "SCm", "SCs"],
    "TH": ["LD", "LGd", "LP", "MD", "MG", "PO", "POL", "RT", "VPL", "VPM"],
    "VIS": ["VISa", "VISam", "VISl", "VISp", "VISpm", "VISrl"],
}
RATE = rational(DEFAULT_SAMPLE_RATE_HZ)


def read_steinmetz(folder: Path) -> Sequence[Recording]:
    """Every probe of every session. Raises ArchiveError for a folder that is laid out otherwise."""
    sessions = sorted(path.parent for path in folder.rglob("spikes.times.npy"))
    if not sessions:
        raise ArchiveError(f"{folder}: no spikes.times.npy below; unpack the sessions' tar files first")
    return [recording for session in sessions for recording in _session(session)]


def _session(files: Path) -> list[Recording]:
    subject, _, date = files.name.lower().partition("_")
    if len(date) != 10:
        raise ArchiveError(f"{files}: the folder of a session is called <Animal>_<yyyy-mm-dd>")
    region = _regions(files / "channels.brainLocation.tsv")
    channel = load_array(files / "clusters.peakChannel.npy").astype(np.int64) - 1
    if len(channel) and not (channel.min() >= 0 and channel.max() < len(region)):
        raise ArchiveError(f"{files}/clusters.peakChannel.npy: holds {channel.max() + 1} of {len(region)} channels")
    session_id = f"{subject}_{date.replace('-', '')}"
    seconds = load_array(files / "spikes.times.npy")
    return Trains(
        where=str(files),
        session_id=session_id,
        subject_id=subject,
        session_date=date,
        sample_rate=RATE,
        samples=to_samples(seconds, RATE, where=f"{files}/spikes.times.npy"),
        rows=load_array(files / "spikes.clusters.npy").astype(np.int64),
        unit_ids=np.array([f"{session_id}_u{number}" for number in range(len(channel))]),
        probes=np.array([f"p{probe}" for probe in load_array(files / "clusters.probes.npy").astype(np.int64)]),
        columns={
            "brain_region": region[channel],
            "depth_um": load_array(files / "clusters.depths.npy").astype(np.float32),
        },
    ).recordings()


def _regions(path: Path) -> np.ndarray:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return np.array([row["allen_ontology"] for row in csv.DictReader(file, delimiter="\t")], dtype=np.str_)
    except (OSError, KeyError) as error:
        raise ArchiveError(f"{path}: not a table with the column allen_ontology ({error!r})") from error


ARCHIVE = Archive(
    name="steinmetz",
    source="Steinmetz et al. 2019, figshare article 9598406",
    config=Path("configs/pretrain_paper_spikes.toml"),
    tasks={"brain_region": {"column": "brain_region", "min_spikes": 0, "classes": GROUPS}},
    balance="oversampling",
    read=read_steinmetz,
    held_out=("cori", "forssmann", "hench"),
    figshare=9598406,
)
