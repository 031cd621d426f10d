"""Scores as time goes on: the same units at every point, no error hidden, populations dealt into parts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from offline_training.evaluation.evaluate import EvaluationError
from offline_training.readouts.readout import ReadoutError
from offline_training.studies.anytime import Points, anytime_folds, anytime_fresh
from offline_training.studies.anytime_population import NOT_ASKED, deal
from offline_training.studies.anytime_scores import Moment, Told, reliability, risk_coverage, scores, settling

from nuclr_stream.recordings.recording import Recording
from offline_training.data.splits import parse_split
from offline_training.pretraining.pretrain import pretrain
from offline_training.readouts.run_readouts import fit_readouts
from offline_training.scores import NO_PREDICTION
from offline_training.simulation.animals import simulate
from tests.offline_training.tiny import CONFIG

POINTS = Points(seconds=(2, 6, 12), sizes=(4, 12), sized_at=(6, 12), sized_recordings=1, drawn_at=(12,))
ROWS = ["embedding", "embedding_neighbourhood", "spike_statistics", "spike_statistics_company", "predictors"]


def said(*top: list[int], label: list[int], p: float = 0.8, **other: object) -> Told:
    """One recording with windows of 10 s and two classes; the top class of every unit, window by window."""
    prediction = np.array(top)
    probabilities = np.full((*prediction.shape, 2), 1 - p, dtype=np.float32)
    np.put_along_axis(probabilities, np.maximum(prediction, 0)[..., None], p, axis=2)
    stated = {
        "subject_id": "A",
        "end_s": 10.0 * np.arange(1, len(prediction) + 1),
        "label": np.array(label),
        "p": probabilities,
        "has_prediction": prediction != NO_PREDICTION,
        "unsure": np.zeros(prediction.shape, dtype=bool),
        "sets": None,
    }
    return Told(**(stated | other))


BOTH = np.array([0, 1])


def test_before_the_first_window_every_unit_is_an_error_and_no_probability_counts():
    moment = Moment.at([said([0, 1], label=[0, 1])], 9.9, BOTH)
    found = scores(moment, BOTH, calibrated=True)
    assert (found["macro_f1"], found["coverage"], found["unseen"], found["units"]) == (0.0, 0.0, 1.0, 2)
    assert found["ece"] is None and found["precision"] is None


def test_a_window_counts_from_its_last_moment_on():
    stated = [said([1, 1], [0, 1], label=[0, 1])]
    assert Moment.at(stated, 10.0, BOTH).prediction.tolist() == [1, 1]
    assert Moment.at(stated, 20.0, BOTH).prediction.tolist() == [0, 1]


def test_abstained_units_are_in_the_calibration_error_and_the_brier_score():
    """Two of three right at 0.8, one of them called: precision counts one, ECE and Brier all three."""
    stated = said([0, 0, 0], label=[0, 0, 1], unsure=np.array([[False, True, True]]))
    found = scores(Moment.at([stated], 10, BOTH), BOTH, calibrated=True)
    assert (found["precision"], found["coverage"]) == (1.0, round(1 / 3, 4))
    assert found["ece"] == pytest.approx(0.4, abs=1e-3)
    assert found["brier"] == pytest.approx((0.08 + 0.08 + 1.28) / 3, abs=1e-3)


def test_sets_are_scored_by_what_they_hold_and_how_large_they_are():
    sets = np.array([[[True, False], [True, True], [True, False]]])
    found = scores(Moment.at([said([0, 0, 0], label=[0, 1, 1], sets=sets)], 10, BOTH), BOTH, calibrated=True)
    assert (found["in_set"], found["set_size"]) == (0.6667, 1.3333)


def test_a_label_is_stable_from_its_last_change_on():
    """One unit settles with its second window, one is right from the first, one says nothing until the third."""
    stated = said([0, 1, -1], [1, 1, -1], [1, 1, 0], label=[1, 1, 0])
    assert settling([stated], 30, BOTH) == {"stable_s": 20.0, "flips_per_minute": 1.0}
    assert settling([stated], 10, BOTH) == {"stable_s": 10.0, "flips_per_minute": None}


def test_reliability_and_risk_take_every_unit():
    stated = said([0, 0, 0, -1], label=[0, 0, 1, 1])
    stated.p[0, :3, 0] = [0.9, 0.8, 0.7]
    moment = Moment.at([stated], 10, BOTH)
    assert [(one["right"], one["units"]) for one in reliability(moment)] == [(0.0, 1), (1.0, 1), (1.0, 1)]
    assert [(one["coverage"], one["risk"]) for one in risk_coverage(moment, points=4)] == [
        (0.25, 0.0),
        (0.5, 0.0),
        (0.75, 0.3333),
        (1.0, 0.5),
    ]


def test_parts_ask_every_unit_once_and_are_all_of_one_size():
    parts = list(deal(10, 4))
    assert [len(members) for members, _ in parts] == [4, 4, 4]
    assert sorted(np.concatenate([asked[asked != NOT_ASKED] for _, asked in parts]).tolist()) == list(range(10))
    assert all((asked == members)[asked != NOT_ASKED].all() and len(set(members)) == 4 for members, asked in parts)


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    """Three animals; a second recording of the last is too short for the curve."""
    return [
        *(simulate(seed, units=24, duration_s=12.0) for seed in (1, 2, 3)),
        simulate(3, units=16, duration_s=11.0, session=1),
    ]


@pytest.fixture(scope="module")
def runs(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of every fold, one of a pair of them, and one whose training is not over."""
    folder = tmp_path_factory.mktemp("anytime")
    for name in ("sim_000001", "sim_000002", "sim_000003", "sim_000001+sim_000002"):
        known = [recording for recording in recordings if recording.subject_id not in name]
        kind = "pairs" if "+" in name else "folds"
        pretrain(CONFIG.with_training(seed=0), known, folder / kind / f"fold_{name}_seed0")
    begun = folder / "pairs" / "fold_sim_000001+sim_000003_seed0"
    pretrain(CONFIG.with_training(seed=0, steps=2), recordings[1:2], begun, stop_after=1)
    return folder


@pytest.fixture(scope="module")
def result(recordings: list[Recording], runs: Path) -> dict:
    split = parse_split("leave-one-subject-out", CONFIG, recordings)
    out = runs / "out" / "rats.json"
    found = anytime_folds(
        CONFIG, recordings, split, runs_dir=runs / "folds", pairs_dir=runs / "pairs", seed=0, out=out, points=POINTS
    )
    assert json.loads(out.read_text()) == found
    return found


def test_every_point_is_of_the_same_units_of_long_recordings(result: dict, recordings: list[Recording]):
    task = result["tasks"]["cell_type"]
    labelled = sum(int((CONFIG.tasks["cell_type"].labels(r) >= 0).sum()) for r in recordings[:3])
    assert result["recordings"] == [r.recording_id for r in recordings[:3]]
    assert list(task["rows"]) == ROWS
    for row in task["rows"].values():
        for way in ("single", "multi"):
            assert [point["units"] for point in row[way].values()] == [labelled] * 3
            assert list(row[way]) == ["2", "6", "12"]


def test_rows_say_on_whom_their_calibration_rests(result: dict):
    """Only the folds of the pair that is there have animals unseen by an encoder."""
    words = " ".join(result["tasks"]["cell_type"]["rows"]["predictors"]["calibrated_on"])
    assert "(sim_000001), each unseen" in words and "(sim_000002), each unseen" in words and "out of fold" in words
    assert "(sim_000003), each unseen" not in words  # that pair is still in training


def test_smaller_populations_ask_the_same_units_and_the_smallest_leave_the_word_to_spike_statistics(result: dict):
    assert len(result["population"]["recordings"]) == 1
    rows = result["tasks"]["cell_type"]["rows"]
    for seconds in ("6", "12"):
        sizes = rows["predictors"]["population"]["single"][seconds]
        assert len({one["units"] for one in sizes.values()}) == 1
        alone = rows["spike_statistics"]["population"]["single"][seconds]
        assert sizes["4"] == alone["4"]


def test_fresh_animals_are_scored_by_the_readouts_of_a_run(recordings: list[Recording], runs: Path):
    run = runs / "folds" / "fold_sim_000003_seed0"
    fit_readouts(run, recordings[:2], hop_s=2.0)
    found = anytime_fresh(run, seeds=[3, 4], units=24, out=runs / "fresh.json", points=POINTS)
    rows = found["tasks"]["cell_type"]["rows"]
    assert found["animals"] == ["sim_000003", "sim_000004"]
    assert list(rows) == ROWS
    assert rows["predictors"]["single"]["12"]["ece"] is not None and rows["predictors"]["single"]["12"]["set_size"] >= 1
    assert "ece" not in rows["embedding_neighbourhood"]["single"]["12"] and rows["embedding_neighbourhood"][
        "calibrated_on"
    ] == [""]
    with pytest.raises(EvaluationError, match="sim_000001 belong to the training"):
        anytime_fresh(run, seeds=[1], units=24, out=runs / "no.json", points=POINTS)


def test_what_is_missing_is_named(recordings: list[Recording], runs: Path, tmp_path: Path):
    split = parse_split("leave-one-subject-out", CONFIG, recordings)
    folders = {"pairs_dir": None, "seed": 0, "out": tmp_path / "no.json"}
    with pytest.raises(EvaluationError, match="no finished fold_sim_000001_seed0"):
        anytime_folds(CONFIG, recordings, split, runs_dir=tmp_path, points=POINTS, **folders)
    with pytest.raises(EvaluationError, match="no tested recording lasts 600 s"):
        anytime_folds(CONFIG, recordings, split, runs_dir=runs / "folds", **folders)
    with pytest.raises(ReadoutError, match="no readable readouts"):
        anytime_fresh(runs / "folds" / "fold_sim_000001_seed0", seeds=[4], out=tmp_path / "no.json", points=POINTS)
