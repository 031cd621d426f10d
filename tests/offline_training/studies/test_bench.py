"""`nuclr-train bench`: every way to train on the same batches by turns, and the JSON for the performance page."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nuclr_stream.errors import ConfigError
from offline_training.commands.cli import main
from offline_training.config import TrainConfig
from offline_training.model.encoder import Encoder, EncoderConfig
from offline_training.pretraining.views import Views
from offline_training.studies import bench
from offline_training.studies.bench import run_bench
from tests.offline_training.tiny import SMALLEST_TOML

CONFIG = SMALLEST_TOML + "max_units_per_view = 24\n"
FeatureSnapshot = list[tuple[bool, int, np.ndarray, float]]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One animal instead of three, one step to warm up, on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bench, "SEEDS", (1000,))
    monkeypatch.setattr(bench, "UNITS", 40)
    monkeypatch.setattr(bench, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(bench, "MATMUL_SIZE", {"cpu": 64})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> FeatureSnapshot:
    """Instead of training: bf16 or not, threads, counts and weights of every step."""
    steps: FeatureSnapshot = []

    def step(training: Any, views: Any, config: TrainConfig, *, rate: float, autocast: torch.autocast) -> None:
        weight = next(iter(training.encoder.parameters())).sum().item()
        steps.append((autocast._enabled, torch.get_num_threads(), views.counts1, weight))

    monkeypatch.setattr(bench, "train_step", step)
    monkeypatch.setattr(bench, "uses_bf16", lambda config, device: config.training.precision == "auto")
    return steps


def test_all_ways_take_turns_on_the_same_batches_with_the_same_first_weights(file: Path, seen: FeatureSnapshot) -> None:
    before = torch.get_num_threads()
    figures = run_bench(TrainConfig.load(file).with_training(precision="fp32"), steps=2)
    assert torch.get_num_threads() == before
    ways = [(precision, threads) for precision in ("fp32", "bf16") for threads in (1, 2)]
    assert [(run["precision"], run["threads"]) for run in figures["runs"]] == ways
    turns = [seen[first : first + 4] for first in range(0, len(seen), 4)]
    assert len(turns) == 3
    for turn in turns:
        assert [("bf16" if bf16 else "fp32", threads) for bf16, threads, _, _ in turn] == ways
        assert all(counts is turn[0][2] for _, _, counts, _ in turn)
    assert not np.array_equal(turns[0][0][2], turns[1][0][2])
    assert len({weight for _, _, _, weight in seen}) == 1


def test_a_device_without_bf16_is_not_timed_in_it(
    file: Path, seen: FeatureSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "uses_bf16", lambda config, device: False)
    assert {run["precision"] for run in run_bench(TrainConfig.load(file), steps=1)["runs"]} == {"fp32"}
    assert not any(bf16 for bf16, _, _, _ in seen)


def test_medians_leave_the_warm_up_out_and_windows_include_sampling() -> None:
    way = bench._Way(None, "fp32", 1, None, None, step_s=[50.0, 1.0, 2.0, 9.0], cpu_s=[70.0, 3.0, 1.0, 2.0])  # type: ignore[arg-type]
    figures = way.figures([(8, 60.0), (8, 1.0), (6, 1.0), (8, 1.0)])
    assert figures == {
        **{"precision": "fp32", "threads": 1, "windows_per_s": 2.0},
        **{"step_s": 2.0, "step_s_range": [1.0, 9.0], "cpu_s": 2.0},
        **{"sample_s": 1.0, "loader_workers_to_keep_up": 1},
    }


def test_the_arithmetic_of_the_encoder_is_what_torch_counts() -> None:
    config = EncoderConfig(bins_per_patch=5, patches=4, dim=16, heads=2, head_dim=8, ffn_hidden=24)
    present = np.ones((3, 7), dtype=bool)
    views = Views(*[None] * 7)._replace(present1=present, present2=present)  # type: ignore[arg-type]
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        Encoder(config).eval()(torch.zeros(6, 7, config.bins), torch.ones(6, 7, dtype=torch.bool))
    assert bench.forward_flops(config, views) == counted.get_total_flops()
    without_one = views._replace(present2=present & (np.arange(7) > 0))
    assert bench.forward_flops(config, without_one) < counted.get_total_flops()


def test_a_compiled_encoder_is_timed_beside_the_plain_one(
    file: Path, seen: FeatureSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "compile", lambda encoder, *, dynamic: None)
    config = TrainConfig.load(file).with_training(compile="encoder", precision="fp32")
    runs = run_bench(config, steps=1)["runs"]
    assert [run["precision"] for run in runs if run["threads"] == 1] == [
        *("fp32", "fp32, compiled"),
        *("bf16", "bf16, compiled"),
    ]


def test_use_of_the_gpu_counts_kernels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "train_step", lambda *_, **__: torch.ones(9).sum())
    way = bench._Way(None, "fp32", 1, None, None)  # type: ignore[arg-type]
    assert way.gpu_busy(None, 0.5) == 0.0  # type: ignore[arg-type]
    assert len(way.step_s) == 1


def test_the_last_line_is_json_and_the_file_holds_the_same(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "THREADS", (1,))  # a second thread without a core of its own takes for ever
    out = tmp_path / "speed" / "training.json"
    monkeypatch.setattr(sys, "argv", ["nuclr-train", "bench", str(file), "--steps", "2", "--json", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    printed = capfd.readouterr().out.splitlines()
    document = json.loads(printed[-1])
    assert json.loads(out.read_text()) == document
    assert len(printed) == len(document["runs"]) + 1
    assert (document["name"], document["steps"], document["torch"]) == ("tiny", 2, torch.__version__)
    assert document["recordings"] == {"simulated_seeds": [1000], "units": 40, "duration_s": 60.0}
    assert document["config"]["encoder"]["dim"] == 8 and document["config"]["training"]["seed"] == 0
    assert document["parameters"] > 0 and document["machine"]["cores"] >= 1
    assert document["gpu"] is None
    for run in document["runs"]:
        assert run["windows_per_s"] > 0 and run["cpu_s"] > 0
        assert run["step_s_range"][0] <= run["step_s"] <= run["step_s_range"][1]
        assert run["model_tflops_per_s"] > 0 and run["matmul_share"] > 0 and run["sample_s"] > 0


def test_a_config_that_leaves_no_batch_is_rejected(file: Path) -> None:
    starved = TrainConfig.parse(TrainConfig.load(file).model_dump(exclude_none=True) | {"name": "starved"})
    starved = starved.with_training(unit_keep=(0.1, 0.1))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"starved: too few of 40 units are active; raise training\.unit_keep"):
        run_bench(starved, steps=1)


def test_a_median_needs_a_step(file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["nuclr-train", "bench", str(file), "--steps", "0"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "--steps" in capfd.readouterr().err
