"""Nested evaluation, end to end on tiny simulated animals: who is tested has trained nothing, and scores add up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score
from typer.testing import CliRunner

from nuclr_stream.features.accumulator import SPIKE_SETS, FeatureSnapshot
from nuclr_stream.prediction.answer import Answer
from nuclr_stream.recordings.recording import Recording
from offline_training.commands.cli import app
from offline_training.data.splits import Fold, UnitFold
from offline_training.evaluation import nested
from offline_training.evaluation.encoders import covering, pretrain_once
from offline_training.evaluation.nested import EvaluationError, FoldResult, Row, predict, result, run_fold
from offline_training.evaluation.scoring import Predicted
from offline_training.pretraining.runs import Run
from offline_training.readouts.examples import Examples
from offline_training.readouts.task_model import TaskModel, fit_task
from offline_training.simulation.animals import simulate
from tests.offline_training.tiny import CONFIG, CONFIG_TOML

ANIMALS = ("sim_000001", "sim_000002", "sim_000003")
FACTS = {"name": "tiny", "command": "nuclr-train evaluate"}


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [simulate(seed, units=32, duration_s=20.0) for seed in (1, 2, 3)]


@dataclass
class Evaluated:
    """All folds with one animal left out, their encoders, and the animals that each task model was fitted on."""

    runs: Path
    folds: list[FoldResult] = field(default_factory=list)
    fitted_on: list[set[str]] = field(default_factory=list)


@pytest.fixture(scope="module")
def evaluated(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    found = Evaluated(tmp_path_factory.mktemp("nested"))

    def fit(known: Examples, classes: tuple[str, ...]) -> TaskModel:
        found.fitted_on.append(set(known.subject.tolist()))
        return fit_task(known, classes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nested, "fit_task", fit)
        for animal in ANIMALS:
            fold = Fold((animal,))
            pretrain_once(CONFIG, fold.training(recordings), found.runs / animal)
            found.folds.append(run_fold(CONFIG, recordings, fold, found.runs / animal))
    return found


@pytest.fixture(scope="module")
def document(evaluated: Evaluated, recordings: list[Recording]) -> dict:
    return json.loads(json.dumps(result(CONFIG, recordings, evaluated.folds, FACTS)))


def rows_of(document: dict) -> dict[str, dict]:
    return {row["row"]: row for row in document["tasks"]["cell_type"]["rows"]}


def test_a_tested_animal_is_in_no_training_set(evaluated: Evaluated, document: dict):
    for animal, fitted_on, fold in zip(ANIMALS, evaluated.fitted_on, document["folds"], strict=True):
        assert set(Run.open(evaluated.runs / animal).info["subjects"]) == set(ANIMALS) - {animal}
        assert fitted_on == set(ANIMALS) - {animal}
        assert (fold["test"], fold["train_animals"], fold["setting"]) == ([animal], 2, "inductive zero-shot")


def test_labels_of_the_tested_animal_change_no_prediction(evaluated: Evaluated, recordings: list[Recording]):
    kinds = recordings[0].units["cell_type"]
    mislabelled = replace(recordings[0], units=recordings[0].units | {"cell_type": np.roll(kinds, 7)})
    again = run_fold(CONFIG, [mislabelled, *recordings[1:]], Fold(ANIMALS[:1]), evaluated.runs / ANIMALS[0])
    both = np.isin(kinds, ("E", "PV")) & np.isin(np.roll(kinds, 7), ("E", "PV"))
    assert not np.array_equal(kinds[both], np.roll(kinds, 7)[both])
    for row, times in evaluated.folds[0].predicted["cell_type"].items():
        for time, before in times.items():
            after = again.predicted["cell_type"][row][time]
            chosen = [
                found.probabilities[both[CONFIG.tasks["cell_type"].labels(recording) >= 0]]
                for found, recording in ((before, recordings[0]), (after, mislabelled))
            ]
            np.testing.assert_array_equal(*chosen)


def test_rows_are_the_product_its_readouts_of_whole_recordings_and_every_predictor(document: dict):
    rows = rows_of(document)
    roles = {name: row["role"] for name, row in rows.items()}
    assert roles.pop("pool") == "shipped"
    assert roles.pop("pool, readouts of whole recordings") == "plain"
    assert roles.pop("statistics_neighbourhood") == "floor"
    assert set(roles) == set(SPIKE_SETS) - {"statistics_neighbourhood"} and set(roles.values()) == {"predictor"}
    assert "curve" in rows["pool"]["seconds"]["all"] and "confusion" in rows["pool"]["seconds"]["all"]
    assert {"members", "c", "scores"} == set(document["folds"][0]["chosen"]["cell_type"])


def test_scores_are_of_the_labelled_units_of_all_folds_together(
    evaluated: Evaluated, recordings: list[Recording], document: dict
):
    labels = [CONFIG.tasks["cell_type"].labels(recording) for recording in recordings]
    label = np.concatenate([own[own >= 0] for own in labels])
    for name, row in rows_of(document).items():
        parts = [
            times["all"]
            for fold in evaluated.folds
            for each, times in fold.predicted["cell_type"].items()
            if each.name == name
        ]
        np.testing.assert_array_equal(np.concatenate([part.label for part in parts]), label)
        top = np.concatenate([part.top for part in parts])
        score = row["seconds"]["all"]
        assert score["units"] == len(label) and set(score["per_animal"]) == set(ANIMALS)
        expected = f1_score(label, top, labels=[0, 1], average="macro", zero_division=0)
        assert score["macro_f1"] == pytest.approx(expected, abs=1e-4), name


def test_the_product_is_compared_with_the_floor_on_the_same_units(document: dict):
    rows = rows_of(document)
    for time, score in rows["pool"]["seconds"].items():
        difference = score["macro_f1"] - rows["statistics_neighbourhood"]["seconds"][time]["macro_f1"]
        assert score["over_floor"]["macro_f1"] == pytest.approx(difference, abs=2e-4)
        low, high = score["over_floor"]["interval"]
        assert low <= high
    assert all("over_floor" not in row["seconds"]["all"] for name, row in rows.items() if name != "pool")


@dataclass
class Steps:
    """A recording of steps of 4 s that keeps which of them were asked for; its only unit is known from the third on."""

    steps: int
    recording_id: str = "r"
    subject_id: str = "s"
    steps_per_window: int = 1
    asked: list[tuple[int, int]] = field(default_factory=list)

    @property
    def end_s(self) -> np.ndarray:
        return 4.0 * np.arange(1, self.steps + 1)

    def snapshot(self, first: int, last: int) -> FeatureSnapshot:
        self.asked.append((first, last))
        exposure = np.array([last], dtype=np.float32)
        return FeatureSnapshot(exposure, exposure, {}, {})


class KnowsLate:
    """A model of two classes without a prediction before the third step."""

    prior = (0.5, 0.5)

    def answer(self, snapshot: FeatureSnapshot) -> Answer:
        known = snapshot.exposure >= 3
        probabilities = np.tile(np.array([[0.3, 0.7]], np.float32), (len(known), 1))
        return Answer(probabilities, probabilities > 0, ~known, np.where(known, 0, -1))


def test_units_are_predicted_from_what_was_observed_until_then():
    source = Steps(steps=20)
    found = predict(KnowsLate(), [source], [np.array([1])])
    assert source.asked == [(0, 2), (0, 15), (0, 20)], "10 s, 60 s, all of 80 s"
    assert list(found) == ["60", "all"], "nothing is known after 10 s, and nobody was observed for 300 s"
    assert found["60"].top.tolist() == [1] and found["60"].called.tolist() == [True]


def test_a_shorter_recording_is_predicted_from_all_of_it_at_times_that_others_reach():
    short, long = Steps(steps=20), Steps(steps=75)
    found = predict(KnowsLate(), [short, long], [np.array([1]), np.array([0])])
    assert list(found) == ["60", "300", "all"], "75 steps of 4 s are 300 s"
    assert short.asked[-2:] == [(0, 20), (0, 20)] and long.asked[-2:] == [(0, 75), (0, 75)]
    assert all(len(part.label) == 2 for part in found.values()), "every time has the same units"


def test_a_recording_that_is_shorter_than_the_window_has_no_prediction_and_counts():
    found = predict(KnowsLate(), [Steps(steps=20), Steps(steps=0)], [np.array([1]), np.array([0, -1])])["all"]
    assert found.label.tolist() == [1, 0] and found.known.tolist() == [True, False]


def made_fold(animal: str, label: list[int], top: list[int]) -> FoldResult:
    """A fold that predicts these classes of three."""
    probabilities = np.eye(3, dtype=np.float32)[top]
    yes = np.ones(len(label), dtype=bool)
    found = Predicted(np.array(label), probabilities, yes, yes, np.full(len(label), animal))
    rows = {Row("pool", "shipped", ("embedding",)): {"all": found}}
    return FoldResult((animal,), 2, "inductive zero-shot", {}, {"cell_type": rows})


def test_a_class_of_one_animal_is_not_scored_and_predicting_it_is_an_error(recordings: list[Recording]):
    named = [np.array(["E"] * 30 + ["PV", "VIP"]), np.array(["E"] * 31 + ["PV"]), np.array(["E"] * 32)]
    relabelled = [replace(one, units={"cell_type": kind}) for one, kind in zip(recordings, named, strict=True)]
    settings = {"column": "cell_type", "classes": {c: [c] for c in ("E", "PV", "VIP")}, "min_spikes": 0}
    config = CONFIG.parse(CONFIG.model_dump(exclude_none=True) | {"tasks": {"cell_type": settings}})
    folds = [made_fold(ANIMALS[0], [0, 1, 2], [0, 2, 0]), made_fold(ANIMALS[1], [0, 1], [0, 1])]
    task = result(config, relabelled, folds, FACTS)["tasks"]["cell_type"]
    assert task["scored"] == ["E", "PV"]
    (row,) = task["rows"]
    assert row["seconds"]["all"]["units"] == 4
    assert row["seconds"]["all"]["macro_f1"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-4)


def test_what_scores_may_be_called_depends_on_what_the_encoder_saw(
    evaluated: Evaluated, recordings: list[Recording], tmp_path: Path
):
    run = evaluated.runs / ANIMALS[0]
    assert nested.setting_of_run(run, Fold(ANIMALS[:1])) == "inductive zero-shot"
    assert nested.setting_of_run(run, Fold(ANIMALS[:2])) == "transductive zero-shot"
    assert nested.setting_of_run(run, UnitFold((), 0, 2)) == "transductive"
    imported = tmp_path / "imported"
    imported.mkdir()
    for name in ("config.json", "checkpoint.pt", "run.json"):
        (imported / name).write_bytes((run / name).read_bytes())
    info = json.loads((imported / "run.json").read_text()) | {"subjects": [], "imported": {"file": "weights.pt"}}
    (imported / "run.json").write_text(json.dumps(info))
    assert nested.setting_of_run(imported, Fold(ANIMALS[:1])) == "zero-shot, encoder animals unknown"


def test_units_of_the_same_populations_are_left_out_by_unit(evaluated: Evaluated, recordings: list[Recording]):
    fold = UnitFold((), 0, 2)
    document = result(CONFIG, recordings, [run_fold(CONFIG, recordings, fold, evaluated.runs / ANIMALS[0])], FACTS)
    tested = [(CONFIG.tasks["cell_type"].labels(one) >= 0) & fold.tests_on(one) for one in recordings]
    assert rows_of(document)["pool"]["seconds"]["all"]["units"] == np.concatenate(tested).sum()
    assert document["folds"][0]["setting"] == "transductive"


def test_an_encoder_of_other_settings_or_recordings_is_not_mistaken(evaluated: Evaluated, recordings: list[Recording]):
    run = evaluated.runs / ANIMALS[0]
    checkpoint = (run / "checkpoint.pt").read_bytes()
    pretrain_once(CONFIG, recordings[1:], run)
    assert (run / "checkpoint.pt").read_bytes() == checkpoint, "a finished training is not repeated"
    with pytest.raises(EvaluationError, match="trained with other settings or recordings"):
        pretrain_once(CONFIG, recordings[:2], run)
    with pytest.raises(EvaluationError, match="trained with other settings or recordings"):
        pretrain_once(CONFIG.with_training(steps=2), recordings[1:], run)


def test_an_encoder_serves_a_fold_when_it_leaves_out_all_of_its_animals():
    pairs = (Fold(("a", "b")), Fold(("c", "d")))
    assert covering(Fold(("c",)), pairs) == pairs[1]
    with pytest.raises(EvaluationError, match=r"fold b\+c: no fold of --encoders leaves out all of its animals"):
        covering(Fold(("b", "c")), pairs)


def evaluate(recordings: Sequence[Recording], folder: Path, *options: str) -> dict:
    """The result file of `nuclr-train evaluate` with the tiny config on these recordings."""
    (folder / "known").mkdir(exist_ok=True)
    for recording in recordings:
        recording.save(folder / "known" / f"{recording.recording_id}.npz")
    config, out = folder / "tiny.toml", folder / "results" / "tiny.json"
    config.write_text(CONFIG_TOML)
    arguments = [str(config), "--recordings", str(folder / "known"), "--out", str(out), "--runs", str(folder / "runs")]
    done = CliRunner().invoke(app, ["evaluate", *arguments, *options, "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    document = json.loads(out.read_text(encoding="utf-8"))
    assert json.loads(done.stdout.splitlines()[-1]) == document
    return document


def test_pairs_of_encoders_serve_folds_of_single_animals(recordings: list[Recording], tmp_path: Path):
    for name, held_out in (("single", [[ANIMALS[0]], [ANIMALS[1]]]), ("pairs", [list(ANIMALS[:2])])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"name": name, "what": "", "held_out": held_out}))
    options = ["--split", str(tmp_path / "single.json"), "--encoders", str(tmp_path / "pairs.json")]
    document = evaluate(recordings, tmp_path, *options)
    assert [fold["test"] for fold in document["folds"]] == [[animal] for animal in ANIMALS[:2]]
    assert {fold["setting"] for fold in document["folds"]} == {"inductive zero-shot"}
    assert {fold["train_animals"] for fold in document["folds"]} == {2}, "readouts see every other animal"
    trained_on = {run.name: Run.open(run).info["subjects"] for run in (tmp_path / "runs").iterdir()}
    assert trained_on == {"fold_sim_000001+sim_000002_seed0": [ANIMALS[2]]}
    assert document["format"] == 3 and "animals left out in turn" in document["protocol"]


def test_fresh_animals_are_tested_by_a_training_on_all_others(recordings: list[Recording], tmp_path: Path):
    (tmp_path / "fresh").mkdir()
    for seed in (5, 6):
        fresh = simulate(seed, units=32, duration_s=20.0)
        fresh.save(tmp_path / "fresh" / f"{fresh.recording_id}.npz")
    document = evaluate(recordings[:2], tmp_path, "--test", str(tmp_path / "fresh"))
    (fold,) = document["folds"]
    assert (fold["test"], fold["train_animals"]) == (["sim_000005", "sim_000006"], 2)
    (run,) = (tmp_path / "runs").iterdir()
    assert Run.open(run).info["subjects"] == list(ANIMALS[:2])
    assert set(rows_of(document)["pool"]["seconds"]["all"]["per_animal"]) == {"sim_000005", "sim_000006"}
    assert "fresh animals, never seen" in document["protocol"]
