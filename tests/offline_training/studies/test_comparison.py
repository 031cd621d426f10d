"""Comparison methods: each learns an obvious difference, sees no label of a tested animal, and names its costs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nuclr_stream.recordings.recording import Recording
from offline_training.commands.cli import app
from offline_training.config import TrainConfig
from offline_training.data.splits import Fold, UnitFold
from offline_training.evaluation.nested import EvaluationError
from offline_training.studies.budget import Budget, together
from offline_training.studies.comparison import METHODS, Method, compare, comparison_result, joined_with
from offline_training.studies.neuprint import NeuprintSettings

UNITS = 20
SECONDS = 60
RATE_HZ = 1000
SETTINGS = {
    "name": "tiny",
    "kind": "made-up animals",
    "window": {"hop_s": 10.0},
    "training": {"steps": 1, "precision": "fp32"},
    "tasks": {
        "kind": {"column": "kind", "classes": {"regular": ["regular"], "bursty": ["bursty"]}, "min_spikes": 5},
        "width": {"column": "peak_to_trough_ms", "classes": {"narrow": [0.0, 0.35], "broad": [0.45, 9.0]}},
    },
}
CONFIG = TrainConfig.parse(SETTINGS)
SHORT: dict[Method, float] = {"lolcat": 0.1, "nemo": 0.1, "neuprint": 0.002}
SPIKES = [method for method in METHODS if method != "trace_statistics"]
ROWS = {method: {"kind": {method}, "width": {method}} for method in SPIKES}
ROWS["nemo"] = {"kind": {"nemo", "nemo_acg"}, "width": {"nemo_acg"}}
FOLDS = (Fold(("animal1",)), Fold(("animal2",)))
FACTS = {
    **{"name": "tiny", "kind": "made-up animals", "seed": 0, "window_s": 10.0, "machine": "m", "versions": {}},
    "command": "nuclr-train compare",
}
SMALL = NeuprintSettings(
    vector=8,
    width=16,
    heads=2,
    feed_forward=16,
    bins=50,
    held_out=10,
    batch=72,
    steps=200,
    vector_rate=3e-2,
    network_rate=1e-2,
)
"""NeuPRINT of its own size takes long to learn anything."""


def animal(number: int) -> Recording:
    """Half the units fire regularly at 5 Hz with a narrow waveform, above the others, which fire in bursts of five."""
    rng = np.random.default_rng(number)
    trains = [_regular(rng) if unit % 2 else _bursty(rng) for unit in range(UNITS)]
    samples = np.concatenate(trains)
    rows = np.repeat(np.arange(UNITS, dtype=np.int32), [len(train) for train in trains])
    order = np.argsort(samples, kind="stable")
    regular = np.arange(UNITS) % 2 == 1
    at_ms = np.arange(-10, 30) / 30
    waves = [-np.exp(-((at_ms / w) ** 2)) + 0.4 * np.exp(-(((at_ms - 3 * w) / w) ** 2)) for w in (0.2, 0.1)]
    return Recording(
        recording_id=f"r{number}",
        subject_id=f"animal{number}",
        sample_rate=Fraction(RATE_HZ),
        num_samples=SECONDS * RATE_HZ,
        spike_samples=samples[order],
        spike_units=rows[order],
        unit_ids=np.array([f"r{number}:{unit}" for unit in range(UNITS)]),
        units={
            "kind": np.where(regular, "regular", "bursty"),
            "peak_to_trough_ms": np.where(regular, 0.3, 0.6).astype(np.float32),
            "depth_um": np.where(regular, 1000.0, 0.0) + 10.0 * np.arange(UNITS),
            "waveform_uv": 100 * np.stack([waves[int(one)] for one in regular]) + rng.normal(size=(UNITS, 40)),
        },
    )


def _regular(rng: np.random.Generator) -> np.ndarray:
    times = np.arange(0.1, SECONDS - 0.1, 0.2)
    return ((times + rng.uniform(-0.02, 0.02, len(times))) * RATE_HZ).astype(np.int64)


def _bursty(rng: np.random.Generator) -> np.ndarray:
    begins = np.sort(rng.choice(SECONDS - 1, SECONDS - 2, replace=False)) + rng.random(SECONDS - 2) * 0.9
    return ((begins[:, None] + 0.01 * np.arange(5)).ravel() * RATE_HZ).astype(np.int64)


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [animal(number) for number in (1, 2, 3)]


def run(method: Method, recordings: list[Recording], folds: tuple[Fold, ...] = FOLDS) -> dict:
    """The result of a method after a training that is short, so that tests are."""
    found = compare(method, CONFIG, recordings, folds, length=SHORT.get(method, 1.0))
    return comparison_result(CONFIG, recordings, found, FACTS)


@pytest.fixture(scope="module")
def results(recordings: list[Recording]) -> dict[Method, dict]:
    """Every method, with two of three animals tested in turn (one for the methods that take long)."""
    return {method: run(method, recordings, FOLDS[:1] if method in ("lolcat", "nemo") else FOLDS) for method in SPIKES}


def rows(result: dict, task: str) -> dict[str, dict]:
    return {row["row"]: row for row in result["tasks"][task]["rows"]}


@pytest.mark.parametrize("method", [method for method in SPIKES if method != "neuprint"])
def test_an_obvious_difference_is_learnt(method: Method, results: dict[Method, dict]):
    assert {task: set(rows(results[method], task)) for task in CONFIG.tasks} == ROWS[method]
    for task in CONFIG.tasks:
        for row in rows(results[method], task).values():
            assert row["seconds"]["all"]["balanced_accuracy"] >= 0.9, row["row"]


def test_vectors_that_predict_activity_tell_the_classes_apart(
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(NeuprintSettings, "times_as_long", lambda self, factor: SMALL)
    result = run("neuprint", recordings)
    assert rows(result, "kind")["neuprint"]["seconds"]["all"]["balanced_accuracy"] >= 0.9


@pytest.mark.parametrize("method", SPIKES)
def test_every_row_has_role_budget_and_setting(method: Method, results: dict[Method, dict]):
    for task in CONFIG.tasks:
        for name, row in rows(results[method], task).items():
            assert row["role"] == "comparison" and row["features"] == [name]
            assert set(row["budget"]) == {"steps", "cpu_s", "parameters", "how"}
            assert (row["budget"]["steps"] > 0) == (method in SHORT)
            assert row["setting"] == ("transductive zero-shot" if method == "neuprint" else "inductive zero-shot")


def test_scores_are_those_of_all_units_of_the_tested_animals(results: dict[Method, dict]):
    found = rows(results["rate"], "kind")["rate"]["seconds"]["all"]
    assert found["units"] == 2 * UNITS and set(found["per_animal"]) == {"animal1", "animal2"}
    assert [fold["test"] for fold in results["rate"]["folds"]] == [["animal1"], ["animal2"]]
    assert {fold["train_animals"] for fold in results["rate"]["folds"]} == {2}


def test_a_waveform_is_no_input_where_it_is_the_label(results: dict[Method, dict]):
    assert set(rows(results["nemo"], "width")) == {"nemo_acg"}


@pytest.mark.parametrize("method", SPIKES)
def test_labels_of_the_tested_animal_change_no_prediction(method: Method, recordings: list[Recording]):
    shuffled = np.random.default_rng(0).permutation(UNITS)
    wrong = {name: recordings[0].units[name][shuffled] for name in ("kind", "peak_to_trough_ms")}
    mislabelled = replace(recordings[0], units=recordings[0].units | wrong)
    length = SHORT.get(method, 1.0) / 4
    before, after = (
        compare(method, CONFIG, [first, *recordings[1:]], FOLDS[:1], length=length)[0]
        for first in (recordings[0], mislabelled)
    )
    for task, by_row in before.predicted.items():
        for row, times in by_row.items():
            again = after.predicted[task][row]["all"]
            np.testing.assert_array_equal(times["all"].probabilities, again.probabilities)
            assert not np.array_equal(times["all"].label, again.label)


def test_units_of_the_same_populations_are_transductive(recordings: list[Recording]):
    folds = tuple(UnitFold((), part, 2) for part in range(2))
    result = run("rate", recordings, folds)
    row = rows(result, "kind")["rate"]
    assert row["setting"] == "transductive" and row["seconds"]["all"]["units"] == 3 * UNITS


def test_a_vector_is_known_at_the_end_of_a_recording_only(results: dict[Method, dict]):
    assert set(rows(results["neuprint"], "kind")["neuprint"]["seconds"]) == {"all"}
    assert set(rows(results["lolcat"], "kind")["lolcat"]["seconds"]) == {"10", "60", "all"}


def test_an_unknown_method_and_the_other_kind_of_input_are_rejected(recordings: list[Recording]):
    with pytest.raises(EvaluationError, match="method 'c4': must be one of rate, isi, isi_aggregated, lolcat"):
        compare("c4", CONFIG, recordings, FOLDS)
    traces = TrainConfig.parse(SETTINGS | {"window": {"input_kind": "traces"}})
    with pytest.raises(EvaluationError, match="tiny: holds traces, but nemo reads spikes"):
        compare("nemo", traces, recordings, FOLDS)
    with pytest.raises(EvaluationError, match="tiny: holds spikes, but trace_statistics reads traces"):
        compare("trace_statistics", CONFIG, recordings, FOLDS)


def test_rows_join_those_of_other_methods_and_replace_their_own(results: dict[Method, dict], tmp_path: Path):
    path = tmp_path / "comparison.json"
    isi, neuprint = (json.loads(json.dumps(results[method])) for method in ("isi", "neuprint"))
    path.write_text(json.dumps(joined_with(isi, path)))
    both = joined_with(neuprint, path)
    assert list(rows(both, "kind")) == list(rows(both, "width")) == ["isi", "neuprint"]
    assert rows(both, "kind")["isi"] == rows(results["isi"], "kind")["isi"]
    assert [set(fold["chosen"]["kind"]) for fold in both["folds"]] == [{"isi", "neuprint"}] * 2
    assert both["folds"][0]["setting"] == "inductive zero-shot; transductive zero-shot"
    path.write_text(json.dumps(both))
    again = json.loads(json.dumps(results["isi"]))
    rows(again, "kind")["isi"]["command"] = "nuclr-train compare again"
    once_more = joined_with(again, path)
    assert list(rows(once_more, "kind")) == ["neuprint", "isi"]
    assert rows(once_more, "kind")["isi"]["command"] == "nuclr-train compare again"
    assert once_more["command"] == "nuclr-train compare && nuclr-train compare again"


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("folds", lambda d: d["folds"].pop()),
        ("recordings", lambda d: d["recordings"].pop()),
        ("seed", lambda d: d.update(seed=1)),
        ("versions", lambda d: d.update(versions={"numpy": "0"})),
        ("classes", lambda d: d["tasks"]["kind"]["classes"].reverse()),
        ("scored classes", lambda d: d["tasks"]["kind"]["scored"].pop()),
    ],
)
def test_rows_that_do_not_fit_are_not_joined(what: str, other, results: dict[Method, dict], tmp_path: Path):
    path = tmp_path / "comparison.json"
    there = json.loads(json.dumps(results["isi"]))
    other(there)
    path.write_text(json.dumps(there))
    with pytest.raises(EvaluationError, match=rf"comparison\.json: {what} .* here; rows of one file have to agree"):
        joined_with(json.loads(json.dumps(results["rate"])), path)


def test_a_training_that_serves_two_folds_is_counted_once():
    one, other = Budget(10, 1.5, 7, "first"), Budget(20, 2.5, 7, "second")
    assert together([one, one]) == one
    assert together([one, other]) == Budget(20, 4.0, 7, "first")


def test_one_command_adds_its_rows_to_the_file(
    recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for recording in recordings:
        recording.save(tmp_path / f"{recording.recording_id}.npz")
    config = tmp_path / "tiny.toml"
    config.write_text(
        'name = "tiny"\n[window]\nhop_s = 10.0\n[training]\nsteps = 1\nprecision = "fp32"\n'
        '[tasks.kind]\ncolumn = "kind"\nmin_spikes = 5\nclasses = { regular = ["regular"], bursty = ["bursty"] }\n'
    )
    out = tmp_path / "results" / "tiny" / "comparison.json"
    for method, length in (("depth", "1"), ("lolcat", "0.02")):
        arguments = ["compare", method, str(config), "--recordings", str(tmp_path), "--out", str(out)]
        arguments += ["--split", "held-out=animal1", "--length", length]
        monkeypatch.setattr(sys, "argv", ["nuclr-train", *arguments])
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
    assert "lolcat" in done.output and "macro-F1" in done.output
    document = json.loads(out.read_text(encoding="utf-8"))
    found = rows(document, "kind")
    assert list(found) == ["depth", "lolcat"]
    assert found["depth"]["seconds"]["all"]["macro_f1"] == 1.0
    assert found["lolcat"]["budget"]["steps"] <= 8, "--length shortens the training"
    assert document["folds"][0]["test"] == ["animal1"]
    assert document["command"].count("nuclr-train compare") == 2
