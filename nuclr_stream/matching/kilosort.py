"""Templates of a Kilosort 4 folder, after phy's curation where there was one, taken back from its whitened samples.

Kilosort 4 writes what it whitened with as whitening_mat_dat.npy; whitening_mat.npy beside it is a placeholder for phy.
A template of a unit that was merged by hand is the mean of those that its spikes were found with. ops.npy, which holds
the filter, is a pickle and is not read: Kilosort's defaults are assumed and noted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.matching.templates import Filtering, Templates
from nuclr_stream.recordings.readers.cluster_tables import cluster_columns
from nuclr_stream.recordings.readers.params import sample_rate_in
from nuclr_stream.windows.binning import rational

TEMPLATES = "templates.npy"
WHITENING = "whitening_mat_dat.npy"
TROUGH = 20
"""Kilosort 4 aligns its 61 samples so that the spike is at this one (its setting nt0min)."""
USUAL_SAMPLES = 61


def read_kilosort(folder: Path) -> Templates:
    """Read the folder that Kilosort 4 wrote. Raises RecordingError naming file, field, value and remedy."""
    notes: list[str] = []
    where = f"{folder.name}/params.py"
    path = folder / "params.py"
    if not path.is_file():
        raise RecordingError(f"{where}: no such file; name the folder that Kilosort 4 wrote its results to")
    rate = rational(sample_rate_in(path.read_text(encoding="utf-8-sig"), where, notes))
    templates = _array(folder, TEMPLATES).astype(np.float64)
    whitening = _array(folder, WHITENING).astype(np.float64)
    positions = _array(folder, "channel_positions.npy")
    channels = _array(folder, "channel_map.npy").reshape(-1)
    if templates.ndim != 3 or whitening.shape != (templates.shape[2], templates.shape[2]):
        raise RecordingError(
            f"{folder.name}: {TEMPLATES} {templates.shape} and {WHITENING} {whitening.shape} do not belong together; "
            "sort again"
        )
    trough = round(TROUGH * templates.shape[1] / USUAL_SAMPLES)
    clusters, weights = _weights(folder, len(templates))
    ids, kept = _without_noise(folder, clusters, notes)
    # x_whitened = W x, so that the samples that a template stands for are those that W takes to it
    samples = np.linalg.solve(whitening, templates.reshape(-1, templates.shape[2]).T).T.reshape(templates.shape)
    unwhitening = np.linalg.inv(whitening)
    notes.append(
        f"{folder.name}: ops.npy is a pickle and is not read; a high-pass of 300 Hz and a common median are assumed, "
        "as Kilosort 4 has them by default (--highpass-hz and --no-reference say otherwise)"
    )
    shanks = _array(folder, "channel_shanks.npy").reshape(-1) if (folder / "channel_shanks.npy").is_file() else None
    return Templates(
        source=folder.name,
        unit_ids=tuple(str(cluster) for cluster in ids.tolist()),
        waveforms=np.tensordot(weights[kept], samples, axes=1).astype(np.float32),
        trough=trough,
        sample_rate=rate,
        positions_um=np.asarray(positions, dtype=np.float32),
        shanks=(np.zeros(len(channels)) if shanks is None else shanks).astype(np.int32),
        channels=channels.astype(np.int32),
        unit_of_samples="raw",
        noise=np.sqrt((unwhitening**2).sum(axis=1)).astype(np.float32),
        filtering=Filtering(highpass_hz=300.0, order=3, reference=True),
        notes=tuple(notes),
    )


def _weights(folder: Path, templates: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the clusters (U,) and which share of each one's spikes every template found (U, templates)."""
    used = _array(folder, "spike_templates.npy").reshape(-1).astype(np.int64)
    curated = (folder / "spike_clusters.npy").is_file()
    clusters = _array(folder, "spike_clusters.npy").reshape(-1).astype(np.int64) if curated else used
    if clusters.shape != used.shape or (used.size and not 0 <= used.min() <= used.max() < templates):
        raise RecordingError(
            f"{folder.name}: spike_templates.npy and spike_clusters.npy do not belong to {TEMPLATES} of {templates} "
            "templates; export the sorting again"
        )
    ids, rows = np.unique(clusters, return_inverse=True)
    counts = np.zeros((len(ids), templates))
    np.add.at(counts, (rows, used), 1.0)
    return ids, counts / counts.sum(axis=1, keepdims=True)


def _without_noise(
    folder: Path, ids: npt.NDArray[np.int64], notes: list[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the clusters that nobody marked as noise, and their rows."""
    group = cluster_columns(folder, ids, notes).get("group", np.full(len(ids), ""))
    kept = np.flatnonzero(np.asarray(group).astype(np.str_) != "noise")
    if len(kept) < len(ids):
        notes.append(f"{folder.name}: {len(ids) - len(kept)} of {len(ids)} clusters are marked as noise: left out")
    return ids[kept], kept


def _array(folder: Path, name: str) -> npt.NDArray[Any]:
    try:
        values: npt.NDArray[Any] = np.load(folder / name, allow_pickle=False)
    except FileNotFoundError as error:
        remedy = (
            "sort with Kilosort 4.0.8 or later, or make a SortingAnalyzer of this sorting with SpikeInterface"
            if name == WHITENING
            else "name the folder that Kilosort 4 wrote its results to"
        )
        raise RecordingError(f"{folder.name}/{name}: no such file; {remedy}") from error
    except (OSError, ValueError, EOFError) as error:
        raise RecordingError(
            f"{folder.name}/{name}: not a whole .npy of plain numbers ({error}); copy the folder again"
        ) from error
    return values
