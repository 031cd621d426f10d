"""Planned trajectories as other tools write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nuclr_stream.errors import PlacementError
from nuclr_stream.placement.plans import read_plan
from nuclr_stream.placement.trajectory import Planned


def written(folder: Path, text: str, name: str = "plan.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


EXPECTED = (Planned("TH", 0.0, 500.0), Planned("CTX", 500.0, 1000.0))


def test_regions_with_depths_from_the_tip(tmp_path: Path) -> None:
    text = "region,from_um,to_um\nCTX,500,1000\nTH,0,500\nvoid,1000,2000\n"
    assert read_plan(written(tmp_path, text)) == EXPECTED


def test_areas_with_depths_from_the_surface_need_the_depth_of_the_tip(tmp_path: Path) -> None:
    path = written(tmp_path, "trajectory_depth_1,trajectory_depth_2,acronym\n0,500,CTX\n500,1000,TH\n")
    assert read_plan(path, tip_um=1000.0) == EXPECTED
    with pytest.raises(PlacementError, match="say how deep the tip is"):
        read_plan(path)
    with pytest.raises(PlacementError, match="leave --tip-um out"):
        read_plan(written(tmp_path, "region,from_um,to_um\nCTX,500,1000\n"), tip_um=1000.0)


def test_a_row_a_channel_in_any_order(tmp_path: Path) -> None:
    rows = [f"{k},{100 * k},{'TH' if k < 5 else 'CTX'}" for k in (3, 1, 2, 0, 4, 9, 8, 7, 6, 5)]
    path = written(tmp_path, "\n".join(["channel,axial_um,acronym", *rows]))
    assert read_plan(path) == (Planned("TH", -50.0, 450.0), Planned("CTX", 450.0, 950.0))


def test_ibl_channel_locations_with_the_origin_among_them(tmp_path: Path) -> None:
    document: dict[str, object] = {
        f"channel_{k}": {"x": 1.0, "axial": 20.0 * (k // 2), "lateral": 16.0 * (k % 2), "brain_region": region}
        for k, region in enumerate(["TH"] * 20 + ["root"] * 4 + ["CTX"] * 16)
    }
    document["origin"] = {"bregma": [5739.0, 5400.0, 332.0]}
    found = read_plan(written(tmp_path, json.dumps(document), "channel_locations.json"))
    assert found == (Planned("TH", -10.0, 190.0), Planned("CTX", 230.0, 390.0))


def test_pinpoint_as_it_talks_to_spikeglx(tmp_path: Path) -> None:
    text = "[0,0](0,500,255,144,159,TH)(500,1000,31,157,90,CTX)(1000,4000,0,0,0,-)"
    assert read_plan(written(tmp_path, text, "pinpoint.txt")) == EXPECTED


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1}', "channel_locations.json"),
        ('{"channel_0": {"axial": 0}}', "line 1.*no axial or brain_region"),
        ("{", "not JSON"),
        ("[0,0](0,500,1,1,1,TH)[0,1](0,500,1,1,1,TH)", "holds 2 shanks"),
        ("[0,0]", "no region"),
        ("channel,axial,acronym\n0,0,TH\n1,0,CTX\n", "line 3: CTX and TH at one depth.*each shank"),
        ("channel,axial,acronym\n0,0,TH\n", "1 depths"),
        ("channel,axial,acronym\n0,nan,TH\n", "axial is nan"),
        ("axial,name\n0,TH\n", "the columns are region"),
    ],
)
def test_what_is_no_plan_is_refused_with_what_is_expected(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PlacementError, match=words):
        read_plan(written(tmp_path, text))


def test_depths_from_the_tip_take_no_depth_of_the_tip(tmp_path: Path) -> None:
    with pytest.raises(PlacementError, match="leave tip_um out"):
        read_plan(written(tmp_path, "[0,0](0,500,1,1,1,TH)", "p.txt"), tip_um=100.0)
