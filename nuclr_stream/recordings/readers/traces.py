"""Traces on disk: .npz, NWB with RoiResponseSeries, and suite2p folders."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers.roi_series import read_roi_series
from nuclr_stream.recordings.readers.suite2p import read_suite2p
from nuclr_stream.recordings.traces import TraceRecording


def open_traces(path: Path, *, frame_rate: Fraction | None = None) -> list[TraceRecording]:
    """Every recording of traces at `path`: a .npz, an NWB file, or a suite2p folder with one or several planes.

    `frame_rate` is that of a suite2p folder, which holds none that can be read without unpickling; elsewhere the file
    says it. Every plane is one population. Raises RecordingError naming file, field, value and remedy.
    """
    if path.is_dir():
        return [read_suite2p(plane, frame_rate=frame_rate) for plane in _planes(path)]
    if frame_rate is not None:
        raise RecordingError(f"{path.name}: the file says its frame rate itself; leave frame_rate out")
    if path.suffix.lower() == ".nwb":
        return read_roi_series(path)
    return [TraceRecording.load(path)]


def _planes(folder: Path) -> list[Path]:
    """The folders of the planes; `combined` holds the same cells once more."""
    for place in (folder, folder / "suite2p"):
        if (place / "F.npy").is_file():
            return [place]
        if planes := sorted(file.parent for file in place.glob("plane*/F.npy")):
            return planes
    raise RecordingError(f"{folder}: no suite2p output there; looked for F.npy, plane*/F.npy and suite2p/plane*/F.npy")
