"""NWB files as pynwb writes them: probes, shanks, depths, regions, gaps, rates, and what is rejected."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from pynwb.ecephys import ElectricalSeries
from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers import find_sources, open_recordings
from nuclr_stream.recordings.recording import Recording
from tests.nuclr_stream.recorded_files import add_probe, add_units, new_nwb, recording, save_nwb, write_nwb
from tests.nuclr_stream.recordings.test_readers import same_spikes

WHOLE = recording(0)
REGIONS = ["CA1"] * 6 + ["DG"] * 6


def read(path: Path) -> Recording:
    """The only recording of a file."""
    (found,) = open_recordings(path)
    return found


def test_a_recording_is_the_same_after_nwb(tmp_path: Path) -> None:
    labels = ["good", "mua"] * 6
    found = read(write_nwb(tmp_path / "a.nwb", WHOLE, quality=labels, snr=np.arange(12.0), kept=[True, False] * 6))
    same_spikes(found, WHOLE)
    assert (found.recording_id, found.subject_id, found.session_date) == ("m1_s0", "m1", "2020-01-02")
    assert (found.num_samples, found.sample_rate, len(found.gap_samples)) == (900_000, 30000, 0)
    assert found.unit_ids.tolist() == WHOLE.unit_ids.tolist()
    for name, expected in (WHOLE.units | {"quality": labels, "snr": range(12), "kept": [True, False] * 6}).items():
        assert found.units[name].tolist() == list(expected), name
    assert set(found.units["probe_id"].tolist()) == {"probe0"}


def test_two_devices_are_two_recordings_on_one_clock(tmp_path: Path) -> None:
    file = new_nwb()
    first, second = add_probe(file, "imec0", regions=REGIONS), add_probe(file, "imec1", regions=["TH"] * 12)
    add_units(file, WHOLE, [*first[:6], *second[:6]])
    one, two = open_recordings(save_nwb(file, tmp_path / "a.nwb"))
    assert [one.recording_id, two.recording_id] == ["m1_s0_imec0", "m1_s0_imec1"]
    assert one.num_samples == two.num_samples == int(WHOLE.spike_samples[-1]) + 1
    assert one.unit_ids.tolist() + two.unit_ids.tolist() == WHOLE.unit_ids.tolist()
    assert len(one.spike_samples) + len(two.spike_samples) == len(WHOLE.spike_samples)
    assert set(two.units["brain_region"].tolist()) == {"TH"}


def test_groups_of_one_device_are_shanks(tmp_path: Path) -> None:
    file = new_nwb()
    rows = add_probe(file, "np2", regions=["CA1", "DG", "TH"], shanks=4)
    add_units(file, WHOLE, rows)
    found = read(save_nwb(file, tmp_path / "a.nwb"))
    assert found.units["shank"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert found.units["x_um"].tolist() == [0] * 3 + [250] * 3 + [500] * 3 + [750] * 3
    assert found.units["depth_um"].tolist() == [0, 20, 40] * 4


def test_groups_of_one_device_at_one_place_are_probes(tmp_path: Path) -> None:
    """Some converters write one Device for everything: two electrodes can not be at one place on one probe."""
    file = new_nwb()
    rows = add_probe(file, "left", regions=REGIONS, device="all") + add_probe(
        file, "right", regions=REGIONS, device="all"
    )
    add_units(file, WHOLE, rows[6:18])
    assert [each.recording_id for each in open_recordings(save_nwb(file, tmp_path / "a.nwb"))] == [
        "m1_s0_left",
        "m1_s0_right",
    ]


def test_a_column_has_the_last_word_about_probes(tmp_path: Path) -> None:
    path = write_nwb(tmp_path / "a.nwb", WHOLE, probe_name=["A", "B"] * 6)
    assert [each.recording_id for each in open_recordings(path)] == ["m1_s0_A", "m1_s0_B"]


def test_units_that_name_no_probe_are_rejected_where_there_are_two(tmp_path: Path) -> None:
    file = new_nwb()
    add_probe(file, "imec0", regions=REGIONS), add_probe(file, "imec1", regions=REGIONS)
    add_units(file, WHOLE, None)
    with pytest.raises(
        RecordingError, match=r"a\.nwb: 12 of 12 units name no electrode .* imec0, imec1, .* unit 0; write units with"
    ):
        open_recordings(save_nwb(file, tmp_path / "a.nwb"))


def test_the_electrode_group_of_a_unit_gives_probe_and_region(tmp_path: Path) -> None:
    file = new_nwb()
    add_probe(file, "imec0", regions=REGIONS), add_probe(file, "imec1", regions=REGIONS)
    groups = [file.electrode_groups["imec0"]] * 6 + [file.electrode_groups["imec1"]] * 6
    add_units(file, WHOLE, None, electrode_group=groups)
    one, two = open_recordings(save_nwb(file, tmp_path / "a.nwb"))
    assert (len(one.unit_ids), len(two.unit_ids)) == (6, 6)
    assert set(one.units["brain_region"].tolist()) == {"HPF"}, "the location of the group"


def test_no_electrodes_at_all_is_one_population(tmp_path: Path) -> None:
    file = new_nwb(subject="")
    add_units(file, WHOLE, None)
    found = read(save_nwb(file, tmp_path / "a.nwb"))
    assert (found.recording_id, found.subject_id) == ("s0", "unknown")
    same_spikes(found, WHOLE)


@pytest.mark.parametrize("waveforms", [True, False])
def test_of_several_electrodes_the_largest_counts_and_otherwise_what_they_agree_on(
    tmp_path: Path, waveforms: bool
) -> None:
    file = new_nwb()
    rows = add_probe(file, "imec0", regions=REGIONS)
    listed = [rows[unit : unit + 3] if unit < 10 else rows[9:12] for unit in range(12)]
    shapes = np.zeros((12, 5, 3))
    shapes[:, 2, 2] = -50e-6
    more = {"waveform_mean": list(shapes)} if waveforms else {}
    add_units(file, WHOLE, None, electrodes=listed, **more)
    found = read(save_nwb(file, tmp_path / "a.nwb"))
    if waveforms:
        assert found.units["depth_um"].tolist() == [20.0 * each[2] for each in listed]
        assert found.units["brain_region"].tolist() == [REGIONS[each[2]] for each in listed]
    else:
        assert np.isnan(found.units["depth_um"]).all()
        assert found.units["brain_region"].tolist() == ["CA1"] * 4 + [""] * 2 + ["DG"] * 6


def test_the_channel_that_the_units_table_names_counts(tmp_path: Path) -> None:
    file = new_nwb()
    rows = add_probe(file, "imec0", regions=REGIONS)
    add_units(file, WHOLE, None, electrodes=[rows] * 12, peak_channel_id=rows[::-1])
    assert read(save_nwb(file, tmp_path / "a.nwb")).units["depth_um"].tolist() == [20.0 * row for row in rows[::-1]]


def test_what_no_unit_was_observed_in_is_a_gap(tmp_path: Path) -> None:
    """Units 0-5 were observed in [0, 10] and [20, 30] s, the others in [0, 12] s: from 12 to 20 s nobody was."""
    seconds = WHOLE.spike_samples / 30000
    first = WHOLE.spike_units < 6
    inside = np.where(first, (seconds <= 10) | (seconds >= 20), seconds <= 12)
    part = recording(0, spike_samples=WHOLE.spike_samples[inside], spike_units=WHOLE.spike_units[inside])
    observed = [[[0.0, 10.0], [20.0, 30.0]]] * 6 + [[[0.0, 12.0]]] * 6
    found = read(write_nwb(tmp_path / "a.nwb", part, obs_intervals=observed))
    assert (found.gap_samples.tolist(), found.num_samples) == ([[360_000, 600_000]], 900_000)
    same_spikes(found, part)


def test_the_rate_is_what_the_file_declares(tmp_path: Path) -> None:
    path = write_nwb(tmp_path / "a.nwb", WHOLE)
    with h5py.File(path, "a") as file:
        file["units/spike_times"].attrs["resolution"] = 1 / 20000
    assert (read(path).sample_rate, read(path).num_samples) == (20000, 600_000)
    file = new_nwb()
    rows = add_probe(file, "imec0", regions=REGIONS)
    add_units(file, WHOLE, rows)
    for name, rate in (("ap", 24414.0625), ("lfp", 2500.0)):
        region = file.create_electrode_table_region(region=rows, description="all")
        file.add_acquisition(ElectricalSeries(name=name, data=np.zeros((2, 12)), electrodes=region, rate=rate))
    assert float(read(save_nwb(file, tmp_path / "b.nwb")).sample_rate) == 24414.0625


def test_imaging_without_spikes_is_told_and_a_file_with_neither_is_rejected(tmp_path: Path) -> None:
    file = new_nwb()
    device = file.create_device(name="microscope")
    channel = OpticalChannel(name="green", description="test", emission_lambda=500.0)
    plane = file.create_imaging_plane(
        name="plane", optical_channel=channel, description="test", device=device, excitation_lambda=600.0,
        indicator="GCaMP", location="V1",
    )  # fmt: skip
    module = file.create_processing_module(name="ophys", description="test")
    segmentation = ImageSegmentation()
    module.add(segmentation)
    cells = segmentation.create_plane_segmentation(name="cells", description="test", imaging_plane=plane)
    cells.add_roi(pixel_mask=[(1, 1, 1.0)])
    fluorescence = Fluorescence()
    module.add(fluorescence)
    region = cells.create_roi_table_region(region=[0], description="all")
    fluorescence.create_roi_response_series(name="dff", data=np.zeros((5, 1)), rois=region, unit="a", rate=4.0)
    path = save_nwb(file, tmp_path / "calcium.nwb")
    assert [source.kind for source in find_sources(path)] == ["traces"]
    with pytest.raises(RecordingError, match=r"none\.nwb: NWB with neither units .* but with no data"):
        open_recordings(save_nwb(new_nwb(), tmp_path / "none.nwb"))


@pytest.mark.parametrize(
    ("dataset", "row", "value", "message"),
    [
        (
            "units/spike_times",
            slice(None),
            np.nan,
            r"units/spike_times: 1800 of 1800 spikes have no finite time, the first is row 0 \(nan\)",
        ),
        ("units/spike_times_index", 11, 5, r"units/spike_times_index does not divide the \d+ values"),
        (
            "units/electrodes",
            slice(2, 8),
            99,
            r"units/electrodes: places of 6 of 12 units are not among the 12 rows of .* row 2, electrode 99",
        ),
        (
            "units/obs_intervals",
            slice(0, 6),
            [9.0, 1.0],
            r"units/obs_intervals: 6 of 12 intervals do not end after they begin, .* row 0 \(\[9.0, 1.0\]\)",
        ),
    ],
)
def test_a_wrong_value_is_rejected_with_field_row_and_remedy(
    tmp_path: Path, dataset: str, row: int | slice, value: object, message: str
) -> None:
    path = write_nwb(tmp_path / "bad.nwb", WHOLE)
    with h5py.File(path, "a") as file:
        file[dataset][row] = value
    with pytest.raises(RecordingError, match=rf"^bad\.nwb: .*{message}"):
        open_recordings(path)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("spike_times", r"field /units/spike_times is missing"),
        ("spike_times_index", r"field /units/spike_times_index is missing"),
        ("id", r"field /units/id is missing"),
    ],
)
def test_a_missing_field_is_named(tmp_path: Path, missing: str, message: str) -> None:
    path = write_nwb(tmp_path / "bad.nwb", WHOLE)
    with h5py.File(path, "a") as file:
        del file["units"][missing]
    with pytest.raises(RecordingError, match=rf"^bad\.nwb: {message}"):
        open_recordings(path)


def test_a_unit_on_two_probes_is_rejected(tmp_path: Path) -> None:
    file = new_nwb()
    rows = add_probe(file, "imec0", regions=REGIONS) + add_probe(file, "imec1", regions=REGIONS)
    add_units(file, WHOLE, None, electrodes=[[row, row + 12] for row in rows[:12]])
    with pytest.raises(RecordingError, match=r"places of 12 of 12 units are on two probes, .* row 0, on imec0, imec1"):
        open_recordings(save_nwb(file, tmp_path / "a.nwb"))


def test_a_file_that_claims_to_be_huge_is_rejected_before_it_is_read(tmp_path: Path) -> None:
    path = write_nwb(tmp_path / "bomb.nwb", WHOLE)
    with h5py.File(path, "a") as file:
        del file["units/spike_times"]
        file["units"].create_dataset("spike_times", shape=(2**40,), dtype="f8", chunks=(1024,))
    with pytest.raises(RecordingError, match=r"bomb\.nwb: /units/spike_times holds \d+ bytes, more than"):
        open_recordings(path)
