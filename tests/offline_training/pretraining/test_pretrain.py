"""What pretraining promises: published groups and schedule, exact resumption, clean interruption, a loss that falls."""

import io
import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from nuclr_stream.errors import NonFiniteError
from nuclr_stream.recordings.recording import Recording
from offline_training.config import TrainConfig
from offline_training.model.encoder import Encoder
from offline_training.pretraining import pretrain as module
from offline_training.pretraining.pretrain import pretrain
from offline_training.pretraining.progress import TrainingProgress
from offline_training.pretraining.runs import Run, RunError
from offline_training.pretraining.steps import build_optimiser, learning_rate, new_training
from offline_training.pretraining.views import Views, ViewSampler
from tests.offline_training.tiny import recording_of_steps

SIZES = {"dim": 16, "heads": 2, "head_dim": 8, "ffn_hidden": 16, "temporal_blocks": 1, "spatiotemporal_blocks": 1}


def config_of(loss: str = "scaled", **training: object) -> TrainConfig:
    return TrainConfig.parse(
        {
            "name": "tiny",
            "kind": "random trains",
            "window": {"bins_per_second": 10, "bins_per_patch": 5, "patches": 4},
            "encoder": SIZES,
            "loss": {"kind": loss},
            "training": {"steps": 8, "batch_windows": 4, "max_pair_distance_s": 3, "warmup_steps": 2, **training},
        }
    )


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    """Two subjects with 24 units each, every unit with a rate and a rhythm of its own."""
    found = []
    for subject in ("s1", "s2"):
        rng = np.random.default_rng(len(found))
        phase = np.arange(0, 60, 0.01)[:, None] * rng.uniform(0.3, 4, 24) + rng.random(24)
        rate = rng.uniform(1, 12, 24) * (1 + np.sin(2 * np.pi * phase))
        found.append(recording_of_steps(f"{subject}_a", subject, rng.random(rate.shape) < rate * 0.01))
    return found


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    moments = {f"{i}.{k}": v for i, values in state["optimiser"]["state"].items() for k, v in values.items()}
    return state["encoder"] | state["loss"] | moments | {"rng": state["rng"]}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_training_is_bitwise_the_one_that_never_stopped(
    recordings: list[Recording], tmp_path: Path, precision: str
) -> None:
    config = config_of(precision=precision)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    pretrain(config, recordings, whole)
    pretrain(config, recordings, halves, stop_after=3)
    assert not Run.open(halves).finished
    torch.manual_seed(99)  # whatever happens in between does not matter
    pretrain(config, recordings, halves, resume=True)
    expected, found = weights_of(whole), weights_of(halves)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (whole / "metrics.jsonl").read_text() == (halves / "metrics.jsonl").read_text()


def test_loader_workers_change_nothing(recordings: list[Recording], tmp_path: Path) -> None:
    pretrain(config_of(), recordings, tmp_path / "alone", stop_after=5)
    pretrain(config_of(loader_workers=2), recordings, tmp_path / "helped", stop_after=5)
    expected, found = weights_of(tmp_path / "alone"), weights_of(tmp_path / "helped")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_compiled_encoder_trains_what_the_plain_one_trains(
    recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def traced(encoder: Encoder, *, dynamic: bool) -> None:
        """Compiling takes minutes: trace it, and run what was traced as it is."""
        compiled.append(dynamic)
        torch.nn.Module.compile(encoder, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(Encoder, "compile", traced)
    small = replace(config_of().encoder, dropout=0.0, temporal_blocks=0)
    for name, how in (("plain", None), ("compiled", "encoder")):
        config = config_of(steps=2, compile=how, precision="fp32").model_copy(update={"encoder": small})
        pretrain(config, recordings, tmp_path / name)
    assert compiled == [True]
    expected, found = weights_of(tmp_path / "plain"), weights_of(tmp_path / "compiled")
    assert expected.keys() == found.keys()  # a checkpoint does not know whether its encoder was compiled
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)


def test_lines_that_were_written_after_the_checkpoint_are_written_anew(
    recordings: list[Recording], tmp_path: Path
) -> None:
    pretrain(config_of(), recordings, tmp_path / "run", stop_after=3)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4}\n{"step": ')
    pretrain(config_of(), recordings, tmp_path / "run", resume=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert all({"loss", "numerator", "denominator", "lr"} <= line.keys() for line in lines)


def test_dropout_and_seed_matter(recordings: list[Recording], tmp_path: Path) -> None:
    pretrain(config_of(steps=1), recordings, tmp_path / "a")
    pretrain(config_of(steps=1, seed=1), recordings, tmp_path / "b")
    assert not torch.equal(weights_of(tmp_path / "a")["read_in.weight"], weights_of(tmp_path / "b")["read_in.weight"])


def test_ctrl_c_ends_after_the_step_at_hand_with_a_checkpoint(
    recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = ViewSampler.batch

    def interrupted(sampler: ViewSampler, epoch: int, index: int) -> Views | None:
        if index == 2:
            signal.raise_signal(signal.SIGINT)
        return draw(sampler, epoch, index)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(ViewSampler, "batch", interrupted)
    pretrain(config_of(), recordings, tmp_path / "run")
    info = Run.open(tmp_path / "run").info
    assert (info["step"], info["finished"]) == (3, False)
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    pretrain(config_of(), recordings, tmp_path / "run", resume=True)
    assert Run.open(tmp_path / "run").finished


def test_training_lowers_the_loss(recordings: list[Recording], tmp_path: Path) -> None:
    pretrain(config_of(steps=70, peak_lr=1e-2), recordings, tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.3


@pytest.mark.parametrize("loss", ["published", "vicreg"])
def test_the_other_losses_train_too(recordings: list[Recording], tmp_path: Path, loss: str) -> None:
    pretrain(config_of(loss=loss, steps=2), recordings, tmp_path / "run")
    assert Run.open(tmp_path / "run").config.loss.kind == loss


def test_a_run_says_what_it_was_trained_on_and_gives_the_encoder_back(
    recordings: list[Recording], tmp_path: Path
) -> None:
    config = config_of(steps=None, epochs=2, max_units_per_view=16)
    pretrain(config, recordings, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    encoder, info = run.encoder, run.info
    assert run.config == config and not encoder.training
    assert info["recordings"] == ["s1_a", "s2_a"] and info["subjects"] == ["s1", "s2"]
    assert info["step"] == info["steps"] == 2 * ViewSampler(recordings, config).batches_per_epoch
    assert info["finished"] and info["windows_per_s"] > 0 and info["torch"] == torch.__version__
    assert info["parameters"] == sum(p.numel() for p in encoder.parameters())
    assert encoder(torch.ones(12, 20), torch.ones(12, dtype=torch.bool)).shape == (12, 16)
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))


def test_norms_and_biases_are_not_decayed_by_name_so_the_projectors_norm_weight_is() -> None:
    training = new_training(config_of(), torch.device("cpu"))
    decayed, plain = build_optimiser([training.encoder, training.loss], config_of()).param_groups
    names = {id(p): name for m in (training.encoder, training.loss) for name, p in m.named_parameters()}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    assert all("norm" in names[id(p)] or "bias" in names[id(p)] for p in plain["params"])
    assert not any("norm" in names[id(p)] or "bias" in names[id(p)] for p in decayed["params"])
    assert "projector.0.weight" in {names[id(p)] for p in decayed["params"]}
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_the_rate_rises_over_the_warm_up_and_falls_as_a_cosine() -> None:
    def rates(**training: object) -> list[float]:
        config = config_of(peak_lr=1.0, **training)
        return [learning_rate(config, step=step, steps=100, per_epoch=20) for step in range(100)]

    published = rates(warmup_steps=None)
    assert published[:3] == pytest.approx([0.05, 0.1, 0.15]) and published[19] == published[20] == 1.0
    assert published[60] == pytest.approx(0.5) and published[99] < 1e-3
    assert published[20:] == sorted(published[20:], reverse=True)
    assert rates(warmup_steps=10, final_lr_share=0.1)[99] == pytest.approx(0.1, abs=1e-3)


def test_a_run_directory_is_never_overwritten_nor_resumed_with_other_settings(
    recordings: list[Recording], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunError, match=r"config\.json: not readable"):
        pretrain(config_of(), recordings, run, resume=True)
    pretrain(config_of(), recordings, run, stop_after=1)
    with pytest.raises(RunError, match="holds a training already"):
        pretrain(config_of(), recordings, run)
    with pytest.raises(RunError, match="differs from the settings given"):
        pretrain(config_of(peak_lr=1e-2), recordings, run, resume=True)
    with pytest.raises(RunError, match="other recordings"):
        pretrain(config_of(), recordings[:1], run, resume=True)


def test_a_damaged_checkpoint_is_named(recordings: list[Recording], tmp_path: Path) -> None:
    pretrain(config_of(steps=1), recordings, tmp_path / "run")
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(RunError, match=r"checkpoint\.pt: not a readable checkpoint"):
        _ = Run.open(tmp_path / "run").encoder


def test_a_loss_that_is_no_number_ends_the_training(
    recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "learning_rate", lambda *_, **__: float("nan"))
    with pytest.raises(NonFiniteError, match=r"at step 2; lower training\.peak_lr"):
        pretrain(config_of(), recordings, tmp_path / "run")


def test_without_a_terminal_progress_is_plain_lines_with_both_terms() -> None:
    out = io.StringIO()
    with TrainingProgress("title", steps=2, console=Console(file=out, width=200)) as progress:
        progress.step(1, loss=3.0, numerator=1.0, denominator=2.0, windows_per_s=5.0)
        progress.step(2, loss=2.5, numerator=1.0, denominator=1.5, windows_per_s=5.0)
    assert out.getvalue() == "title  2/2  loss 2.500 = 1.000 + 1.500  5 windows/s  0 s left\n"


def test_on_a_terminal_progress_is_a_bar_with_both_terms_and_the_time_left() -> None:
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True)
    with TrainingProgress("title", steps=2, console=console) as progress:
        progress.step(1, loss=3.0, numerator=1.0, denominator=2.0, windows_per_s=5.0)
    assert "loss 3.000 = 1.000 + 2.000" in out.getvalue() and "1/2" in out.getvalue() and "left" in out.getvalue()
