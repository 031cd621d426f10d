"""IBL brain-wide map: ALF folders as the ONE client keeps them, ten Cosmos regions.

Layout: `Subjects/<animal>/<date>/<number>/alf/<probe>/` anywhere below the folder, the files in it or below it (a
sorter, a revision): spikes.times.npy, spikes.clusters.npy, clusters.channels.npy, clusters.depths.npy,
clusters.metrics.csv or .pqt (cluster_id, label), clusters.uuids.csv (uuids) and channels.brainLocationIds_ccf_2017.npy;
beside them `ontology.csv` (id, structure_id_path), the Allen structure tree. Of several sortings the last name counts.
Rules: units of QC label 1.0; the last 300 s are dropped; root and void are context.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nuclr_stream.recordings.readers.trains import DEFAULT_SAMPLE_RATE_HZ, Trains, to_samples
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import rational
from offline_training.studies.reproduce.archive import Archive, ArchiveError, ending_at, load_array

COSMOS = {
    **{512: "CB", 623: "CNU", 703: "CTXsp", 1065: "HB", 1089: "HPF"},
    **{1097: "HY", 315: "Isocortex", 313: "MB", 698: "OLF", 549: "TH"},
}
"""Id of the Allen structure by whose descent a unit belongs to a region."""
GOOD = 1.0
DROPPED_S = 300.0
RATE = rational(DEFAULT_SAMPLE_RATE_HZ)


def read_ibl(folder: Path) -> Sequence[Recording]:
    """Every probe with units of QC label 1.0. Raises ArchiveError for a folder that is laid out otherwise."""
    ontology = _ontology(folder)
    probes: dict[tuple[str, ...], Path] = {}
    for path in sorted(folder.rglob("spikes.times.npy")):
        parts = path.relative_to(folder).parts
        if "Subjects" not in parts or "alf" not in parts:
            raise ArchiveError(f"{path}: not below Subjects/<animal>/<date>/<number>/alf/<probe>")
        subject = parts[parts.index("Subjects") + 1 : parts.index("alf")]
        probes[(*subject, parts[parts.index("alf") + 1])] = path.parent
    if not probes:
        raise ArchiveError(f"{folder}: no spikes.times.npy below; see `nuclr-train reproduce --help`")
    found = [_probe(names, files, ontology) for names, files in probes.items()]
    return [recording for recording in found if recording is not None]


def _probe(names: tuple[str, ...], files: Path, ontology: dict[int, str]) -> Recording | None:
    subject, date = names[0], names[1]
    label = _labels(files)
    clusters = load_array(files / "spikes.clusters.npy").astype(np.int64)
    channel = load_array(files / "clusters.channels.npy").astype(np.int64)
    good = np.array([number for number in range(len(channel)) if label.get(number) == GOOD], dtype=np.int64)
    if not len(good):
        return None
    row = np.full(len(channel), -1, dtype=np.int64)
    row[good] = np.arange(len(good))
    kept = row[clusters] >= 0
    structure = load_array(files / "channels.brainLocationIds_ccf_2017.npy")[channel[good]]
    seconds = load_array(files / "spikes.times.npy")
    trains = Trains(
        where=str(files),
        session_id="_".join(names),
        subject_id=subject,
        session_date=date,
        sample_rate=RATE,
        samples=to_samples(seconds[kept], RATE, where=f"{files / 'spikes.times.npy'}"),
        rows=row[clusters[kept]],
        unit_ids=_uuids(files)[good],
        probes=np.full(len(good), names[-1]),
        columns={
            "brain_region": np.array([ontology.get(abs(int(one)), "") for one in structure]),
            "depth_um": load_array(files / "clusters.depths.npy")[good].astype(np.float32),
        },
    )
    (recording,) = trains.recordings()
    return ending_at(recording, float(seconds.max()) - DROPPED_S)


def _labels(files: Path) -> dict[int, float]:
    """QC label of every cluster by its number."""
    if (files / "clusters.metrics.csv").is_file():
        rows = _table(files / "clusters.metrics.csv", ("cluster_id", "label"))
        return {int(float(row["cluster_id"])): float(row["label"]) for row in rows}
    path = files / "clusters.metrics.pqt"
    if not path.is_file():
        raise ArchiveError(f"{files}: neither clusters.metrics.pqt nor .csv; without QC labels no unit can be chosen")
    try:
        from pyarrow.parquet import read_table  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ArchiveError(f"{path}: is Parquet, which needs pyarrow: install it, or save the table as .csv") from error
    table = read_table(path, columns=["cluster_id", "label"]).to_pydict()
    return {int(number): float(label) for number, label in zip(table["cluster_id"], table["label"], strict=True)}


def _uuids(files: Path) -> np.ndarray:
    return np.array([row["uuids"] for row in _table(files / "clusters.uuids.csv", ("uuids",))], dtype=np.str_)


def _ontology(folder: Path) -> dict[int, str]:
    """Cosmos region of every structure that lies in one, by id."""
    rows = _table(folder / "ontology.csv", ("id", "structure_id_path"))
    paths = {int(row["id"]): [int(one) for one in row["structure_id_path"].strip("/").split("/")] for row in rows}
    return {one: COSMOS[above] for one, path in paths.items() for above in path if above in COSMOS}


def _table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ArchiveError(f"{path}: not readable ({error}); the archive needs it") from error
    if not rows or not set(columns) <= rows[0].keys():
        raise ArchiveError(f"{path}: needs the columns {', '.join(columns)} and at least one row")
    return rows


ARCHIVE = Archive(
    name="ibl",
    source="IBL brain-wide map: the ONE client (pip install ONE-api), openalyx.internationalbrainlab.org; "
    "ontology.csv: the structure tree of api.brain-map.org (ontology 1)",
    config=Path("configs/pretrain_paper_spikes.toml"),
    tasks={
        "brain_region": {
            "column": "brain_region",
            "min_spikes": 0,
            "classes": {name: [name] for name in sorted(COSMOS.values(), key=str.lower)},
        }
    },
    balance="oversampling",
    read=read_ibl,
    held_out="ask",
)
