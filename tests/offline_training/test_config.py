"""What a training config promises: nothing is guessed, every shipped file is valid, labels mean what it says."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.recording import Recording
from offline_training.config import UNLABELLED, EncoderSizes, TaskSettings, TrainConfig

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("pretrain_*.toml"))
SMALLEST = {"name": "small", "training": {"steps": 1}}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid_and_survives_its_own_json(path: Path) -> None:
    config = TrainConfig.load(path)
    assert f"pretrain_{config.name}" == path.stem
    assert TrainConfig.parse(config.model_dump(mode="json", exclude_none=True)) == config


def test_the_defaults_are_the_published_window_and_rules() -> None:
    config = TrainConfig.parse(SMALLEST)
    assert (config.window.spec.bins, config.window.spec.window_s, config.rules.rules.min_population) == (500, 10.0, 11)


def test_the_calcium_window_is_exactly_128_frames() -> None:
    spec = TrainConfig.load(next(path for path in CONFIGS if "paper_calcium" in path.stem)).window.spec
    assert (spec.bins, spec.hop_bins, spec.bins_per_second) == (128, 128, Fraction(100000, 23344))


@pytest.mark.parametrize(
    ("section", "key", "nearest"),
    [
        ("training", "peek_lr", "peak_lr"),
        ("window", "bins_per_sec", "bins_per_second"),
        ("loss", "temprature", "temperature"),
    ],
)
def test_an_unknown_key_is_rejected_with_the_nearest_known_one(section: str, key: str, nearest: str) -> None:
    values = {"name": "small", "training": {"steps": 1}}
    values[section] = {**values.get(section, {}), key: 1}
    with pytest.raises(ConfigError, match=f"{section}: unknown key '{key}'; the nearest known key is '{nearest}'"):
        TrainConfig.parse(values)


def test_an_unknown_section_and_an_unknown_task_key_are_rejected() -> None:
    with pytest.raises(ConfigError, match="unknown key 'trainnig'; the nearest known key is 'training'"):
        TrainConfig.parse({"name": "small", "trainnig": {}})
    with pytest.raises(ConfigError, match=r"tasks\.area: unknown key 'colum'; the nearest known key is 'column'"):
        TrainConfig.parse(SMALLEST | {"tasks": {"area": {"colum": "x", "classes": {"a": ["1"], "b": ["2"]}}}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {}}, "exactly one of steps and epochs"),
        ({"training": {"steps": 1, "epochs": 1}}, "exactly one of steps and epochs"),
        ({"training": {"steps": 1, "unit_keep": [0.9, 0.5]}}, "ascending range"),
        ({"training": {"steps": 1, "max_units_per_view": 10}}, "max_units_per_view = 10"),
        ({"training": {"steps": 1, "peak_lr": -1}}, r"training\.peak_lr = -1"),
        ({"window": {"hop_s": 0.33}}, "whole number of bins"),
        ({"window": {"bins_per_second": "1/0"}}, "not a finite number"),
        ({"encoder": {"head_dim": 15}}, r"^config: encoder\.head_dim = 15: must be even"),
        ({"encoder": {"dim": "wide"}}, r"encoder\.dim = 'wide'"),
        ({"encoder": {"hidden": 8}}, "encoder: unknown key 'hidden'; the nearest known key is 'ffn_hidden'"),
        ({"loss": {"kind": "magic"}}, r"loss\.kind = 'magic'"),
    ],
)
def test_values_that_cannot_be_meant_are_rejected_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.parse(SMALLEST | values)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = ")
    with pytest.raises(ConfigError, match=r"broken\.toml: not a readable TOML file"):
        TrainConfig.load(path)
    path.write_text('name = "x"\n[training]\nstep = 1\n')
    with pytest.raises(ConfigError, match=r"broken\.toml: training: unknown key 'step'.*'steps'"):
        TrainConfig.load(path)


def test_training_settings_can_be_changed_one_at_a_time() -> None:
    config = TrainConfig.parse(SMALLEST).with_training(seed=3, steps=None, epochs=2)
    assert (config.training.seed, config.training.steps, config.training.epochs) == (3, None, 2)
    with pytest.raises(ConfigError, match="peak_lr"):
        config.with_training(peek_lr=1)


def recording_with(**columns: list[object]) -> Recording:
    """Three units with 3, 2 and 1 spikes."""
    return Recording(
        recording_id="r",
        subject_id="s",
        sample_rate=Fraction(1000),
        num_samples=100,
        spike_samples=np.arange(6),
        spike_units=np.array([0, 0, 0, 1, 1, 2], dtype=np.int32),
        unit_ids=np.array(["a", "b", "c"]),
        units={name: np.array(values) for name, values in columns.items()},
    )


def test_labels_follow_the_order_of_the_classes_and_other_values_are_context() -> None:
    task = TaskSettings(column="region", classes={"B": ("b1", "b2"), "A": ("a",)}, min_spikes=0)
    assert task.names == ("B", "A")
    assert task.labels(recording_with(region=["a", "b2", "c"])).tolist() == [1, 0, UNLABELLED]


def test_units_with_too_few_spikes_are_context() -> None:
    task = TaskSettings(column="region", classes={"A": ("a",), "B": ("b",)}, min_spikes=2)
    assert task.labels(recording_with(region=["a", "b", "a"])).tolist() == [0, 1, UNLABELLED]


def test_intervals_hold_their_ends_and_never_nan() -> None:
    task = TaskSettings(column="width_ms", classes={"narrow": (0.0, 0.35), "broad": (0.45, 10.0)}, min_spikes=0)
    assert task.labels(recording_with(width_ms=[0.35, 0.45, np.nan])).tolist() == [0, 1, UNLABELLED]
    assert task.labels(recording_with(width_ms=[0.4, 0.0, 11.0])).tolist() == [UNLABELLED, 0, UNLABELLED]


def test_a_missing_or_wordy_column_leaves_every_unit_unlabelled() -> None:
    task = TaskSettings(column="width_ms", classes={"narrow": (0.0, 0.35), "broad": (0.45, 10.0)}, min_spikes=0)
    assert (task.labels(recording_with()) == UNLABELLED).all()
    assert (task.labels(recording_with(width_ms=["x", "y", "z"])) == UNLABELLED).all()


def test_what_a_config_says_of_the_encoder_are_its_sizes_and_defaults_are_left_out_of_fingerprints() -> None:
    config = TrainConfig.parse(SMALLEST | {"encoder": {"dim": 32}})
    assert config.encoder == EncoderSizes(dim=32)
    assert config.model_dump(mode="json", exclude_defaults=True)["encoder"] == {"dim": 32}
    assert TrainConfig.parse(config.model_dump(mode="json", exclude_none=True)) == config
    whole = TrainConfig.parse(SMALLEST | {"encoder": {"dim": 256}})
    assert "encoder" not in whole.model_dump(mode="json", exclude_defaults=True)
