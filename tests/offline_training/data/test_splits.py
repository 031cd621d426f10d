"""Splits: words or files, stable from machine to machine; nothing is trained on and tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nuclr_stream.recordings.recording import Recording
from offline_training.config import TrainConfig
from offline_training.data.splits import SplitError, UnitFold, parse_split, unit_parts
from offline_training.simulation.animals import simulate
from tests.offline_training.tiny import CONFIG

ROOT = Path(__file__).parents[3]
SPLITS = ROOT / "configs" / "splits"
RATS = ROOT.parent / "shared" / "data" / "rat_neuropixels"


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [simulate(seed, units=24, duration_s=5.0) for seed in (1, 2, 3)]


def write(path: Path, **content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_a_file_names_the_animals_of_every_fold(recordings: list[Recording], tmp_path: Path):
    folds = [["sim_000003", "sim_000001"], ["sim_000002"]]
    split = parse_split(write(tmp_path / "s.json", name="mine", what="", held_out=folds), CONFIG, recordings)
    assert split.name == "mine"
    assert [fold.name for fold in split.folds] == ["sim_000001+sim_000003", "sim_000002"]


def test_unit_folds_test_every_unit_once_and_train_on_the_others(recordings: list[Recording]):
    split = parse_split(str(SPLITS / "unit_folds.json"), CONFIG, recordings)
    assert [fold.name for fold in split.folds][:2] == ["units1of5", "units2of5"]
    for recording in recordings:
        tested = np.stack([fold.tests_on(recording) for fold in split.folds])
        assert (tested.sum(axis=0) == 1).all()
        for fold in split.folds:
            assert (fold.trains_on(recording) ^ fold.tests_on(recording)).all()


def test_the_part_of_a_unit_is_the_same_everywhere(recordings: list[Recording]):
    first = recordings[0]
    assert first.unit_ids[:2].tolist() == ["sim_000001_0:0", "sim_000001_0:1"]
    assert unit_parts(first, 5)[:8].tolist() == [0, 4, 3, 2, 1, 2, 3, 4]
    assert UnitFold((), 1, 5).name == "units2of5"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"name": "x"}, r"must hold name, what, and either held_out or unit_folds; it holds \['name'\]"),
        ({"name": "x", "unit_folds": 1}, "unit_folds = 1: must be a whole number of at least 2"),
        ({"name": "x", "unit_folds": "5"}, "unit_folds = '5': must be a whole number"),
        ({"name": "x", "held_out": []}, "held_out: \\[\\] must be a list of lists"),
        ({"name": "x", "held_out": ["sim_000001"]}, "held_out: 'sim_000001' must be a list of lists"),
        ({"name": "x", "held_out": [["T1"]]}, "T1 cannot be held out; choose some of sim_000001"),
    ],
)
def test_a_file_that_says_something_else_is_rejected(
    recordings: list[Recording], tmp_path: Path, content: dict, says: str
):
    with pytest.raises(SplitError, match=says):
        parse_split(write(tmp_path / "s.json", **content), CONFIG, recordings)


def test_a_file_that_is_no_json_is_named(recordings: list[Recording], tmp_path: Path):
    (tmp_path / "s.json").write_text("{")
    with pytest.raises(SplitError, match=r"s\.json: not a readable JSON file"):
        parse_split(str(tmp_path / "s.json"), CONFIG, recordings)
    with pytest.raises(SplitError, match=r"nowhere\.json: not a readable"):
        parse_split(str(tmp_path / "nowhere.json"), CONFIG, recordings)


@pytest.mark.skipif(not RATS.is_dir(), reason="the shared rat recordings are not here")
def test_the_committed_splits_fit_the_rats():
    config = TrainConfig.load(ROOT / "configs" / "pretrain_rat.toml")
    rats = [Recording.load(path) for path in sorted(RATS.glob("*.npz"))]
    committed = parse_split(str(SPLITS / "rat_leave_one_out.json"), config, rats)
    assert committed.folds == parse_split("leave-one-subject-out", config, rats).folds
    for fold in parse_split(str(SPLITS / "rat_two_folds.json"), config, rats).folds:
        for side in (fold.training(rats), fold.test(rats)):
            classes = set(np.concatenate([config.tasks["brain_region"].labels(recording) for recording in side]))
            assert {0, 1, 2, 3} <= classes  # STR, MC, EnPir, IC
