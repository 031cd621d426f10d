"""What a run directory gives back: settings and facts at once, the encoder when it is asked for, and damage by name."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from nuclr_stream.recordings.recording import Recording
from offline_training.config import TrainConfig
from offline_training.pretraining.pretrain import pretrain
from offline_training.pretraining.runs import Run, RunError

SIZES = {"dim": 8, "heads": 1, "head_dim": 8, "ffn_hidden": 8, "temporal_blocks": 1, "spatiotemporal_blocks": 1}
CONFIG = TrainConfig.parse(
    {
        "name": "kept",
        "window": {"bins_per_second": 10, "bins_per_patch": 5, "patches": 4},
        "encoder": SIZES,
        "training": {"steps": 2, "batch_windows": 2},
    }
)


@pytest.fixture(scope="module")
def recording() -> Recording:
    samples = np.sort(np.random.default_rng(0).integers(0, 60_000, 3000))
    return Recording(
        recording_id="r",
        subject_id="s",
        sample_rate=Fraction(1000),
        num_samples=60_000,
        spike_samples=samples,
        spike_units=(np.arange(3000) % 20).astype(np.int32),
        unit_ids=np.array([f"r:{i}" for i in range(20)]),
    )


@pytest.fixture
def run_dir(recording: Recording, tmp_path: Path) -> Path:
    return pretrain(CONFIG, [recording], tmp_path / "run")


def test_facts_are_there_without_the_checkpoint_which_is_read_once(run_dir: Path) -> None:
    run = Run.open(run_dir)
    assert (run.path, run.config, run.subjects, run.recordings) == (run_dir, CONFIG, ("s",), ("r",))
    assert run.finished and run.imported is None and run.info["steps"] == 2
    encoder = run.encoder
    (run_dir / "checkpoint.pt").unlink()
    assert run.encoder is encoder and not encoder.training
    assert Run.open(run_dir).subjects == ("s",)
    with pytest.raises(RunError, match=r"checkpoint\.pt: not a readable checkpoint"):
        _ = Run.open(run_dir).encoder


def test_a_run_is_of_its_settings_and_recordings_only(run_dir: Path, recording: Recording) -> None:
    run = Run.open(run_dir)
    assert run.is_of(CONFIG, [recording])
    assert not run.is_of(CONFIG.with_training(seed=1), [recording])
    assert not run.is_of(CONFIG, [recording, recording])


def test_weights_of_other_sizes_than_the_settings_say_are_an_error_on_purpose(run_dir: Path) -> None:
    settings = json.loads((run_dir / "config.json").read_text())
    settings["encoder"]["ffn_hidden"] = 16
    (run_dir / "config.json").write_text(json.dumps(settings))
    with pytest.raises(RunError, match=r"the weights are not those of an encoder of config\.json"):
        _ = Run.open(run_dir).encoder


@pytest.mark.parametrize("name", ["config.json", "run.json"])
def test_what_is_no_run_is_named_with_the_file_that_it_lacks(run_dir: Path, name: str) -> None:
    (run_dir / name).unlink()
    with pytest.raises(RunError, match=rf"{name}: not readable .* is this the --out of `nuclr-train pretrain`"):
        Run.open(run_dir)


def test_the_three_parts_are_those_of_the_run(run_dir: Path) -> None:
    run = Run.open(run_dir)
    encoder, config, info = run.encoder, run.config, run.info
    run = Run.open(run_dir)
    assert (config, info) == (run.config, run.info)
    assert all(torch.equal(value, run.encoder.state_dict()[name]) for name, value in encoder.state_dict().items())
