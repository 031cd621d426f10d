"""One plane of suite2p: F.npy, Fneu.npy and iscell.npy become dF/F of the ROIs that were judged to be cells.

ops.npy and stat.npy are pickles, which can run any code, and are never read. What they would have stated stands in a
file `recording.toml` beside F.npy or in the folder above: `frame_rate_hz`, a number or exact text such as "6250/1459",
and any of `recording_id`, `subject_id` and `session_date`. Without an id a recording is named after its folders.
"""

from __future__ import annotations

import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers.fluorescence import delta_f_over_f
from nuclr_stream.recordings.readers.trains import UNKNOWN_SUBJECT
from nuclr_stream.recordings.npz import MAX_FILE_BYTES
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.windows.binning import rational

ABOUT = "recording.toml"
_METADATA = ("frame_rate_hz", "recording_id", "subject_id", "session_date")


def read_suite2p(plane: Path, *, frame_rate: Fraction | None = None) -> TraceRecording:
    """Read the folder of one plane; `frame_rate` goes before that of recording.toml.

    Units are called roi<row of F.npy>; `cell_probability` is suite2p's. Raises RecordingError naming file and remedy.
    """
    where = f"{plane.parent.name}/{plane.name}"
    stated = _metadata(plane)
    if frame_rate is None and "frame_rate_hz" not in stated:
        raise RecordingError(
            f"{where}: the frame rate is not known, for ops.npy is a pickle and is never read; write {ABOUT} beside "
            "F.npy: frame_rate_hz = 30.0"
        )
    rate = _rate(stated["frame_rate_hz"], where) if frame_rate is None else frame_rate
    fluorescence, neuropil = (_matrix(plane / name, where) for name in ("F.npy", "Fneu.npy"))
    judged = _matrix(plane / "iscell.npy", where)
    if judged.shape != (len(fluorescence), 2):
        raise RecordingError(
            f"{where}: iscell.npy is {judged.shape}; F.npy has {len(fluorescence)} ROIs, 2 values each"
        )
    cells = np.flatnonzero(judged[:, 0] > 0)
    if neuropil.shape != fluorescence.shape or not cells.size:
        raise RecordingError(
            f"{where}: F.npy {fluorescence.shape}, Fneu.npy {neuropil.shape} and {cells.size} cells in iscell.npy; "
            "equal shapes and at least one cell are needed"
        )
    return TraceRecording(
        recording_id=stated.get("recording_id") or _named_after(plane),
        subject_id=stated.get("subject_id") or UNKNOWN_SUBJECT,
        session_date=stated.get("session_date", ""),
        frame_rate=rate,
        traces=delta_f_over_f(fluorescence[cells], neuropil[cells], rate, where=where),
        unit_ids=np.array([f"roi{row}" for row in cells.tolist()]),
        units={"cell_probability": judged[cells, 1]},
    )


def _metadata(plane: Path) -> dict[str, Any]:
    """What recording.toml says: the one above, and over it the one of the plane. An id above gets the plane's name."""
    stated: dict[str, Any] = {}
    for folder in (plane.parent, plane):
        path = folder / ABOUT
        if path.is_file():
            found = _read(path)
            if folder != plane and "recording_id" in found:
                found["recording_id"] = f"{found['recording_id']}_{plane.name}"
            stated |= found
    return stated


def _read(path: Path) -> dict[str, Any]:
    where = f"{path.parent.name}/{path.name}"
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordingError(f"{where}: not readable as TOML ({error}); correct it") from error
    for key, value in found.items():
        if key not in _METADATA or (key != "frame_rate_hz" and not (isinstance(value, str) and value)):
            raise RecordingError(
                f"{where}: {key} = {value!r}; it may hold {_METADATA[0]} and the texts {', '.join(_METADATA[1:])}"
            )
    return found


def _rate(value: Any, where: str) -> Fraction:
    try:
        return rational(value)
    except ValueError as error:
        raise RecordingError(f"{where}: {ABOUT}: frame_rate_hz: {error}") from error


def _matrix(path: Path, where: str) -> npt.NDArray[np.float32]:
    """A two-dimensional array of numbers as float32; what is pickled is refused."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise RecordingError(f"{where}: {path.name} is larger than {MAX_FILE_BYTES} bytes; split the session")
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RecordingError(f"{where}: {path.name} is no readable array of numbers ({error})") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "fiub":
        raise RecordingError(f"{where}: {path.name} does not hold one array (ROIs, ...) of numbers")
    return values.astype(np.float32)


def _named_after(plane: Path) -> str:
    names = [name for name in plane.resolve().parts[-3:] if name not in ("/", "suite2p")]
    return "_".join(names)
