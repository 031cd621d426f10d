"""A checkpoint that validation animals choose: by labels, recorded everywhere, and never by test animals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.recording import Recording
from offline_training.config import TrainConfig
from offline_training.data.labels import LabelError
from offline_training.data.splits import Fold
from offline_training.evaluation.nested import EvaluationError, run_fold
from offline_training.model.encoder import Encoder
from offline_training.pretraining.checkpoint_choice import Score, without_validation
from offline_training.pretraining.pretrain import pretrain
from offline_training.pretraining.runs import Run
from offline_training.pretraining.steps import build_encoder
from offline_training.readouts.validation import Validation, validation_score
from tests.offline_training.tiny import recording_of_steps

SIZES = {"dim": 16, "heads": 2, "head_dim": 8, "ffn_hidden": 16, "temporal_blocks": 1, "spatiotemporal_blocks": 1}
SUBJECTS = ("a", "b", "c")


def config_of(*subjects: str, every_steps: int | None = None, **training: object) -> TrainConfig:
    chosen = {"subjects": subjects, **({"every_steps": every_steps} if every_steps else {})}
    return TrainConfig.parse(
        {
            "name": "chosen",
            "window": {"bins_per_second": 10, "bins_per_patch": 5, "patches": 4},
            "encoder": SIZES,
            "training": {"steps": 6, "batch_windows": 4, "warmup_steps": 1, "precision": "fp32", **training},
            **({"selection": chosen} if subjects else {}),
            "tasks": {"kind": {"column": "kind", "classes": {"slow": ["slow"], "fast": ["fast"]}, "min_spikes": 0}},
        }
    )


def recording_of(subject: str, labelled: bool = True) -> Recording:
    """24 units, every other one fires five times as often."""
    rng = np.random.default_rng(ord(subject))
    fast = np.arange(24) % 2 == 1
    fired = rng.random((6000, 24)) < np.where(fast, 0.05, 0.01)
    kinds = np.where(fast, "fast", "slow") if labelled else np.full(24, "unknown")
    return recording_of_steps(f"{subject}1", subject, fired, units={"kind": kinds})


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [recording_of(subject) for subject in SUBJECTS]


def checkpoint(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    return torch.load(run / "checkpoint.pt", weights_only=True)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_best_step_is_kept_and_recorded_while_training_goes_on_as_without(
    recordings: list[Recording], tmp_path: Path
) -> None:
    scores = iter([0.2, 0.9, 0.9])
    seen: list[dict[str, torch.Tensor]] = []

    def score(encoder: Encoder) -> float:
        seen.append({name: value.clone() for name, value in encoder.state_dict().items()})
        return next(scores)

    pretrain(config_of("b", every_steps=2), recordings, tmp_path / "chosen", score=score)
    chosen = Run.open(tmp_path / "chosen")
    assert chosen.info["selection"] == {
        **{"by": "validation_macro_f1", "subjects": ["b"], "step": 4, "macro_f1": 0.9},
        "scores": [[2, 0.2], [4, 0.9], [6, 0.9]],
    }
    assert same(seen[1], chosen.encoder.state_dict()) and not same(seen[1], checkpoint(tmp_path / "chosen")["encoder"])
    pretrain(config_of(), [recordings[0], recordings[2]], tmp_path / "last")
    assert same(checkpoint(tmp_path / "last")["encoder"], checkpoint(tmp_path / "chosen")["encoder"])
    assert Run.open(tmp_path / "last").info["selection"] == {"by": "last"}


def test_a_resumed_training_chooses_what_the_uninterrupted_one_chooses(
    recordings: list[Recording], tmp_path: Path
) -> None:
    config = config_of("b", every_steps=2)
    score = validation_score(config, recordings)
    pretrain(config, recordings, tmp_path / "whole", score=score)
    pretrain(config, recordings, tmp_path / "halves", score=score, stop_after=3)
    pretrain(config, recordings, tmp_path / "halves", score=score, resume=True)
    whole, halves = Run.open(tmp_path / "whole"), Run.open(tmp_path / "halves")
    assert whole.info["selection"] == halves.info["selection"]
    assert same(whole.encoder.state_dict(), halves.encoder.state_dict())
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["subjects"] == ["a", "b", "c"]
    with pytest.raises(EvaluationError, match="the labels of b chose its checkpoint; test other animals"):
        run_fold(config, recordings, Fold(("b",)), tmp_path / "whole")


def test_an_epoch_passes_between_scores_unless_steps_are_given(recordings: list[Recording], tmp_path: Path) -> None:
    pretrain(config_of("b", steps=None, epochs=2), recordings, tmp_path / "run", score=lambda _: 0.5)
    info = Run.open(tmp_path / "run").info
    per_epoch = info["steps_per_epoch"]
    assert [step for step, _ in info["selection"]["scores"]] == [per_epoch, 2 * per_epoch]


def test_validation_animals_are_scored_by_readouts_of_the_others(recordings: list[Recording]) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(config_of("b"))
    state = torch.get_rng_state()
    assert Validation(config_of("b"), recordings).macro_f1(encoder) > 0.9  # rates tell the classes apart
    assert torch.equal(torch.get_rng_state(), state)
    swapped = recording_of("b")
    swapped.units["kind"][:] = np.where(swapped.units["kind"] == "fast", "slow", "fast")
    upside_down = [recordings[0], swapped, recordings[2]]
    assert Validation(config_of("b"), upside_down).macro_f1(encoder) < 0.1


def test_validation_animals_are_not_trained_on(recordings: list[Recording]) -> None:
    assert [r.subject_id for r in without_validation(config_of("b"), recordings)] == ["a", "c"]
    assert without_validation(config_of(), recordings) == recordings


def test_an_animal_that_is_held_out_for_testing_cannot_choose(recordings: list[Recording], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recording of b among those to train on.*Choose from a, c"):
        pretrain(config_of("b"), [recordings[0], recordings[2]], tmp_path / "run", score=lambda _: 0.5)
    with pytest.raises(ConfigError, match="a, b, c are all animals"):
        pretrain(config_of("a", "b", "c"), recordings, tmp_path / "run", score=lambda _: 0.5)


@pytest.mark.parametrize(("subjects", "score"), [(("b",), None), ((), lambda _: 0.5)])
def test_a_config_that_selects_and_what_scores_belong_together(
    recordings: list[Recording], tmp_path: Path, subjects: tuple[str, ...], score: Score | None
) -> None:
    with pytest.raises(ConfigError, match=r"\[selection\] and what scores a checkpoint belong together"):
        pretrain(config_of(*subjects), recordings, tmp_path / "run", score=score)
    assert not (tmp_path / "run").exists()
    assert validation_score(config_of(), recordings) is None


def test_labels_are_needed_on_both_sides(recordings: list[Recording]) -> None:
    with pytest.raises(ConfigError, match="none has a labelled unit for task kind"):
        Validation(config_of("b"), [recordings[0], recording_of("b", labelled=False)])
    with pytest.raises(LabelError):
        Validation(config_of("b"), [recording_of("a", labelled=False), recordings[1]])
    with pytest.raises(ConfigError, match="needs tasks"):
        TrainConfig.parse({**config_of("b").model_dump(exclude_none=True), "tasks": {}})
