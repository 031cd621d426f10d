"""Kilosort and phy folders: spikes, tables, places, and a params.py that is never executed."""

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
    return write_phy(tmp_path / "mouse7_day1", WHOLE)


def read(folder: Path) -> Recording:
    """The only recording of a folder."""
    (found,) = open_recordings(folder)
    return found


def test_a_recording_is_the_same_after_kilosort(folder: Path) -> None:
    found = read(folder)
    same_spikes(found, WHOLE)
    assert (found.recording_id, found.subject_id, found.sample_rate) == ("mouse7_day1", "unknown", 30000)
    assert found.num_samples == int(WHOLE.spike_samples[-1]) + 1
    assert found.units["depth_um"].tolist() == WHOLE.units["depth_um"].tolist()
    assert found.units["x_um"].tolist() == [11.0] * 12
    assert found.units["KSLabel"].tolist() == ["good", "mua"] * 6


def test_without_curation_templates_are_the_units(folder: Path) -> None:
    (folder / "spike_clusters.npy").unlink()
    for table in folder.glob("*.tsv"):
        table.unlink()
    found = read(folder)
    assert found.unit_ids.tolist() == [str(unit) for unit in range(12)]
    assert found.units["depth_um"].tolist() == WHOLE.units["depth_um"].tolist()


def test_every_table_is_a_column_and_a_cluster_without_a_row_is_empty(folder: Path) -> None:
    rows = "".join(f"{3 * unit}\t{unit}\t{unit / 2}\t{10 * unit}\n" for unit in range(12))
    (folder / "cluster_info.tsv").write_text("cluster_id\tch\tAmplitude\tdepth\n" + rows)
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n0\tgood\n3\tnoise\n999\tgood\n")
    (folder / "cluster_brain_region.tsv").write_text("cluster_id\tbrain_region\n0\tCA1\n")
    (folder / "cluster_snr.tsv").write_text("cluster_id\tsnr\n0\t4.5\n")
    units = read(folder).units
    assert units["ch"].dtype.kind == "i" and units["Amplitude"].tolist() == [unit / 2 for unit in range(12)]
    assert units["group"].tolist() == ["good", "noise"] + [""] * 10
    assert units["brain_region"].tolist() == ["CA1"] + [""] * 11
    assert units["snr"][0] == 4.5 and np.isnan(units["snr"][1:]).all()
    assert units["depth_um"].tolist() == WHOLE.units["depth_um"].tolist(), "templates say it better than depth"
    (folder / "templates.npy").unlink()
    assert read(folder).units["depth_um"].tolist() == [10.0 * unit for unit in range(12)]


def test_a_merged_cluster_is_where_its_commonest_template_is(folder: Path) -> None:
    """Templates 0 and 1 were merged: the cluster is where the one with more spikes is largest."""
    clusters = np.load(folder / "spike_clusters.npy")
    counts = np.bincount(WHOLE.spike_units)
    clusters[(WHOLE.spike_units == 0) | (WHOLE.spike_units == 1)] = 100
    np.save(folder / "spike_clusters.npy", clusters)
    found = read(folder)
    assert found.unit_ids.tolist()[-1] == "100"
    assert found.units["depth_um"][-1] == (0.0 if counts[0] >= counts[1] else 20.0)
    assert found.units["KSLabel"][-1] == ""


def test_templates_are_unwhitened_and_sparse_ones_name_their_channels(folder: Path) -> None:
    matrix = np.eye(12)
    matrix[:, 11] = 3.0
    np.save(folder / "whitening_mat_inv.npy", matrix)
    assert set(read(folder).units["channel"].tolist()) == {11}
    (folder / "whitening_mat_inv.npy").unlink()
    np.save(folder / "templates_ind.npy", np.tile(np.arange(12)[::-1], (12, 1)))
    assert read(folder).units["channel"].tolist() == list(range(12))[::-1]
    np.save(folder / "channel_shanks.npy", np.arange(12) // 3)
    assert read(folder).units["shank"].tolist() == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]


def test_a_table_that_names_probes_parts_the_recording(folder: Path) -> None:
    rows = "".join(f"{3 * unit}\t{unit % 2}\n" for unit in range(12))
    (folder / "cluster_probe.tsv").write_text("cluster_id\tprobe\n" + rows)
    assert [each.recording_id for each in open_recordings(folder)] == ["mouse7_day1_0", "mouse7_day1_1"]


def test_a_small_file_says_whose_it_is(folder: Path) -> None:
    about = folder / "recording.toml"
    about.write_text('recording_id = "r7"\nsubject_id = "mouse7"\nsession_date = "2021-05-06"\n')
    found = read(folder)
    assert (found.recording_id, found.subject_id, found.session_date) == ("r7", "mouse7", "2021-05-06")
    for wrong, message in (
        ('subject = "m"', "subject = 'm'; it may hold"),
        ("subject_id = 7", "subject_id = 7"),
        ("x", "not TOML"),
    ):
        about.write_text(wrong)
        with pytest.raises(RecordingError, match=rf"mouse7_day1/recording\.toml: {message}"):
            open_recordings(folder)


def test_names_that_sorters_give_are_preceded_by_the_folders_above(tmp_path: Path) -> None:
    for probe in ("imec0", "imec1"):
        write_phy(tmp_path / "day1" / probe / "kilosort4" / "sorter_output", WHOLE)
    assert [each.recording_id for each in open_recordings(tmp_path)] == [
        "imec0_kilosort4_sorter_output",
        "imec1_kilosort4_sorter_output",
    ]


@pytest.mark.parametrize(
    "params",
    [
        "sample_rate = 25000",
        "dat_path = r'C:\\data\\x.dat'\nsample_rate = 25000.0  # Hz\n",
        "import os\nsample_rate=25e3",
    ],
)
def test_the_sample_rate_is_read_from_params(tmp_path: Path, params: str) -> None:
    assert read(write_phy(tmp_path / "a", WHOLE, params=params)).sample_rate == 25000


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("dat_path = 'x'", r"field sample_rate is missing; add the line"),
        ("sample_rate = 30 * 1000", r"field sample_rate is '30 \* 1000'; params.py is not executed: write a number"),
        ("sample_rate = open('executed', 'w')", r"field sample_rate is .*; params.py is not executed"),
        ("sample_rate = 0", r"field sample_rate: .* must be above 0"),
        ("sample_rate = '30000'", r"field sample_rate is"),
        ("sample_rate = ", r"not readable as assignments"),
        ("(" * 100_000, r"not readable as assignments"),
        ("\0", r"not readable as assignments"),
    ],
)
def test_params_is_never_executed_and_a_rate_that_is_no_number_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordingError, match=rf"a/params\.py: {message}"):
        open_recordings(write_phy(tmp_path / "a", WHOLE, params=params))
    assert not (tmp_path / "executed").exists()


def _restarted(folder: Path) -> None:
    np.save(folder / "spike_times.npy", WHOLE.spike_samples % 450_000)


def _seconds(folder: Path) -> None:
    np.save(folder / "spike_times.npy", np.where(WHOLE.spike_units == 3, np.nan, WHOLE.spike_samples / 30000))


def _pickled(folder: Path) -> None:
    np.save(folder / "spike_times.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _cut(folder: Path) -> None:
    (folder / "spike_times.npy").write_bytes((folder / "spike_times.npy").read_bytes()[:200])


def _short(folder: Path) -> None:
    np.save(folder / "spike_clusters.npy", np.zeros(3, dtype=np.int32))


def _no_clusters(folder: Path) -> None:
    (folder / "spike_clusters.npy").unlink()
    (folder / "spike_templates.npy").unlink()


def _empty(folder: Path) -> None:
    for name in ("spike_times.npy", "spike_clusters.npy", "spike_templates.npy"):
        np.save(folder / name, np.empty(0, dtype=np.int64))


def _other_templates(folder: Path) -> None:
    np.save(folder / "templates.npy", np.zeros((2, 20, 12)))


def _no_params(folder: Path) -> None:
    (folder / "params.py").unlink()


def _before_zero(folder: Path) -> None:
    np.save(folder / "spike_times.npy", WHOLE.spike_samples - 10_000_000)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_restarted, r"/spike_times\.npy: row \d+ \(\d+\) is earlier .* in 12 of 12 units: times start over"),
        (_seconds, r"/spike_times\.npy: \d+ of 1800 spikes have no finite time, the first is row \d+ \(nan\)"),
        (_pickled, r"/spike_times\.npy: not a whole \.npy of plain numbers .*Python objects"),
        (_cut, r"/spike_times\.npy: not a whole \.npy"),
        (_short, r"/spike_clusters\.npy: 3 clusters for \d+ spikes"),
        (_no_clusters, r"/spike_templates\.npy: no such file"),
        (_empty, r": the unit table is empty"),
        (_other_templates, r": templates\.npy \(2, 20, 12\), .* do not belong together"),
        (_no_params, r"/params\.py: no such file; it says the sample rate"),
        (_before_zero, r"/spike_times\.npy: 1800 of 1800 spikes lie before sample 0, .*: add to all of them"),
    ],
)
def test_what_is_wrong_is_named_with_file_row_and_remedy(folder: Path, break_it, message: str) -> None:
    break_it(folder)
    with pytest.raises(RecordingError, match=rf"^mouse7_day1{message}"):
        open_recordings(folder)


@pytest.mark.parametrize(
    ("name", "text", "note", "group"),
    [
        ("cluster_info.tsv", "cluster_id\tgroup\n0\tgood\n", "11 of 12 clusters with spikes have no row, .* 3", None),
        ("cluster_group.tsv", "0\tgood\n", "passed over, for it begins with 0, good", None),
        (
            "cluster_group.tsv",
            "cluster_id\tgroup\n0\tgood\n0\tmua\n",
            "1 clusters have two rows .* the last holds",
            "mua",
        ),
        ("cluster_group.tsv", "cluster_id\tgroup\n3\tgood\tmore\n0\tmua\n", "1 of 2 rows .* line 2", "mua"),
        ("cluster_group.tsv", "cluster_id\tKSLabel\n0\tgood\n", "has no column group, but KSLabel", None),
    ],
)
def test_a_table_that_does_not_fit_costs_no_spike_and_is_named(
    folder: Path, name: str, text: str, note: str, group: str | None
) -> None:
    (folder / name).write_text(text)
    found = read(folder)
    assert any(re.search(rf"mouse7_day1/{name.split('.')[0]}.*{note}", each) for each in found.notes), found.notes
    assert (None if group is None else found.units["group"][0]) == group
    same_spikes(found, WHOLE)
