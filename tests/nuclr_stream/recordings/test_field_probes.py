"""Which units of a file are one population: probes behind one device, tetrodes, two sortings, and the user's choice."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pynwb import NWBFile
from pynwb.misc import Units

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers import AnyRecording, open_recordings
from nuclr_stream.recordings.recording import Recording
from tests.nuclr_stream.recorded_files import (
    add_probe,
    add_units,
    new_nwb,
    recording,
    save_nwb,
    trains_s,
    write_nwb,
    write_torch_brain,
)
from tests.nuclr_stream.recordings.test_readers import same_spikes

WHOLE = recording(0)
MANY = recording(0, units=24)
REGIONS = ["CA1"] * 12


def noted(found: AnyRecording, pattern: str) -> bool:
    """Whether a note of the recording says so."""
    return any(re.search(pattern, note) for note in found.notes)


def groups(file: NWBFile, names: list[str], *, device: str = "", channels: int = 12, place: bool = False) -> None:
    """Electrode groups on one device, or each on its own; with `place` all at the same local coordinates."""
    for name in names:
        hardware = file.devices.get(device or name) or file.create_device(name=device or name)
        group = file.create_electrode_group(name=name, description="x", location="CA1", device=hardware)
        for channel in range(channels):
            more = {"rel_x": 0.0, "rel_y": 20.0 * channel} if place else {}
            file.add_electrode(group=group, location="CA1", **more)


@pytest.mark.parametrize(
    ("device", "names", "place", "ids"),
    [
        ("OpenEphys", ["ProbeA", "ProbeB"], False, ["m1_s0_ProbeA", "m1_s0_ProbeB"]),
        ("Neuropixels", ["imec0", "imec1"], False, ["m1_s0_imec0", "m1_s0_imec1"]),
        ("Intan RHD", ["left_shank0", "right_shank0"], False, ["m1_s0_left", "m1_s0_right"]),
        ("Neuropixels", ["A", "B"], True, ["m1_s0_A", "m1_s0_B"]),
        ("Intan RHD", ["shank0", "shank1"], False, ["m1_s0"]),
        ("Neuropixels 2.0", ["probe0_shank0", "probe0_shank1"], False, ["m1_s0"]),
        ("np2", ["left", "right"], False, ["m1_s0"]),
    ],
)
def test_groups_of_one_device_are_probes_by_their_places_and_names(
    tmp_path: Path, device: str, names: list[str], place: bool, ids: list[str]
) -> None:
    file = new_nwb()
    groups(file, names, device=device, place=place)
    add_units(file, MANY, list(range(24)))
    found = open_recordings(save_nwb(file, tmp_path / "a.nwb"))
    assert [each.recording_id for each in found] == ids
    assert all(len(each.unit_ids) == 24 // len(ids) for each in found)


@pytest.mark.parametrize("device", ["", "Trodes"])
def test_tetrodes_are_together_one_population(tmp_path: Path, device: str) -> None:
    file = new_nwb()
    groups(file, [f"tetrode{number}" for number in range(8)], device=device, channels=4)
    add_units(file, MANY, None, electrodes=[[4 * (unit // 3), 4 * (unit // 3) + 1] for unit in range(24)])
    path = save_nwb(file, tmp_path / "a.nwb")
    (found,) = open_recordings(path)
    assert isinstance(found, Recording)
    same_spikes(found, MANY)
    assert noted(found, "8 groups or devices of at most 4 electrodes, .* --population-by electrode_group parts them")
    parts = open_recordings(path, population_by="electrode_group")
    assert [len(each.unit_ids) for each in parts] == [3] * 8
    assert noted(parts[0], "8 of 8 populations have fewer than 11 units, .* --population-by all takes the 24 units")


def test_probes_that_are_too_small_alone_say_how_to_take_them_together(tmp_path: Path) -> None:
    file = new_nwb()
    rows = add_probe(file, "left", regions=REGIONS) + add_probe(file, "right", regions=REGIONS)
    add_units(file, WHOLE, [*rows[:6], *rows[12:18]])
    path = save_nwb(file, tmp_path / "a.nwb")
    first, second = open_recordings(path)
    assert noted(first, "2 of 2 populations have fewer than 11 units, the first is left") and noted(second, "all")
    (together,) = open_recordings(path, population_by="all")
    assert isinstance(together, Recording)
    same_spikes(together, WHOLE)
    assert set(together.units["probe_id"].tolist()) == {"left", "right"}
    assert len(open_recordings(path, population_by="probe_id")) == 2
    with pytest.raises(
        RecordingError, match=r"--population-by colour: there is no such column; choose one of .*depth_um"
    ):
        open_recordings(path, population_by="colour")


@pytest.mark.parametrize("listed", [True, False])
def test_a_file_of_the_allen_institute_is_read_by_its_peak_channels(tmp_path: Path, listed: bool) -> None:
    file = new_nwb()
    for name in ("probe_id", "probe_vertical_position"):
        file.add_electrode_column(name, "x")
    for number, name in enumerate(("probeA", "probeB")):
        device = file.create_device(name=str(810755797 + number))
        group = file.create_electrode_group(
            name=name, description="x", location="See electrode locations", device=device
        )
        for channel in range(12):
            file.add_electrode(
                id=850000000 + 1000 * number + channel, group=group, location="CA1" if channel < 6 else "VISp",
                probe_id=810755797 + number, probe_vertical_position=20 * channel,
            )  # fmt: skip
    peaks = [850000000 + 1000 * (unit // 12) + unit % 12 for unit in range(24)]
    add_units(file, MANY, list(range(24)) if listed else None, peak_channel_id=peaks)
    one, two = open_recordings(save_nwb(file, tmp_path / "a.nwb"))
    assert [each.units["probe_id"][0] for each in (one, two)] == ["810755797", "810755798"]
    assert one.units["depth_um"].tolist() == two.units["depth_um"].tolist() == [20.0 * channel for channel in range(12)]
    assert one.units["brain_region"].tolist() == ["CA1"] * 6 + ["VISp"] * 6


def test_a_few_units_without_a_place_are_left_out_where_there_are_several_probes(tmp_path: Path) -> None:
    file = new_nwb()
    rows = add_probe(file, "imec0", regions=REGIONS) + add_probe(file, "imec1", regions=REGIONS)
    add_units(file, MANY, None, electrodes=[[rows[unit]] if unit != 5 else [] for unit in range(24)])
    one, two = open_recordings(save_nwb(file, tmp_path / "a.nwb"))
    assert (len(one.unit_ids), len(two.unit_ids)) == (11, 12)
    assert noted(one, r"1 of 24 units name no electrode .*, the first is unit 15: left out")


def test_one_unit_with_a_wrong_electrode_or_on_two_probes_loses_its_place_only(tmp_path: Path) -> None:
    import h5py

    path = write_nwb(tmp_path / "a.nwb", WHOLE)
    with h5py.File(path, "a") as file:
        file["units/electrodes"][2] = 99
    (found,) = open_recordings(path)
    assert isinstance(found, Recording)
    same_spikes(found, WHOLE)
    assert np.isnan(found.units["depth_um"][2]) and noted(found, "places of 1 of 12 units .* row 2, electrode 99")


@pytest.mark.parametrize("names", [["units"], ["units_ks2", "units_ks4"]])
def test_units_in_processing_are_read_and_two_sortings_are_two_recordings(tmp_path: Path, names: list[str]) -> None:
    file = new_nwb()
    rows = add_probe(file, "imec0", regions=REGIONS)
    module = file.create_processing_module("ecephys", "x")
    for name in names:
        table = Units(name=name, description="x", electrode_table=file.electrodes)
        module.add(table)
        for unit, times in enumerate(trains_s(WHOLE)):
            table.add_unit(spike_times=times, electrodes=[rows[unit]], id=3 * unit)
    found = open_recordings(save_nwb(file, tmp_path / "a.nwb"))
    assert [each.recording_id for each in found] == (["m1_s0"] if len(names) == 1 else [f"m1_s0_{n}" for n in names])
    for each in found:
        assert isinstance(each, Recording)
        same_spikes(each, WHOLE)
        assert each.units["depth_um"].tolist() == WHOLE.units["depth_um"].tolist()
    assert noted(found[0], "read from /processing/ecephys/units" if len(names) == 1 else "holds 2 sortings")


def test_a_second_sorting_beside_units_is_named_and_a_column_of_sorters_parts_the_table(tmp_path: Path) -> None:
    file = new_nwb()
    rows = add_probe(file, "imec0", regions=REGIONS)
    table = Units(name="units_ks2", description="x", electrode_table=file.electrodes)
    file.create_processing_module("ecephys", "x").add(table)
    table.add_unit(spike_times=[1.0], electrodes=[rows[0]])
    add_units(file, MANY, rows * 2, sorter=["ks2"] * 12 + ["ks4"] * 12)
    one, two = open_recordings(save_nwb(file, tmp_path / "a.nwb"))
    assert [one.recording_id, two.recording_id] == ["m1_s0_imec0_ks2", "m1_s0_imec0_ks4"]
    assert noted(one, "other sortings, which are not read: /processing/ecephys/units_ks2")
    assert noted(two, r"column sorter names 2 sortings \(ks2, ks4\)")


@pytest.mark.parametrize("column", ["location", "brain_area"])
def test_the_region_may_stand_in_the_units_and_unknown_is_none(tmp_path: Path, column: str) -> None:
    file = new_nwb()
    rows = add_probe(file, "imec0", regions=["unknown"] * 12)
    add_units(file, WHOLE, rows, **{column: ["CA1"] * 6 + ["CA3"] * 5 + ["n/a"]})
    (found,) = open_recordings(save_nwb(file, tmp_path / "a.nwb"))
    assert found.units["brain_region"].tolist() == ["CA1"] * 6 + ["CA3"] * 5 + [""]
    assert noted(found, f"brain_region is taken from the column {column}")


@pytest.mark.parametrize("ids", [np.array(["a", "", "a"] + [f"u{n}" for n in range(9)]), np.arange(12) * np.nan])
def test_blank_and_double_ids_are_told_apart_by_their_row(tmp_path: Path, ids: np.ndarray) -> None:
    path = write_torch_brain(tmp_path / "a.h5", WHOLE)
    import h5py

    with h5py.File(path, "a") as file:
        del file["units/id"]
        file["units/id"] = ids.astype("S") if ids.dtype.kind == "U" else ids
    (found,) = open_recordings(path)
    assert found.unit_ids.tolist()[1] == "row1" and len(set(found.unit_ids.tolist())) == 12
    assert noted(found, r"units/id: \d+ of 12 ids are blank or stand for an earlier unit too, the first is row")


def test_whole_ids_that_are_floats_have_no_fraction(tmp_path: Path) -> None:
    path = write_torch_brain(tmp_path / "a.h5", WHOLE)
    import h5py

    with h5py.File(path, "a") as file:
        del file["units/id"]
        file["units/id"] = np.arange(12.0)
    (found,) = open_recordings(path)
    assert found.unit_ids.tolist() == [str(unit) for unit in range(12)] and not found.notes


def test_an_npz_is_parted_by_a_column_or_taken_together(tmp_path: Path) -> None:
    two = replace(WHOLE, units={"probe_id": np.array(["p0", "p1"] * 6)})
    two.save(tmp_path / "a.npz")
    parts = open_recordings(tmp_path / "a.npz", population_by="probe_id")
    assert [(each.recording_id, len(each.unit_ids)) for each in parts] == [("m1_s0_p0", 6), ("m1_s0_p1", 6)]
    (together,) = open_recordings(tmp_path / "a.npz", population_by="all")
    assert isinstance(together, Recording)
    same_spikes(together, WHOLE)
    with pytest.raises(RecordingError, match="there is no such column; choose one of probe_id, or all"):
        open_recordings(tmp_path / "a.npz", population_by="shank")


def test_a_few_spikes_of_an_npz_that_name_no_unit_are_left_out(tmp_path: Path) -> None:
    WHOLE.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        arrays = dict(archive)
    arrays["spike_units"][7], arrays["spike_samples"][-1] = 99, 10**9
    np.savez(tmp_path / "a.npz", **arrays)
    (found,) = open_recordings(tmp_path / "a.npz")
    assert isinstance(found, Recording)
    assert len(found.spike_samples) == 1798
    assert noted(found, r"spike_units: 1 of 1800 spikes name no row .* row 7 \(99\): left out")
    assert noted(found, r"spike_samples: 1 of 1799 spikes lie outside \[0, num_samples = 900000\)")
