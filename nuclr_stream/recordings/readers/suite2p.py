"""One plane of suite2p: F.npy, Fneu.npy and iscell.npy become dF/F of the ROIs that were judged to be cells.

iscell.npy holds two values a ROI, or the first of them alone. Without it all ROIs are used, and without Fneu.npy the
surround is not subtracted; notes say so.

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
from nuclr_stream.recordings.npz import MAX_FILE_BYTES
from nuclr_stream.recordings.readers.roi_screening import screened
from nuclr_stream.recordings.readers.trains import UNKNOWN_SUBJECT
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
    notes: list[str] = []
    fluorescence = _matrix(plane / "F.npy", where)
    neuropil = _neuropil(plane, fluorescence, where, notes)
    judged = _judged(plane, len(fluorescence), where, notes)
    cells = np.flatnonzero(judged[:, 0] > 0)
    if not cells.size:
        raise RecordingError(
            f"{where}: F.npy {fluorescence.shape} and 0 cells in iscell.npy; judge them in suite2p, or remove "
            "iscell.npy "
            "to use all ROIs"
        )
    made = screened(
        fluorescence[cells],
        None if neuropil is None else neuropil[cells],
        raw=True,
        frame_rate=rate,
        names=[f"roi{row}" for row in cells.tolist()],
        where=where,
        notes=notes,
    )
    lost = np.flatnonzero(np.diff(np.concatenate([[False], made.lost, [False]]).astype(np.int8)))
    cells = cells[made.keep]
    return TraceRecording(
        recording_id=stated.get("recording_id") or _named_after(plane),
        subject_id=stated.get("subject_id") or UNKNOWN_SUBJECT,
        session_date=stated.get("session_date", ""),
        frame_rate=rate,
        traces=made.traces,
        unit_ids=np.array([f"roi{row}" for row in cells.tolist()]),
        units={"cell_probability": judged[cells, 1]},
        gap_samples=lost.reshape(-1, 2).astype(np.int64),
        notes=tuple(notes),
    )


def _neuropil(
    plane: Path, fluorescence: npt.NDArray[np.float32], where: str, notes: list[str]
) -> npt.NDArray[np.float32] | None:
    """Fluorescence of the surround, like `fluorescence` (U, T); None, and a note, where it was not saved."""
    if not (plane / "Fneu.npy").is_file():
        notes.append(f"{where}: there is no Fneu.npy: dF/F is not corrected for the surround")
        return None
    neuropil = _matrix(plane / "Fneu.npy", where)
    if neuropil.shape != fluorescence.shape:
        raise RecordingError(
            f"{where}: F.npy is {fluorescence.shape}, Fneu.npy {neuropil.shape}; both must be of one run of suite2p: "
            "run "
            "it again, or remove Fneu.npy to go without the surround"
        )
    return neuropil


def _judged(plane: Path, rois: int, where: str, notes: list[str]) -> npt.NDArray[np.float32]:
    """Whether each ROI is a cell, and how probably (U, 2); NaN where nobody says how probably."""
    if not (plane / "iscell.npy").is_file():
        notes.append(f"{where}: there is no iscell.npy: all {rois} ROIs are used")
        return np.stack([np.ones(rois), np.full(rois, np.nan)], axis=1).astype(np.float32)
    judged = _matrix(plane / "iscell.npy", where, columns=True)
    if judged.shape[0] != rois or judged.shape[1] not in (1, 2):
        raise RecordingError(
            f"{where}: iscell.npy is {judged.shape}; F.npy has {rois} ROIs: one or two values each are needed"
        )
    if judged.shape[1] == 1:
        notes.append(
            f"{where}: iscell.npy holds one value a ROI, not two: the probability of being a cell is not known"
        )
        judged = np.concatenate([judged, np.full((rois, 1), np.nan, dtype=np.float32)], axis=1)
    return judged


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


def _matrix(path: Path, where: str, *, columns: bool = False) -> npt.NDArray[np.float32]:
    """A two-dimensional array of numbers as float32, with `columns` also one column; what is pickled is rejected."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise RecordingError(f"{where}: {path.name} is larger than {MAX_FILE_BYTES} bytes; split the session")
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RecordingError(f"{where}: {path.name} is no readable array of numbers ({error})") from error
    if columns and isinstance(values, np.ndarray) and values.ndim == 1:
        values = values[:, None]
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "fiub":
        raise RecordingError(f"{where}: {path.name} does not hold one array (ROIs, ...) of numbers")
    return values.astype(np.float32)


def _named_after(plane: Path) -> str:
    names = [name for name in plane.resolve().parts[-3:] if name not in ("/", "suite2p")]
    return "_".join(names)
