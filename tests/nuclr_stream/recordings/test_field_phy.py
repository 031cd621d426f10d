"""Kilosort and phy folders as they are found: edge spikes, tables of other tools and other times, paths of Windows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers import open_recordings
from nuclr_stream.recordings.recording import Recording
from tests.nuclr_stream.recorded_files import recording, write_phy
from tests.nuclr_stream.recordings.test_readers import same_spikes

WHOLE = recording(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_phy(tmp_path / "day1", WHOLE)


def read(folder: Path) -> Recording:
    """The only recording of a folder."""
    (found,) = open_recordings(folder)
    assert isinstance(found, Recording)
    return found


def noted(found: Recording, pattern: str) -> bool:
    """Whether a note of the recording says so."""
    return any(re.search(pattern, note) for note in found.notes)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.uint32, np.float64])
def test_the_edge_spikes_of_kilosort_4_cost_nothing_else(folder: Path, dtype: type) -> None:
    """Samples -10 and -9, also where an unsigned type made huge numbers of them."""
    samples = WHOLE.spike_samples.copy()
    samples[:4] = [-10, -10, -10, -9]
    np.save(folder / "spike_times.npy", samples.astype(dtype))
    found = read(folder)
    assert len(found.spike_samples) == 1796 and found.num_samples == WHOLE.spike_samples[-1] + 1
    assert noted(found, r"day1/spike_times\.npy: 4 of 1800 spikes .*, the first is row 0 \(.*\): left out")
    assert found.units["depth_um"].tolist() == WHOLE.units["depth_um"].tolist()


def test_many_spikes_before_zero_are_rejected_with_their_number_and_what_helps(folder: Path) -> None:
    np.save(folder / "spike_times.npy", WHOLE.spike_samples - 300_000)
    early = int((WHOLE.spike_samples < 300_000).sum())
    with pytest.raises(RecordingError, match=rf"spike_times\.npy: {early} of 1800 spikes lie before .*: add to all of"):
        open_recordings(folder)


def test_spikes_cluster_by_cluster_are_sorted_with_their_clusters(folder: Path) -> None:
    order = np.argsort(WHOLE.spike_units, kind="stable")
    for name in ("spike_times", "spike_clusters", "spike_templates"):
        np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy").reshape(-1)[order])
    same_spikes(read(folder), WHOLE)


def test_cluster_numbers_may_be_of_any_size(folder: Path) -> None:
    np.save(folder / "spike_clusters.npy", np.load(folder / "spike_clusters.npy").astype(np.int64) + 2**40)
    assert read(folder).unit_ids[0] == str(2**40)


def test_seconds_in_spike_times_are_samples_after_all(folder: Path) -> None:
    np.save(folder / "spike_times.npy", WHOLE.spike_samples / 30000)
    found = read(folder)
    same_spikes(found, WHOLE)
    assert noted(found, "times that are not whole, .*: taken as seconds")


def test_a_rate_in_khz_is_named(tmp_path: Path) -> None:
    folder = write_phy(tmp_path / "a", recording(0, duration_s=30), params="sample_rate = 30.\n")
    with pytest.raises(RecordingError, match=r"sample_rate is 30; .* is it in kHz\? write 30000"):
        open_recordings(folder)


def test_a_trimmed_start_is_not_silence_and_a_clock_that_ran_for_days_is_counted_from_its_start(folder: Path) -> None:
    np.save(folder / "spike_times.npy", WHOLE.spike_samples + 30000 * 600)
    found = read(folder)
    assert found.gap_samples.tolist() == [[0, 18_000_000]] and noted(found, "the first 600 s are taken as not recorded")
    np.save(folder / "spike_times.npy", WHOLE.spike_samples + 30000 * 10**6)
    found = read(folder)
    same_spikes(found, WHOLE)
    assert noted(found, "here time counts from 1000000 s")


def test_spikes_counted_twice_are_named(folder: Path) -> None:
    again = WHOLE.spike_units == 3
    for name in ("spike_times", "spike_clusters", "spike_templates"):
        values = np.load(folder / f"{name}.npy").reshape(-1)
        np.save(folder / f"{name}.npy", np.concatenate([values, values[again]]))
    assert noted(read(folder), rf"{again.sum()} spikes of 1 units, the first is 9, follow another .* within 0\.1 ms")


@pytest.mark.parametrize(
    "text",
    [
        "cluster_id\tgroup\n{rows}",
        "\tcluster_id\tgroup\n{indexed}",
        "Unnamed: 0\tcluster_id\tgroup\n{indexed}",
        "cluster_id\tgroup\n{floats}",
        "cluster_id\tgroup\n{rows}\tgood\n",
    ],
)
@pytest.mark.parametrize("name", ["cluster_group.tsv", "cluster_group.csv", "cluster_groups.csv", "cluster_info.tsv"])
def test_curation_is_heeded_however_it_was_saved(folder: Path, text: str, name: str) -> None:
    labels = ["noise" if unit < 4 else "good" for unit in range(12)]
    rows = "".join(f"{3 * unit}\t{label}\n" for unit, label in enumerate(labels))
    indexed = "".join(f"{unit}\t{3 * unit}\t{label}\n" for unit, label in enumerate(labels))
    floats = "".join(f"{3 * unit}.0\t{label}\n" for unit, label in enumerate(labels))
    (folder / name).write_text(text.format(rows=rows, indexed=indexed, floats=floats))
    found = read(folder)
    assert found.units["group"].tolist() == labels
    assert "" not in found.units, "the index of pandas is no column"


def test_comma_separated_tables_are_read_and_those_of_other_tools_passed_over(folder: Path) -> None:
    (folder / "cluster_group.csv").write_text("cluster_id,group\n0,noise\n3,good\n")
    (folder / "cluster_metrics.tsv").write_text("unit\tsnr\nunit_0\t1.0\n")
    (folder / "cluster_notes.tsv").write_text("cluster_id\tnotes\n" + "".join(f"unit_{u}\tx\n" for u in range(12)))
    found = read(folder)
    assert found.units["group"].tolist()[:3] == ["noise", "good", ""]
    assert noted(found, r"day1/cluster_metrics\.tsv: passed over, for it begins with unit, snr")
    assert noted(found, r"day1/cluster_notes\.tsv: passed over, for 12 of its 12 rows name no cluster")


@pytest.mark.parametrize(
    ("params", "note"),
    [
        ("dat_path = 'C:\\Users\\lab\\x.dat'\nsample_rate = 25000.\nhp_filtered = False", "a Windows path needs an r"),
        ("sample_rate = np.float64(25000.0)\n", None),
    ],
)
def test_a_rate_is_read_from_a_params_that_is_no_python_or_of_numpy(
    tmp_path: Path, params: str, note: str | None
) -> None:
    found = read(write_phy(tmp_path / "a", WHOLE, params=params))
    assert found.sample_rate == 25000 and (note is None or noted(found, note))


@pytest.mark.parametrize(
    ("name", "message"),
    [(".zgroup", r"a\.zarr: is a Zarr store, which is not read; export"), ("si_folder.json", "export_to_phy")],
)
def test_what_is_not_read_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / name).write_text("{}")
    with pytest.raises(RecordingError, match=message):
        open_recordings(tmp_path)


def test_what_was_left_out_is_saved_with_the_recording(folder: Path, tmp_path: Path) -> None:
    np.save(folder / "spike_times.npy", WHOLE.spike_samples - WHOLE.spike_samples[0] - 1)
    found = read(folder)
    found.save(tmp_path / "a.npz")
    assert found.notes and Recording.load(tmp_path / "a.npz").notes == found.notes
