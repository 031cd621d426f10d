"""Every published hyper-parameter is in a config, at its value, with a comment that names its source.

The values stand here once more, as read in the authors' code: nerdslab/nuclr (spikes, calcium) and
brainbench-org/ibl-bwb. What is fixed in code instead of a config is pinned here too.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from offline_training.config import TrainConfig
from offline_training.pretraining.steps import build_encoder, learning_rate, new_training

CONFIGS = Path(__file__).parents[3] / "configs"
SIZES = {
    **{"dim": 256, "heads": 4, "head_dim": 64, "ffn_hidden": 1024, "temporal_blocks": 2, "spatiotemporal_blocks": 2},
    **{"dropout": 0.2, "rope_ratio": 0.5, "rope_max_period_factor": 8.0},
}
OPTIMISER = {"weight_decay": 0.01, "clip_norm": 1.0, "precision": "bf16"}
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "paper_spikes": {
        "window": {"bins_per_second": 50, "bins_per_patch": 50, "patches": 10, "hop_s": 10.0},
        "rules": {"min_population": 11, "cut_silence": True},
        "encoder": SIZES,
        "loss": {"kind": "published", "temperature": 0.2},
        "training": {
            **OPTIMISER,
            **{"steps": 50_000, "batch_windows": 128, "max_pair_distance_s": 30, "unit_keep": [0.5, 1.0]},
            **{"peak_lr": 5e-4, "drop_last_s": 300},
        },
    },
    "paper_calcium": {
        "window": {
            **{"bins_per_second": "6250/1459", "bins_per_patch": 4, "patches": 32, "hop_s": 29.88032},
            **{"input_kind": "traces", "normaliser": {"quantile": 0.99, "trained_with": "offline"}},
        },
        "rules": {"min_population": 11, "cut_silence": False},
        "encoder": SIZES,
        "loss": {"kind": "published", "temperature": 0.2},
        "training": {
            **OPTIMISER,
            **{"epochs": 30, "batch_windows": 16, "max_pair_distance_s": 240, "unit_keep": [1.0, 1.0]},
            **{"peak_lr": 1.25e-4},
        },
    },
    "brainwidebench": {
        "window": {"bins_per_second": 50, "bins_per_patch": 50, "patches": 20, "hop_s": 10.0},
        "recordings": {"quality_column": "label", "quality_keep": [1.0], "min_rate_hz": 1.0},
        "rules": {"min_population": 11, "cut_silence": True},
        "encoder": {**SIZES, "spatiotemporal_blocks": 4, "dropout": 0.3},
        "loss": {"kind": "scaled", "temperature": 0.2},
        "training": {
            **OPTIMISER,
            **{"epochs": 50, "batch_windows": 80, "max_pair_distance_s": 120, "unit_keep": [0.5, 1.0]},
            **{"peak_lr": 5e-4, "final_lr_share": 0.01, "drop_last_s": 300},
        },
    },
}
PARAMETERS = {"paper_spikes": 6.33e6, "brainwidebench": 10.5e6}
COSMOS = ["CB", "CNU", "CTXsp", "HB", "HPF", "HY", "Isocortex", "MB", "OLF", "TH"]


def text_of(name: str) -> str:
    return (CONFIGS / f"pretrain_{name}.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_holds_the_published_values_and_no_other(name: str) -> None:
    values = tomllib.loads(text_of(name))
    assert values["training"].pop("loader_workers") == 4  # speed only
    values["window"].get("normaliser", {}).pop("warm_up_frames", None)  # of the live version, which is ours
    found = {section: values[section] for section in PUBLISHED[name]}
    assert found == PUBLISHED[name]
    assert set(values) - set(PUBLISHED[name]) <= {"name", "kind", "tasks"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_value_has_its_source_in_a_comment(name: str) -> None:
    section, before = "", ""
    for line in text_of(name).splitlines():
        if line.startswith("["):
            section = line.split("]")[0].strip("[")
            sourced = "code" in line
        elif "=" in line and section in PUBLISHED[name]:
            assert sourced or "# code" in line or "# ours" in line or "# code" in before, line
        before = line


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_the_encoder_has_the_published_number_of_parameters(name: str, parameters: float) -> None:
    config = TrainConfig.load(CONFIGS / f"pretrain_{name}.toml")
    with torch.device("meta"):
        assert sum(p.numel() for p in build_encoder(config).parameters()) == pytest.approx(parameters, rel=5e-3)


@pytest.mark.parametrize(("name", "last"), [("paper_spikes", 0.0), ("paper_calcium", 0.0), ("brainwidebench", 0.01)])
def test_the_rate_rises_from_nothing_over_one_epoch_and_falls_as_a_cosine(name: str, last: float) -> None:
    config = TrainConfig.load(CONFIGS / f"pretrain_{name}.toml")
    peak = config.training.peak_lr
    first, top, middle, end = (
        learning_rate(config, step=step, steps=1000, per_epoch=100) for step in (0, 100, 550, 999)
    )
    assert first == pytest.approx(peak / 100) and top == peak
    assert middle == pytest.approx(peak * (1 + last) / 2) and end == pytest.approx(peak * last, abs=1e-5 * peak)


def test_optimiser_and_projector_are_the_published_ones() -> None:
    training = new_training(TrainConfig.parse({"name": "sizes", "training": {"steps": 1}}), torch.device("cpu"))
    assert isinstance(training.optimiser, torch.optim.AdamW)
    assert training.optimiser.defaults["betas"] == (0.9, 0.999)
    kinds = [type(part).__name__ for part in training.loss.projector]
    assert kinds == ["LayerNorm", "Linear", "ReLU", "Linear"]
    assert [part.weight.shape for part in training.loss.projector if isinstance(part, torch.nn.Linear)] == [
        (256, 256),
        (256, 256),
    ]


def test_the_benchmarks_ten_regions_are_in_its_order() -> None:
    assert list(tomllib.loads(text_of("brainwidebench"))["tasks"]["brain_region"]["classes"]) == COSMOS
