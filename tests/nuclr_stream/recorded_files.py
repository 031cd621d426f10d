"""Recordings written as other packages write them: NWB by pynwb, Kilosort/phy folders by numpy, torch_brain by h5py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pynwb import NWBHDF5IO, NWBFile
from pynwb.file import Subject

from nuclr_stream.recordings.recording import Recording


def recording(seed: int = 0, *, units: int = 12, duration_s: float = 30.0, **changes: Any) -> Recording:
    """Poisson spikes at about 5 Hz per unit on a clock of 30 kHz; no two spikes share a sample."""
    rng = np.random.default_rng(seed)
    total = int(duration_s * 30000)
    samples = np.sort(rng.choice(total, int(5 * units * duration_s), replace=False)).astype(np.int64)
    content = {
        "recording_id": f"m1_s{seed}",
        "subject_id": "m1",
        "session_date": "2020-01-02",
        "sample_rate": Fraction(30000),
        "num_samples": total,
        "spike_samples": samples,
        "spike_units": rng.integers(0, units, len(samples)).astype(np.int32),
        "unit_ids": np.array([str(3 * unit) for unit in range(units)]),
        "units": {
            "brain_region": np.array([("CA1", "DG")[unit % 2] for unit in range(units)]),
            "depth_um": 20 * np.arange(units, dtype=np.float32),
        },
    }
    return Recording(**(content | changes))


def trains_s(whole: Recording) -> list[np.ndarray]:
    """Spike times in seconds, unit by unit."""
    seconds = whole.spike_samples / float(whole.sample_rate)
    return [seconds[whole.spike_units == unit] for unit in range(len(whole.unit_ids))]


def new_nwb(session: str = "s0", subject: str = "m1") -> NWBFile:
    """An NWB file of one subject, in memory."""
    start = datetime(2020, 1, 2, 3, 4, tzinfo=UTC)
    file = NWBFile(session_description="test", identifier=f"id-{session}", session_start_time=start, session_id=session)
    if subject:
        file.subject = Subject(subject_id=subject, species="Mus musculus", age="P90D", sex="F")
    return file


def add_probe(
    file: NWBFile, name: str, *, regions: Sequence[str], shanks: int = 1, device: str = "", x_um: float = 0.0
) -> list[int]:
    """Add electrodes, 20 um apart, on shanks that lie 250 um beside one another; returns their rows."""
    hardware = file.devices.get(device or name) or file.create_device(name=device or name)
    first = len(file.electrodes) if file.electrodes is not None else 0
    for shank in range(shanks):
        group_name = name if shanks == 1 else f"{name}_shank{shank}"
        group = file.create_electrode_group(name=group_name, description="test", location="HPF", device=hardware)
        for row, region in enumerate(regions):
            file.add_electrode(group=group, location=region, rel_x=x_um + 250.0 * shank, rel_y=20.0 * row)
    return list(range(first, first + shanks * len(regions)))


def add_units(file: NWBFile, whole: Recording, rows: Sequence[int] | None, /, **columns: Sequence[Any]) -> None:
    """Add the units of a recording, each with one electrode, its id and any more columns of the units table."""
    for name in columns:
        if name not in ("obs_intervals", "electrode_group", "waveform_mean", "electrodes"):
            file.add_unit_column(name, "test")
    for unit, seconds in enumerate(trains_s(whole)):
        place = {} if rows is None else {"electrodes": [rows[unit]]}
        more = place | {name: values[unit] for name, values in columns.items()}
        file.add_unit(spike_times=seconds, id=int(whole.unit_ids[unit]), **more)


def save_nwb(file: NWBFile, path: Path) -> Path:
    """Write the file with pynwb."""
    with NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return path


def write_nwb(path: Path, whole: Recording, **columns: Sequence[Any]) -> Path:
    """A recording as an NWB file with one probe, an electrode per unit."""
    file = new_nwb(whole.recording_id, whole.subject_id)
    rows = add_probe(file, "probe0", regions=whole.units["brain_region"].tolist())
    end = float(whole.num_samples / whole.sample_rate)
    observed = [[[0.0, end]]] * len(whole.unit_ids)
    add_units(file, whole, rows, **({"obs_intervals": observed} | columns))
    return save_nwb(file, path)


def write_phy(folder: Path, whole: Recording, *, params: str = "sample_rate = 30000.\n") -> Path:
    """A recording as Kilosort leaves it: a template per unit, largest on the channel at its depth."""
    folder.mkdir(parents=True)
    units, ids = len(whole.unit_ids), whole.unit_ids.astype(np.int64)
    templates = np.zeros((units, 20, units), dtype=np.float32)
    templates[np.arange(units), 10, np.arange(units)] = -1
    depths = whole.units["depth_um"]
    np.save(folder / "spike_times.npy", whole.spike_samples.astype(np.uint64)[:, None])
    np.save(folder / "spike_clusters.npy", ids[whole.spike_units].astype(np.int32))
    np.save(folder / "spike_templates.npy", whole.spike_units.astype(np.uint32)[:, None])
    np.save(folder / "templates.npy", templates)
    np.save(folder / "channel_positions.npy", np.stack([np.full(units, 11.0), depths], axis=1))
    (folder / "params.py").write_text(params)
    labels = "".join(f"{cluster}\t{('good', 'mua')[row % 2]}\n" for row, cluster in enumerate(ids))
    (folder / "cluster_KSLabel.tsv").write_text("cluster_id\tKSLabel\n" + labels)
    return folder


def write_torch_brain(path: Path, whole: Recording, *, domain: Sequence[Sequence[float]] = (), **columns: Any) -> Path:
    """A recording as temporaldata writes it; `columns` more of the unit table."""
    with h5py.File(path, "w") as file:
        file.attrs["object"] = "Data"
        spikes, units = file.create_group("spikes"), file.create_group("units")
        spikes["timestamps"] = whole.spike_samples / float(whole.sample_rate)
        spikes["unit_index"] = whole.spike_units.astype(np.int64)
        units["id"] = whole.unit_ids.astype("S")
        for name, values in columns.items():
            units[name] = values.astype("S") if values.dtype.kind == "U" else values
        file.create_group("subject").attrs["id"] = whole.subject_id
        session = file.create_group("session")
        session.attrs["id"], session.attrs["recording_date"] = whole.recording_id, "2020-01-02 00:00:00"
        found = np.array(domain or [(0.0, whole.duration_s)])
        file["domain/start"], file["domain/end"] = found[:, 0], found[:, 1]
    return path
