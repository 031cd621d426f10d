"""Bugeon et al. 2022: calcium traces of transcriptomically typed neurons; E against I, and five subclasses.

Layout: `<ANIMAL>/<yyyy-mm-dd>/` anywhere below the folder with neuron.ttype.txt (a type a line: EC, IN, or such as
Pvalb-Tac1), and below it `<stimulus>/<number>/` with frame.neuralActivity.npy (frames, neurons), dF/F, and
frame.times.npy (frames,) in seconds.
Rules: all experiments of a session are one recording, in the order of their names, with a gap between them; traces are
divided by their 99th percentile over all neurons and frames of the session, as published (not causal). Neurons with
values that are not finite are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nuclr_stream.recordings.traces import TraceRecording
from offline_training.studies.reproduce.archive import Archive, ArchiveError, load_array

FRAME_RATE = Fraction(6250, 1459)
"""Frames a second: one every 0.23344 s."""
RATE_TOLERANCE = 0.01
GAP_FRAMES = 256
QUANTILE = 0.99
SUBCLASSES = ("Lamp5", "Pvalb", "Sncg", "Sst", "Vip")


def read_bugeon(folder: Path) -> Sequence[TraceRecording]:
    """Every session. Raises ArchiveError for a folder that is laid out otherwise."""
    sessions = sorted(path.parent for path in folder.rglob("neuron.ttype.txt"))
    if not sessions:
        raise ArchiveError(f"{folder}: no neuron.ttype.txt below; unpack the archive first")
    return [_session(session) for session in sessions]


def _session(files: Path) -> TraceRecording:
    types = np.array((files / "neuron.ttype.txt").read_text(encoding="utf-8").split(), dtype=np.str_)
    experiments = sorted(path.parent for path in files.rglob("frame.neuralActivity.npy"))
    if not experiments:
        raise ArchiveError(f"{files}: no frame.neuralActivity.npy below")
    parts: list[npt.NDArray[np.float32]] = []
    gaps: list[tuple[int, int]] = []
    frames = 0
    for experiment in experiments:
        if parts:
            gaps.append((frames, frames + GAP_FRAMES))
            parts.append(np.zeros((GAP_FRAMES, len(types)), dtype=np.float32))
            frames += GAP_FRAMES
        parts.append(_traces(experiment, len(types)))
        frames += len(parts[-1])
    traces = np.concatenate(parts).T
    finite = np.isfinite(traces).all(axis=1)
    recorded = np.ones(frames, dtype=bool)
    for start, stop in gaps:
        recorded[start:stop] = False
    scale = float(np.quantile(traces[finite][:, recorded], QUANTILE)) if finite.any() else 0.0
    if not scale > 0:
        raise ArchiveError(f"{files}: the {QUANTILE:g} quantile of its traces is {scale:g}; dF/F above 0 is needed")
    subject, date = files.parent.name.lower(), files.name
    session_id = f"{subject}_{date.replace('-', '')}"
    return TraceRecording(
        recording_id=session_id,
        subject_id=subject,
        session_date=date,
        frame_rate=FRAME_RATE,
        traces=np.ascontiguousarray(traces[finite] / np.float32(scale)),
        unit_ids=np.array([f"{session_id}_u{number}" for number in np.flatnonzero(finite)]),
        units={"ei": np.where(types == "EC", "EC", "IN")[finite], "subclass": _subclass(types[finite])},
        gap_samples=np.array(gaps, dtype=np.int64).reshape(-1, 2),
    )


def _traces(experiment: Path, neurons: int) -> np.ndarray:
    """dF/F (frames, neurons) of one experiment, at the frame rate that the model is made for."""
    traces = load_array(experiment / "frame.neuralActivity.npy")
    times = load_array(experiment / "frame.times.npy")
    if traces.shape != (len(times), neurons):
        raise ArchiveError(
            f"{experiment}/frame.neuralActivity.npy: shape {traces.shape}; frame.times.npy has {len(times)} frames and "
            f"neuron.ttype.txt {neurons} neurons"
        )
    rate = 1 / float(np.median(np.diff(times)))
    if abs(rate / float(FRAME_RATE) - 1) > RATE_TOLERANCE:
        raise ArchiveError(f"{experiment}/frame.times.npy: {rate:.3f} frames/s; {float(FRAME_RATE):.3f} are needed")
    return traces.astype(np.float32)


def _subclass(types: np.ndarray) -> np.ndarray:
    first = np.array([name.split("-")[0] for name in types.tolist()], dtype=np.str_)
    return np.where(np.isin(first, SUBCLASSES), first, "")


ARCHIVE = Archive(
    name="bugeon",
    source="Bugeon et al. 2022, figshare article 19448531",
    config=Path("configs/pretrain_paper_calcium.toml"),
    tasks={
        "ei": {"column": "ei", "min_spikes": 0, "classes": {"EC": ["EC"], "IN": ["IN"]}},
        "subclass": {"column": "subclass", "min_spikes": 0, "classes": {name: [name] for name in SUBCLASSES}},
    },
    balance="oversampling",
    read=read_bugeon,
    held_out=("sb028",),
    figshare=19448531,
)
