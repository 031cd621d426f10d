"""Evaluation: animals held out whole, folds that can be run one by one, scores that hide no error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from nuclr_stream.recordings.recording import Recording
from offline_training.data.splits import Split, SplitError, parse_split
from offline_training.evaluation import evaluate as evaluation
from offline_training.evaluation.aggregate import combine
from offline_training.evaluation.evaluate import EvaluationError, run_baselines, run_fold, run_with_encoder
from offline_training.evaluation.simulated import evaluate_simulated
from offline_training.pretraining.pretrain import load_run
from offline_training.readouts.examples import Examples
from offline_training.readouts.readout import Readout, fit_readout
from offline_training.readouts.run_readouts import fit_readouts
from offline_training.scores import (
    NO_PREDICTION,
    balanced_accuracy,
    expected_calibration_error,
    macro_f1,
    precision_and_coverage,
)
from offline_training.simulation.animals import simulate
from tests.offline_training.tiny import CONFIG, fold_file, three_folds


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [simulate(seed, units=32, duration_s=20.0) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def split(recordings: list[Recording]) -> Split:
    return parse_split("leave-one-subject-out", CONFIG, recordings)


@pytest.fixture(scope="module")
def folds(recordings: list[Recording], split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All folds of one seed and of the baselines, and the encoders of the folds beside them."""
    folder = tmp_path_factory.mktemp("evaluation")
    for fold in split.folds:
        run_baselines(CONFIG, recordings, fold, out_dir=folder / "results", split=split)
        run_fold(
            CONFIG,
            recordings,
            fold,
            seed=0,
            out_dir=folder / "results",
            runs_dir=folder / "runs",
            hop_s=2.0,
            split=split,
        )
    return folder


def test_animals_are_left_out_in_turn(recordings: list[Recording], split: Split):
    assert [fold.name for fold in split.folds] == ["sim_000001", "sim_000002", "sim_000003"]
    fold = split.folds[1]
    assert {r.subject_id for r in fold.training(recordings)} == {"sim_000001", "sim_000003"}
    assert {r.subject_id for r in fold.test(recordings)} == {"sim_000002"}


def test_an_animal_without_labels_is_always_trained_on(recordings: list[Recording]):
    unlabelled = simulate(4, units=16, duration_s=5.0)
    unlabelled.units["cell_type"][:] = "?"
    names = [fold.name for fold in parse_split("leave-one-subject-out", CONFIG, [*recordings, unlabelled]).folds]
    assert names == ["sim_000001", "sim_000002", "sim_000003"]


def test_named_animals_are_one_fold(recordings: list[Recording]):
    split = parse_split("held-out=sim_000003,sim_000001", CONFIG, recordings)
    assert [fold.held_out for fold in split.folds] == [("sim_000001", "sim_000003")]
    assert split.fold("sim_000001+sim_000003").name == "sim_000001+sim_000003"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("by-unit", "must be leave-one-subject-out, held-out=ID,ID or a .json file"),
        ("held-out=T1", "T1 cannot be held out; choose some of sim_000001, sim_000002, sim_000003"),
        ("held-out=sim_000001,sim_000002,sim_000003", "every animal cannot be held out"),
    ],
)
def test_an_impossible_split_is_refused(recordings: list[Recording], name: str, says: str):
    with pytest.raises(SplitError, match=says):
        parse_split(name, CONFIG, recordings)


def test_encoder_and_readouts_of_a_fold_never_saw_the_animal(folds: Path, split: Split):
    for fold in split.folds:
        assert fold.name not in load_run(folds / "runs" / f"fold_{fold.name}_seed0")[2]["subjects"]
        result = json.loads((folds / "results" / f"fold_{fold.name}_seed0.json").read_text())
        assert fold.name not in result["train_subjects"]
        assert result["setting"] == "inductive zero-shot"
        assert {block["subject_id"] for block in result["tasks"]["cell_type"]["recordings"]} == {fold.name}


def test_readouts_of_a_fold_are_fitted_on_the_other_animals(
    recordings: list[Recording], split: Split, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    fitted_on = []

    def fit(known: Examples, classes: tuple[str, ...]) -> Readout:
        fitted_on.append(set(known.subject.tolist()))
        return fit_readout(known, classes)

    monkeypatch.setattr(evaluation, "fit_readout", fit)
    run_baselines(CONFIG, recordings, split.folds[0], out_dir=tmp_path, split=split)
    assert fitted_on == [{"sim_000002", "sim_000003"}] * 5


def test_every_labelled_unit_has_a_line_at_every_time(folds: Path, recordings: list[Recording]):
    found = json.loads((folds / "results" / "fold_sim_000001_seed0.json").read_text())["tasks"]["cell_type"]
    labels = CONFIG.tasks["cell_type"].labels(recordings[0])
    assert found["label"] == labels[labels >= 0].tolist()
    for columns in found["features"]["embedding"]["seconds"].values():
        assert {len(values) for values in columns.values()} == {len(found["label"])}
    assert max(found["features"]["embedding"]["seconds"]["10"]["n"]) == 5
    assert max(found["features"]["embedding"]["seconds"]["all"]["n"]) == 10


def test_result_files_hold_no_path(folds: Path):
    for path in (folds / "results").glob("*.json"):
        assert str(folds) not in path.read_text()
        assert ".npz" not in path.read_text()


def test_a_finished_fold_is_not_run_again(
    folds: Path, recordings: list[Recording], split: Split, monkeypatch: pytest.MonkeyPatch
):
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a finished fold was trained again")

    monkeypatch.setattr(evaluation, "pretrain", forbidden)
    monkeypatch.setattr(evaluation, "load_run", forbidden)
    place = {"out_dir": folds / "results", "runs_dir": folds / "runs", "hop_s": 2.0, "split": split}
    assert run_fold(CONFIG, recordings, split.folds[0], seed=0, **place).is_file()


def test_a_finished_training_is_used_when_scores_are_missing(
    folds: Path, recordings: list[Recording], split: Split, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(evaluation, "pretrain", lambda *_, **__: pytest.fail("a finished encoder was trained again"))
    place = {"out_dir": tmp_path, "runs_dir": folds / "runs", "hop_s": 2.0, "split": split}
    again = json.loads(run_fold(CONFIG, recordings, split.folds[0], seed=0, **place).read_text())
    assert again == json.loads((folds / "results" / "fold_sim_000001_seed0.json").read_text())


def test_results_of_other_settings_are_refused(folds: Path, recordings: list[Recording], split: Split):
    place = {"out_dir": folds / "results", "runs_dir": folds / "runs", "split": split}
    with pytest.raises(EvaluationError, match=r"fold_sim_000001_seed0\.json: comes from other settings"):
        run_fold(CONFIG, recordings, split.folds[0], seed=0, hop_s=1.0, **place)
    longer = CONFIG.with_training(steps=2)
    with pytest.raises(EvaluationError, match="trained with other settings or recordings"):
        run_fold(longer, recordings, split.folds[0], seed=0, hop_s=2.0, **place | {"out_dir": folds / "elsewhere"})


def test_a_run_that_saw_the_animals_is_transductive(
    folds: Path, recordings: list[Recording], split: Split, tmp_path: Path
):
    run = folds / "runs" / "fold_sim_000001_seed0"
    place = {"out_dir": tmp_path, "hop_s": 2.0, "split": split}
    with pytest.raises(EvaluationError, match=r"'inductive'.*saw the activity of sim_000002.*'transductive zero-shot'"):
        run_with_encoder(run, recordings, split.folds[1:2], claim="inductive", **place)
    assert not list(tmp_path.iterdir())
    seen = json.loads(run_with_encoder(run, recordings, split.folds[1:2], **place)[0].read_text())
    assert seen["setting"] == "transductive zero-shot"
    unseen = json.loads(run_with_encoder(run, recordings, split.folds[:1], claim="inductive", **place)[0].read_text())
    assert unseen["setting"] == "inductive zero-shot"


def test_units_of_the_same_populations_are_transductive(folds: Path, recordings: list[Recording], tmp_path: Path):
    (tmp_path / "units.json").write_text('{"name": "thirds", "what": "", "unit_folds": 3}')
    thirds = parse_split(str(tmp_path / "units.json"), CONFIG, recordings)
    run = folds / "runs" / "fold_sim_000001_seed0"
    place = {"out_dir": tmp_path, "split": thirds}
    paths = run_with_encoder(run, recordings, thirds.folds, hop_s=2.0, claim="transductive", **place)
    paths += [run_baselines(CONFIG, recordings, fold, **place) for fold in thirds.folds]
    for path in paths:
        result = json.loads(path.read_text())
        assert result["setting"] == "transductive"
        assert [block["subject_id"] for block in result["tasks"]["cell_type"]["recordings"]] == [
            r.subject_id for r in recordings
        ]
    summary = combine(tmp_path)["tasks"]["cell_type"]
    labels = np.concatenate([CONFIG.tasks["cell_type"].labels(recording) for recording in recordings])
    assert sum(summary["units"].values()) == (labels >= 0).sum()
    assert {one["row"] for one in summary["differences"] if one["minus"] == "embedding"} > {"isi", "rate"}


def test_folds_are_pooled_before_scoring(folds: Path):
    summary = combine(folds / "results")
    task = summary["tasks"]["cell_type"]
    assert set(task["features"]) == {
        *("embedding", "embedding_pooled", "rate"),
        *("isi", "isi_pooled", "statistics", "statistics_pooled"),
    }
    assert summary["seeds"] == [0]
    results = [json.loads(p.read_text()) for p in sorted((folds / "results").glob("*_seed0.json"))]
    label = [v for r in results for v in r["tasks"]["cell_type"]["label"]]
    found = [
        v for r in results for v in r["tasks"]["cell_type"]["features"]["embedding"]["seconds"]["all"]["prediction"]
    ]
    score = task["features"]["embedding"]["per_seed"]["0"]["all"]
    assert score["macro_f1"] == pytest.approx(f1_score(label, found, average="macro"), abs=1e-4)
    assert score["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, found), abs=1e-4)
    assert score["units"] == len(label)
    assert set(task["per_subject"]["embedding"]) == {"sim_000001", "sim_000002", "sim_000003"}


def test_predictions_outside_the_scored_classes_are_errors():
    label, found = np.array([0, 0, 1, 1, 2]), np.array([0, 2, 1, NO_PREDICTION, 0])
    scored = np.array([0, 1])
    kept = label != 2
    assert macro_f1(label[kept], found[kept], scored) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert balanced_accuracy(label[kept], found[kept], scored) == 0.5


def test_calibration_error_compares_confidence_with_accuracy():
    probability = np.repeat([0.6, 0.9], 50)
    right = np.concatenate([np.arange(50) < 30, np.arange(50) < 35])
    assert expected_calibration_error(probability, right, bins=2) == pytest.approx((0.0 + 0.2) / 2)
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, dtype=bool)))


def test_precision_is_that_of_the_called_units():
    right, abstained = np.array([True, False, True, False]), np.array([False, False, True, True])
    assert precision_and_coverage(right, abstained) == (0.5, 0.5)
    assert precision_and_coverage(right, np.ones(4, dtype=bool))[1] == 0


def test_a_class_of_one_animal_is_not_scored_and_predicting_it_is_an_error(tmp_path: Path):
    three_folds(tmp_path)
    task = combine(tmp_path)["tasks"]["region"]
    score = task["features"]["embedding"]["mean"]["all"]
    assert task["scored"] == ["x", "y"]
    assert task["units"] == {"x": 4, "y": 2}
    # Scored units: x right twice, once called rare, once without a window; y right once, once called x.
    assert score["macro_f1"] == pytest.approx((2 * 2 / (4 + 3) + 2 * 1 / (2 + 1)) / 2, abs=1e-4)
    assert score["balanced_accuracy"] == 0.5
    assert score["unseen"] == pytest.approx(1 / 6, abs=1e-4)
    assert task["per_subject"]["embedding"]["B"]["recall"] == {"x": 0.0, "y": 1.0}


def test_a_seed_counts_when_all_its_folds_are_there(tmp_path: Path):
    three_folds(tmp_path)
    fold_file(tmp_path, "A", seed=1, label=[0, 0, 0], prediction=[0, 0, 0])
    summary = combine(tmp_path)
    assert (summary["seeds"], summary["incomplete"]) == ([0], ["embedding, seed 1"])
    for path in tmp_path.glob("fold_B*"):
        path.unlink()
    with pytest.raises(EvaluationError, match="no seed has all of its folds"):
        combine(tmp_path)


def test_different_evaluations_are_not_pooled(tmp_path: Path):
    three_folds(tmp_path)
    fold_file(tmp_path, "A", seed=0, label=[0] * 3, prediction=[0] * 3, setting="transductive zero-shot")
    with pytest.raises(EvaluationError, match="setting: inductive zero-shot, transductive zero-shot"):
        combine(tmp_path)


def test_fresh_animals_are_scored_beside_the_floors(folds: Path, recordings: list[Recording], tmp_path: Path):
    run = folds / "runs" / "fold_sim_000001_seed0"
    fit_readouts(run, recordings[1:])
    out = tmp_path / "demo" / "fresh_animals.json"
    result = evaluate_simulated(run, recordings[1:], out=out, seeds=[5, 6], units=32, duration_s=20.0, hop_s=2.0)
    assert result == json.loads(out.read_text())
    assert result["animals"] == ["sim_000005", "sim_000006"]
    for feature in ("embedding", "rate", "isi"):
        score = result["tasks"]["cell_type"]["features"][feature]["all"]
        assert score["median"] == pytest.approx(np.median(score["macro_f1"]), abs=1e-4)
        assert score["range"] == [min(score["macro_f1"]), max(score["macro_f1"])]
    with pytest.raises(EvaluationError, match="sim_000002 belong to the training"):
        evaluate_simulated(run, recordings[1:], out=out, seeds=[2, 5], units=32, duration_s=20.0)
