"""Small archives in the layout of the public ones, with random activity."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pynwb import NWBHDF5IO, NWBFile
from pynwb.epoch import TimeIntervals

UNITS = 14
OPTOTAGGING_S = 360.0
ONTOLOGY = {1: "/997/8/567/688/695/315/1/", 2: "/997/8/343/1129/549/2/", 997: "/997/"}
"""Structure 1 lies in the isocortex, 2 in the thalamus, 997 is the root."""


def write_rows(path: Path, rows: list[dict[str, object]], delimiter: str = ",") -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)


def spikes(rng: np.random.Generator, units: int, seconds: float, rate_hz: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Sorted times in seconds and the unit of each spike; odd units fire twice as often."""
    per_unit = rng.poisson(rate_hz * seconds * (1 + np.arange(units) % 2))
    unit = np.repeat(np.arange(units), per_unit)
    times = rng.uniform(0, seconds, len(unit))
    order = np.argsort(times)
    return times[order], unit[order]


def write_allen(folder: Path) -> Path:
    """Five mice: two with Pvalb units, two with Sst units, one without a label. Optical tagging begins at 360 s."""
    labels: list[dict[str, object]] = []
    for number, cell_type in enumerate(("Pvalb", "Sst", "Pvalb", "Sst", "wt"), start=101):
        path = folder / f"session_{number}" / f"session_{number}.nwb"
        path.parent.mkdir(parents=True)
        labels += write_allen_session(path, number, cell_type)
    write_rows(folder / "allen_vc_2019.csv", labels)
    return folder


def write_allen_session(path: Path, number: int, cell_type: str) -> list[dict[str, object]]:
    """One session: UNITS good units in VISp, one in the hippocampus, one with a low presence ratio."""
    rng = np.random.default_rng(number)
    nwb = NWBFile(
        session_description="a session", identifier=str(number), session_start_time=datetime(2019, 1, 1, tzinfo=UTC)
    )
    device = nwb.create_device(name="probeA")
    group = nwb.create_electrode_group(name="probeA", description="a probe", location="brain", device=device)
    nwb.add_electrode_column(name="probe_id", description="the probe")
    for channel, region in ((850, "VISp"), (851, "CA1")):
        nwb.add_electrode(id=channel, group=group, location=region, probe_id=77)
    for name in ("peak_channel_id", "quality", "amplitude_cutoff", "presence_ratio", "isi_violations"):
        nwb.add_unit_column(name=name, description=name)
    times, unit = spikes(rng, UNITS + 2, 60.0)
    for row in range(UNITS + 2):
        nwb.add_unit(
            id=1000 * number + row,
            spike_times=[*times[unit == row], 61.0, 399.0],
            peak_channel_id=851 if row == UNITS else 850,
            quality="good",
            amplitude_cutoff=0.01,
            presence_ratio=0.5 if row == UNITS + 1 else 0.99,
            isi_violations=0.1,
        )
    invalid = TimeIntervals(name="invalid_times", description="what is no good")
    invalid.add_row(start_time=30.0, stop_time=31.0)
    nwb.add_time_intervals(invalid)
    pulses = TimeIntervals(name="optogenetic_stimulation", description="pulses of light")
    pulses.add_row(start_time=OPTOTAGGING_S, stop_time=OPTOTAGGING_S + 0.01)
    nwb.create_processing_module(name="optotagging", description="light").add(pulses)
    with NWBHDF5IO(path, "w") as file:
        file.write(nwb)
    return [{"unit_id": 1000 * number + row, "lolcat_celltype": cell_type} for row in range(0, UNITS, 2)]


def write_ibl(folder: Path) -> Path:
    """Three animals with a probe each: 20 good clusters of 22, cortex and thalamus in turn; 345 s."""
    write_rows(
        write_folder(folder) / "ontology.csv",
        [{"id": one, "acronym": f"S{one}", "structure_id_path": path} for one, path in ONTOLOGY.items()],
    )
    for number, subject in enumerate(("KS014", "NYU-11", "SWC_038")):
        rng = np.random.default_rng(number)
        files = write_folder(
            folder / "lab" / "Subjects" / subject / "2020-01-01" / "001" / "alf" / "probe00" / "pykilosort"
        )
        times, cluster = spikes(rng, 22, 345.0)
        np.save(files / "spikes.times.npy", times)
        np.save(files / "spikes.clusters.npy", cluster.astype(np.uint32))
        np.save(files / "clusters.channels.npy", np.arange(22) % 4)
        np.save(files / "clusters.depths.npy", 20.0 * np.arange(22))
        np.save(files / "channels.brainLocationIds_ccf_2017.npy", np.array([1, -2, 1, 997]))
        write_rows(files / "clusters.uuids.csv", [{"uuids": f"{subject}-{row}"} for row in range(22)])
        metrics = [{"cluster_id": row, "label": 1.0 if row < 20 else 2 / 3} for row in range(22)]
        write_rows(files / "clusters.metrics.csv", metrics)
    return folder


def write_steinmetz(folder: Path) -> Path:
    """Five animals, one session of two probes each; regions of all four groups and one of none."""
    regions = ["VISp", "CA1", "LP", "MRN", "root"]
    for number, subject in enumerate(("Cori", "Forssmann", "Hench", "Moniz", "Tatum")):
        rng = np.random.default_rng(number)
        files = write_folder(folder / f"{subject}_2017-01-0{number + 1}")
        times, cluster = spikes(rng, 2 * UNITS, 45.0)
        np.save(files / "spikes.times.npy", times[:, None])
        np.save(files / "spikes.clusters.npy", cluster[:, None])
        np.save(files / "clusters.probes.npy", np.repeat([0.0, 1.0], UNITS)[:, None])
        np.save(files / "clusters.peakChannel.npy", 1.0 + np.arange(2 * UNITS)[:, None] % 5)
        np.save(files / "clusters.depths.npy", 20.0 * np.arange(2 * UNITS)[:, None])
        rows = [{"ccf_ap": 0, "allen_ontology": region} for region in regions]
        write_rows(files / "channels.brainLocation.tsv", rows, delimiter="\t")
    return folder


def write_bugeon(folder: Path) -> Path:
    """Three animals, a session each, two experiments of 90 and 70 frames; one neuron holds a NaN."""
    types = ["EC"] * 5 + ["Pvalb-Tac1", "Sst-Calb2", "Vip-Crh", "Lamp5-Npy", "Sncg-x"] * 3 + ["IN", "Serpinf1-a"]
    for number, subject in enumerate(("SB025", "SB026", "SB028")):
        rng = np.random.default_rng(number)
        session = write_folder(folder / subject / f"2019-10-0{number + 1}")
        (session / "neuron.ttype.txt").write_text("\n".join(types) + "\n")
        for place, frames in (("Blank/01", 90), ("Natural Scenes/01", 70)):
            files = write_folder(session / place)
            traces = rng.gamma(1.0, 1.0 + np.arange(len(types)) % 3, (frames, len(types))).astype(np.float32)
            traces[3, -1] = np.nan
            np.save(files / "frame.neuralActivity.npy", traces)
            np.save(files / "frame.times.npy", 5 + 0.23344 * np.arange(frames)[:, None])
    return folder


def write_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
