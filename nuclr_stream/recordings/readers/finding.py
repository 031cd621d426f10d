"""What a path holds, recognised by its content, and its recordings.

| kind | recognised by |
|---|---|
| npz | a zip file that is named .npz or holds `spike_samples` |
| nwb | HDF5 with an `nwb_version` and a table of units, in /units or /processing |
| torch_brain | HDF5 with `spikes/timestamps` and `units` |
| phy | a folder with `spike_times.npy` |
| traces | a zip file with `traces`, NWB with a RoiResponseSeries and no units, a folder with suite2p's `F.npy` |
| zarr, spikeinterface | a folder of that store, or one that SpikeInterface saved: named, and not read |

A folder that is none of these is searched with everything below it, hidden names left out, in the order of the names.
Files that look like nothing above are passed over, unless their suffix promised a recording.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers.hdf5 import MAGIC, opened
from nuclr_stream.recordings.readers.nwb import read_nwb, units_tables
from nuclr_stream.recordings.readers.phy import read_phy
from nuclr_stream.recordings.readers.populations import parted
from nuclr_stream.recordings.readers.torch_brain import read_torch_brain
from nuclr_stream.recordings.readers.traces import open_traces
from nuclr_stream.recordings.readers.trains import ALL
from nuclr_stream.recordings.readers.unit_table import PROBE_COLUMNS
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.recordings.traces import TraceRecording

if TYPE_CHECKING:
    import h5py

AnyRecording = Recording | TraceRecording
Kind = Literal["npz", "nwb", "torch_brain", "phy", "traces", "zarr", "spikeinterface"]

ZARR = (".zattrs", ".zgroup", ".zmetadata", "zarr.json")
SPIKEINTERFACE = ("spikeinterface_info.json", "si_folder.json", "numpysorting_info.json")

SUFFIXES = (".npz", ".nwb", ".h5", ".hdf5")
"""A file so named must be a recording; others are looked at and passed over when they are none."""


@dataclass(frozen=True)
class Source:
    """A file, or a sorter's folder, and what it holds."""

    path: Path
    kind: Kind

    def read(self, *, population_by: str = "") -> list[AnyRecording]:
        """Its recordings, one a probe, or one a value of the column `population_by` ("all": one of all units).

        Raises RecordingError naming file, field, value and remedy.
        """
        if self.kind == "npz":
            return parted(_one_probe(Recording.load(self.path), self.path, population_by), population_by)
        if self.kind == "nwb":
            return [*read_nwb(self.path, population_by=population_by)]
        if self.kind == "torch_brain":
            return [*read_torch_brain(self.path, population_by=population_by)]
        if self.kind == "phy":
            return [*read_phy(self.path, population_by=population_by)]
        if self.kind == "zarr":
            raise RecordingError(
                f"{self.path.name}: is a Zarr store, which is not read; export it to HDF5 (NWB: open it with "
                f"hdmf_zarr's "
                "NWBZarrIO and export it with pynwb's NWBHDF5IO)"
            )
        if self.kind == "spikeinterface":
            raise RecordingError(
                f"{self.path.name}: is a folder that SpikeInterface saved, which is not read; export the sorting with "
                "spikeinterface.exporters.export_to_phy"
            )
        return [part for recording in open_traces(self.path) for part in parted(recording, population_by)]


def find_sources(path: Path) -> list[Source]:
    """Everything at or below `path` that holds recordings.

    Raises RecordingError when there is nothing, or a file that claims by its suffix to be one and is not.
    """
    if not path.exists():
        raise RecordingError(f"{path}: no such file or folder")
    found = list(_walk(path))
    if not found:
        raise RecordingError(
            f"{path}: no recording there; looked for .npz, NWB and torch_brain HDF5, and folders with spike_times.npy"
        )
    return found


def open_recordings(path: Path, *, population_by: str = "") -> list[AnyRecording]:
    """Every recording at or below `path`, one a probe (or see `Source.read`), in the order of the names.

    Raises RecordingError naming file, field, value and remedy; two recordings of one id are rejected.
    """
    found: list[AnyRecording] = []
    whose: dict[str, Path] = {}
    for source in find_sources(path):
        for recording in source.read(population_by=population_by):
            other = whose.setdefault(recording.recording_id, source.path)
            if other != source.path:
                raise RecordingError(
                    f"{source.path}: recording_id {recording.recording_id!r} is that of {other} too; "
                    "rename one, or remove the copy"
                )
            found.append(recording)
    return found


def open_one(path: Path, recording_id: str = "", *, population_by: str = "") -> AnyRecording:
    """The only recording at `path`, or the one of this id. Raises RecordingError naming those that there are."""
    found = open_recordings(path, population_by=population_by)
    chosen = [recording for recording in found if recording_id in ("", recording.recording_id)]
    if len(chosen) != 1:
        names = ", ".join(recording.recording_id for recording in found)
        raise RecordingError(f"{path.name}: holds {names}; choose one of them by its recording id")
    return chosen[0]


def _walk(path: Path) -> Iterator[Source]:
    kind = _kind_of_folder(path) if path.is_dir() else _kind_of_file(path)
    if kind is not None:
        yield Source(path, kind)
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            if not child.name.startswith("."):
                yield from _walk(child)
    elif path.suffix.lower() in SUFFIXES:
        raise RecordingError(
            f"{path.name}: is neither a zip file nor HDF5, as {path.suffix} should be; remove it or copy it again"
        )


def _kind_of_folder(folder: Path) -> Kind | None:
    if (folder / "spike_times.npy").is_file():
        return "phy"
    if any((folder / name).is_file() for name in ZARR):
        return "zarr"
    if any((folder / name).is_file() for name in SPIKEINTERFACE):
        return "spikeinterface"
    again = folder.name == "combined" and any(folder.parent.glob("plane*/F.npy"))  # suite2p's planes once more
    return "traces" if (folder / "F.npy").is_file() and not again else None


def _kind_of_file(path: Path) -> Kind | None:
    with path.open("rb") as file:
        head = file.read(8)
    if not head and path.suffix.lower() in SUFFIXES:
        raise RecordingError(f"{path.name}: is empty (0 bytes); copy or download it again")
    if head[:4] == b"PK\x03\x04":
        return _kind_of_zip(path)
    if head != MAGIC:
        return None
    with opened(path) as file5:
        return _kind_of_hdf5(file5, path)


def _kind_of_zip(path: Path) -> Kind | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile:
        names = set()  # the reader of .npz says what is wrong with it
    if "traces.npy" in names:
        return "traces"
    return "npz" if "spike_samples.npy" in names or path.suffix.lower() == ".npz" else None


def _kind_of_hdf5(file: h5py.File, path: Path) -> Kind | None:
    if "nwb_version" in file.attrs:
        if units_tables(file):
            return "nwb"
        if _holds_rois(file):
            return "traces"
        raise RecordingError(
            f"{path.name}: NWB with neither units (in /units or /processing) nor RoiResponseSeries, but with "
            f"{_contents(file)}; if the session is not sorted yet, sort it, else write its units into the file"
        )
    if "spikes/timestamps" in file and "units" in file:
        return "torch_brain"
    if path.suffix.lower() not in SUFFIXES:
        return None
    raise RecordingError(
        f"{path.name}: HDF5 with {', '.join(sorted(map(str, file))) or 'nothing'}, neither NWB (nwb_version) nor "
        "torch_brain (spikes/timestamps, units); remove it"
    )


def _contents(file: h5py.File) -> str:
    """What an NWB file holds in /acquisition and /processing, in words."""
    names = [f"{top}/{name}" for top in ("acquisition", "processing") for name in file.get(top, ())]
    return ", ".join(names[:8]) or "no data"


def _holds_rois(file: h5py.File) -> bool:
    def visit(_name: str, item: h5py.HLObject) -> bool | None:
        return True if item.attrs.get("neurodata_type") == "RoiResponseSeries" else None

    return bool(file.visititems(visit))


def _one_probe(recording: Recording, path: Path, population_by: str) -> Recording:
    """The recording, if it is of one probe or a user says which units are a population."""
    for name in PROBE_COLUMNS if not population_by else ():
        probes = sorted(set(recording.units.get(name, ())))
        if len(probes) > 1:
            raise RecordingError(
                f"{path.name}: unit_{name} names the probes {', '.join(map(str, probes))}; "
                f"one .npz is one probe: write a file for each, or part it with --population-by {name} (or {ALL}, not "
                f"to)"
            )
    return recording
