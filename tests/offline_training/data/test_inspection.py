"""`nuclr-train inspect`: what is there, what would be used, and why the rest would not."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nuclr_stream.recordings.recording import Recording
from offline_training.commands.cli import main
from offline_training.config import TrainConfig
from offline_training.data.inspection import in_words, inspect_path
from offline_training.data.membership import load_selected, recordings_of
from tests.nuclr_stream.recorded_files import recording, write_nwb, write_phy

CONFIG = """
name = "mouse"
[recordings]
quality_column = "quality"
quality_keep = ["good"]
min_rate_hz = 1.0
[training]
steps = 1
drop_last_s = 5
[rules]
min_population = 5
[tasks.region]
column = "brain_region"
classes = { CA = ["CA1"], DG = ["DG"] }
min_spikes = 10
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mouse.toml"
    path.write_text(CONFIG)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Exit code of `nuclr-train inspect` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["nuclr-train", "inspect", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def broken_up() -> Recording:
    """60 s of 12 units: nothing recorded in [10, 15] s, a mask of 1 s at 30 s, all silent in [40, 43] s."""
    whole = recording(0, duration_s=60)
    seconds = whole.spike_samples / 30000
    keep = ((seconds < 10) | (seconds >= 15)) & ((seconds < 40) | (seconds >= 43))
    return replace(
        whole,
        spike_samples=whole.spike_samples[keep],
        spike_units=whole.spike_units[keep],
        gap_samples=np.array([[300_000, 450_000]]),
        mask_samples=np.array([[900_000, 930_000]]),
        units=whole.units | {"quality": np.array(["good"] * 9 + ["mua"] * 3)},
    )


def test_everything_about_a_recording_is_told(tmp_path: Path, config: Path) -> None:
    broken_up().save(tmp_path / "a.npz")
    facts = inspect_path(tmp_path / "a.npz", TrainConfig.load(config))
    (source,) = facts["sources"]
    (found,) = source["recordings"]
    assert (source["kind"], found["recording_id"], found["subject_id"]) == ("npz", "m1_s0", "m1")
    assert (found["units"], found["duration_s"], found["observed_s"], found["masked_s"]) == (12, 60, 55, 1)
    assert found["silent_s"] == 3, "what was not recorded is not silent"
    low, median, high = found["rate_hz"]
    assert 3 < low <= median <= high < 7
    assert found["columns"]["quality"] == {"values": {"good": 9, "mua": 3}}
    assert found["columns"]["depth_um"] == {"range": [0, 220], "unknown": 0}
    used = found["used"]
    assert (used["units"], used["left_out"]) == (9, [{"why": "quality is not good", "units": 3}])
    assert used["labels"]["region"] == {"column": "brain_region", "classes": {"CA": 5, "DG": 4}, "context_only": 0}
    # Windows of 10 s end at 10, 11, ..., 60 s. Up to 1 s of gap is allowed, a mask and a silent second are not.
    assert used["windows"]["total"] == 51
    assert used["windows"]["excluded"] == {"gap": 12, "mask": 10, "silence": 13}
    assert (used["windows"]["small"], used["windows"]["usable"]) == (0, 16)
    # Left for training are [0, 10], [15, 30], [31, 39] and [44, 55] s; none but pieces of 20 s or more count.
    assert used["training_s"] == 0
    assert (facts["units"], facts["units_used"], facts["windows_usable"], facts["errors"]) == (12, 9, 16, 0)


def test_what_a_user_should_know_is_noted(tmp_path: Path, config: Path) -> None:
    folder = write_phy(tmp_path / "day1", recording(0, duration_s=20))
    settings = TrainConfig.load(config).model_copy(update={"recordings": None})
    notes = inspect_path(folder, settings)["sources"][0]["recordings"][0]["used"]["notes"]
    assert notes == [
        "whose it is, is unknown: such recordings count as one animal",
        "shorter than two windows and training.drop_last_s = 5",
        "task region: there is no column 'brain_region'",
    ]
    small = settings.model_copy(update={"rules": settings.rules.model_copy(update={"min_population": 13})})
    used = inspect_path(folder, small)["sources"][0]["recordings"][0]["used"]
    assert "12 units, fewer than rules.min_population = 13: not trained on" in used["notes"]
    assert used["windows"]["usable"] == 0 and used["windows"]["small"] == used["windows"]["total"]


def test_a_recording_of_which_nothing_is_left_says_so(tmp_path: Path, config: Path) -> None:
    write_nwb(tmp_path / "a.nwb", recording(0), quality=["mua"] * 12)
    facts = inspect_path(tmp_path, TrainConfig.load(config))
    used = facts["sources"][0]["recordings"][0]["used"]
    assert (used["units"], used["windows"]["usable"]) == (0, 0)
    assert used["left_out"] == [{"why": "quality is not good", "units": 12}]


def test_one_bad_file_does_not_hide_the_others(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    write_nwb(folder / "a.nwb", recording(0), quality=["good"] * 12)
    write_phy(folder / "b", recording(1), params="")
    recording(0).save(folder / "c.npz")
    assert run(monkeypatch, folder, "--config", config, "--json") == 1
    facts = json.loads(capfd.readouterr().out)
    good, bad, copy = facts["sources"]
    assert "error" not in good and good["recordings"][0]["used"]["units"] == 12
    assert bad["error"].startswith("b/params.py: field sample_rate is missing") and not bad["recordings"]
    assert "no column 'quality'" in copy["error"]
    assert facts["errors"] == 2


def test_two_files_of_one_recording_are_told(tmp_path: Path, config: Path) -> None:
    for name in ("a", "b"):
        write_nwb(tmp_path / f"{name}.nwb", recording(0), quality=["good"] * 12)
    first, second = inspect_path(tmp_path, TrainConfig.load(config))["sources"]
    assert "error" not in first and "recording_id 'm1_s0' is that of" in second["error"]


def test_words_for_people(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken_up().save(tmp_path / "a.npz")
    assert run(monkeypatch, tmp_path / "a.npz", "--config", config) == 0
    out = capfd.readouterr().out
    for line in (
        "m1_s0: m1, 2020-01-02",
        "12 units; 60 s at 30000/s, 5 s of them not recorded, 1 s masked",
        "3 s without any",
        "column   quality: good 9, mua 3",
        "column   depth_um: 0 to 220",
        "units    9 used; 3 left out: quality is not good",
        "labels   region (brain_region): CA 5, DG 4; 0 context only",
        "windows  16 of 51 usable, 12 excluded: gap, 10 excluded: mask, 13 excluded: silence",
        "1 recordings of 1 subjects; under 'mouse' 9 of 12 units and 16 windows are used",
    ):
        assert line in out, line


def test_without_a_config_every_unit_and_the_published_window_count(tmp_path: Path) -> None:
    recording(0).save(tmp_path / "a.npz")
    settings = TrainConfig.parse({"name": "defaults", "training": {"steps": 1}})
    lines = list(in_words(inspect_path(tmp_path, settings)))
    assert "    units    12 used" in lines and "    windows  21 of 21 usable" in lines and "    training 30 s" in lines


def test_training_reads_any_kind_by_the_rules_of_its_config(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    write_nwb(folder / "a.nwb", recording(0), quality=["good"] * 11 + ["mua"])
    sizes = "[encoder]\ndim = 8\nheads = 1\nhead_dim = 8\nffn_hidden = 8\ntemporal_blocks = 1\n"
    config.write_text(CONFIG.replace("drop_last_s = 5", "") + sizes)
    arguments = ["nuclr-train", "pretrain", config, "--recordings", folder, "--out", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "m1_s0: 11 units used; 1 left out: quality is not good" in capfd.readouterr().err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["recordings"] == ["m1_s0"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["recordings"]["quality_keep"] == ["good"]


def test_a_recording_rate_other_than_the_clock_of_seconds_is_fine(tmp_path: Path) -> None:
    """Silent seconds are seconds of the device's clock, whatever its rate."""
    whole = recording(0, sample_rate=Fraction(390625, 16))
    whole.save(tmp_path / "a.npz")
    settings = TrainConfig.parse({"name": "defaults", "training": {"steps": 1}})
    (found,) = inspect_path(tmp_path, settings)["sources"][0]["recordings"]
    assert found["silent_s"] == 0 and found["duration_s"] == pytest.approx(900_000 / 24414.0625)


def test_what_reading_left_out_and_guessed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_phy(tmp_path / "day1", recording(0))
    samples = np.load(folder / "spike_times.npy").astype(np.int64)
    samples[:3] = -10
    np.save(folder / "spike_times.npy", samples)
    note = "day1/spike_times.npy: 3 of 1800 spikes lie before sample 0, where the recording begins"
    assert run(monkeypatch, folder) == 0
    assert f"  read     {note}" in capfd.readouterr().out
    assert run(monkeypatch, folder, "--json") == 0
    (found,) = json.loads(capfd.readouterr().out)["sources"][0]["recordings"]
    assert found["read"][0].startswith(note)


def test_populations_are_those_of_the_config_or_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_nwb(tmp_path / "a.nwb", recording(0), tetrode=["t0", "t1"] * 6)
    settings = TrainConfig.parse({"name": "d", "training": {"steps": 1}, "recordings": {"population_by": "tetrode"}})
    assert [r["recording_id"] for r in inspect_path(path, settings)["sources"][0]["recordings"]] == [
        "m1_s0_t0",
        "m1_s0_t1",
    ]
    assert [len(each.unit_ids) for each in recordings_of(load_selected(path, settings.recordings))] == [6, 6]
    assert run(monkeypatch, path, "--population-by", "brain_region") == 0
    assert "m1_s0_CA1" in capfd.readouterr().out
