"""Arms: one thing is changed in the pretraining, everything else stays; and the commands that run them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.recording import Recording
from offline_training.commands.cli import app
from offline_training.evaluation.variants import ablations, scaling
from offline_training.pretraining.pretrain import load_run
from offline_training.simulation.animals import simulate
from offline_training.studies.label_efficiency import SHARES, drawn
from tests.offline_training.tiny import CONFIG, CONFIG_TOML


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [simulate(seed, units=32, duration_s=20.0) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def place(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, the recordings, and an evaluation of one fold."""
    folder = tmp_path_factory.mktemp("arms")
    (folder / "recordings").mkdir()
    for recording in recordings:
        recording.save(folder / "recordings" / f"{recording.recording_id}.npz")
    (folder / "tiny.toml").write_text(CONFIG_TOML)
    run(folder, "evaluate")
    return folder


def run(folder: Path, command: str, *options: str) -> None:
    place = ["--recordings", folder / "recordings", "--out", folder / "results", "--runs", folder / "runs"]
    how = ["--split", "held-out=sim_000003", "--hop-s", "2", *options]
    done = CliRunner().invoke(app, [command, str(folder / "tiny.toml"), *map(str, place), *how], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_an_ablation_changes_one_section():
    whole = CONFIG.model_dump()
    for name, section in {
        "no_spatial": "encoder",
        "no_unit_dropout": "training",
        "published_loss": "loss",
        "vicreg": "loss",
    }.items():
        changed = ablations(CONFIG)[name].config.model_dump()
        assert {key for key in whole if whole[key] != changed[key]} == {section}


def test_without_population_layers_there_are_as_many_blocks():
    sizes = ablations(CONFIG)["no_spatial"].config.encoder
    assert (sizes.temporal_blocks, sizes.spatiotemporal_blocks) == (3, 0)


def test_fewer_animals_are_a_subset_of_more(recordings: list[Recording]):
    arms = scaling(CONFIG, [1, 2, 3])
    chosen = [{r.subject_id for r in arm.recordings(recordings, 0)} for arm in arms.values()]
    assert [len(one) for one in chosen] == [1, 2, 3]
    assert chosen[0] < chosen[1] < chosen[2]
    with pytest.raises(ConfigError, match="arm animals4: 4 animals to pretrain on, the fold has 3"):
        scaling(CONFIG, [4])["animals4"].recordings(recordings, 0)


def test_ablations_stand_beside_the_whole_encoder(place: Path):
    run(place, "ablate", "--only", "no_spatial", "--steps", "1")
    _, config, info = load_run(place / "runs" / "fold_sim_000003_no_spatial_seed0")
    assert (config.encoder.spatiotemporal_blocks, info["step"]) == (0, 1)
    found = json.loads((place / "results" / "summary.json").read_text())["tasks"]["cell_type"]
    assert {"embedding", "embedding_no_spatial", "rate"} <= set(found["features"])
    assert found["features"]["embedding_no_spatial"]["encoder"]["steps"] == [1]
    compared = {(one["row"], one["minus"]) for one in found["differences"]}
    assert ("embedding_no_spatial", "embedding") in compared


def test_scaling_pretrains_on_fewer_and_fits_readouts_on_all(place: Path):
    run(place, "scale", "--animals", "1", "--steps", "1")
    assert len(load_run(place / "runs" / "fold_sim_000003_animals1_seed0")[2]["subjects"]) == 1
    result = json.loads((place / "results" / "fold_sim_000003_animals1_seed0.json").read_text())
    assert result["train_subjects"] == ["sim_000001", "sim_000002"]
    assert set(result["tasks"]["cell_type"]["features"]) == {"embedding_animals1"}


def test_an_unknown_ablation_is_refused(place: Path):
    command = ["ablate", str(place / "tiny.toml"), "--recordings", "r", "--split", "s", "--out", "o", "--runs", "x"]
    done = CliRunner().invoke(app, [*command, "--only", "no_brain"])
    assert done.exit_code == 2
    assert "no_brain" in done.output


@pytest.mark.parametrize("share", SHARES)
def test_a_share_of_labels_is_drawn_class_by_class(recordings: list[Recording], share: float):
    labels = [CONFIG.tasks["cell_type"].labels(recording) for recording in recordings]
    kept = drawn(labels, recordings, share=share, draw=0)
    more = drawn(labels, recordings, share=min(1.0, 3 * share), draw=0)
    for c in (0, 1):
        units = sum(int((label == c).sum()) for label in labels)
        assert sum(int((label == c).sum()) for label in kept) == max(1, -(-units * share // 1))
    for few, many, every in zip(kept, more, labels, strict=True):
        assert (few[few >= 0] == every[few >= 0]).all()
        assert (many[few >= 0] == few[few >= 0]).all()


def test_other_draws_are_other_units(recordings: list[Recording]):
    labels = [CONFIG.tasks["cell_type"].labels(recording) for recording in recordings]
    first, second = (drawn(labels, recordings, share=0.3, draw=draw) for draw in (0, 1))
    assert any((a != b).any() for a, b in zip(first, second, strict=True))


def test_all_labels_score_as_the_evaluation_does(place: Path):
    run(place, "label-efficiency", "--draws", "2")
    found = json.loads((place / "results" / "label_efficiency.json").read_text())
    assert (found["setting"], found["seeds"], found["draws"]) == ("inductive zero-shot", [0], 2)
    summary = json.loads((place / "results" / "summary.json").read_text())["tasks"]["cell_type"]["features"]
    for feature in ("embedding", "isi", "statistics"):
        points = found["tasks"]["cell_type"]["features"][feature]
        assert [len(points[f"{share:g}"]["macro_f1"]) for share in SHARES] == [2, 2, 2, 2, 1]
        assert points["1"]["macro_f1"] == [summary[feature]["mean"]["all"]["macro_f1"]]
