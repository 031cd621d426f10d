"""Several processes do what one would: gradients of the global batch, exact resumption, one writer, one end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.errors import ConfigError
from offline_training.pretraining import pretrain as module
from offline_training.pretraining.distributed import Processes, is_first, join
from offline_training.pretraining.pretrain import pretrain
from offline_training.pretraining.runs import Run
from offline_training.pretraining.views import ViewSampler
from tests.offline_training.shared_training import STEPS, animals, config_of, gradients

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes of a real torchrun, over gloo, left."""
    folder = tmp_path_factory.mktemp("processes")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = ["-m", "tests.offline_training.shared_training", str(folder)]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*torchrun, *program], cwd=ROOT, env=quiet, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return folder


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    return state["encoder"] | state["loss"]


def test_gradients_of_two_processes_are_those_of_one_on_the_global_batch(out: Path) -> None:
    sampler = ViewSampler(animals(), config_of())
    first, second = sampler.batch(0, 0), sampler.batch(0, 1)
    halves = ViewSampler(animals(), config_of(), rank=0, processes=2).batch(0, 0)
    expected = gradients(Processes(), [first, second, halves])
    for rank in (0, 1):
        found = torch.load(out / f"gradients_{rank}.pt", weights_only=True)
        for one, two in zip(expected, found, strict=False):
            assert two["share"] == pytest.approx(one["share"], rel=1e-6, abs=1e-6)
            for lone, shared in zip(one["gradients"], two["gradients"], strict=True):
                assert (lone - shared).abs().max() <= 1e-6
                torch.testing.assert_close(shared, lone, rtol=1e-4, atol=1e-7)


def test_windows_weigh_by_their_matched_units_across_processes(out: Path) -> None:
    """The plain mean of the processes' gradients would be another one: the test above can tell."""
    sides = [ViewSampler(animals(), config_of(), rank=rank, processes=2).batch(0, 0) for rank in (0, 1)]
    apart = gradients(Processes(), sides)
    together = torch.load(out / "gradients_0.pt", weights_only=True)[0]["gradients"]
    plain = [(a + b) / 2 for a, b in zip(*(one["gradients"] for one in apart), strict=True)]
    assert max((p - t).abs().max() for p, t in zip(plain, together, strict=True)) > 1e-4


def test_a_batch_that_leaves_nobody_a_pair_changes_nothing(out: Path) -> None:
    for rank in (0, 1):
        empty = torch.load(out / f"gradients_{rank}.pt", weights_only=True)[3]
        assert empty["share"][4:] == (0, 0) and set(empty["gradients"]) == {None}


def test_a_resumed_training_of_two_processes_is_bitwise_the_one_that_never_stopped(out: Path) -> None:
    whole, halves = (weights_of(out / "rank_0" / name) for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    lines = [(out / "rank_0" / name / "metrics.jsonl").read_text() for name in ("whole", "halves")]
    assert lines[0] == lines[1] and lines[0].count("\n") == STEPS


def test_without_dropout_two_processes_train_what_one_trains(out: Path, tmp_path: Path) -> None:
    pretrain(config_of(), animals(), tmp_path / "lone")
    lone, shared = weights_of(tmp_path / "lone"), weights_of(out / "rank_0" / "plain")
    for name, value in lone.items():
        torch.testing.assert_close(shared[name], value, rtol=1e-3, atol=1e-5)
    losses = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (tmp_path / "lone", out / "rank_0" / "plain")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    figures = Run.open(out / "rank_0" / "plain").info
    assert (figures["processes"], figures["windows"]) == (2, Run.open(tmp_path / "lone").info["windows"])


def test_only_the_first_process_writes(out: Path) -> None:
    assert (out / "rank_0" / "whole" / "run.json").is_file()
    assert not (out / "rank_1").exists()


def test_all_stop_after_the_same_step_when_one_is_asked_to(out: Path) -> None:
    info = Run.open(out / "rank_0" / "stopped").info
    assert (info["step"], info["finished"]) == (3, False)


def test_processes_draw_dropout_of_their_own() -> None:
    def first_numbers(rank: int, step: int) -> torch.Tensor:
        Processes(rank, 2).seed(3, step)
        return torch.rand(4)

    drawn = [first_numbers(rank, step) for rank in (0, 1) for step in (4, 5)]
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 4
    assert torch.equal(first_numbers(1, 5), drawn[3])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    Processes().seed(3, 4)
    assert torch.equal(torch.get_rng_state(), before)


@settings(max_examples=15)
@given(processes=st.integers(1, 5), epoch=st.integers(0, 50), index=st.integers(0, 3))
def test_the_shares_of_a_batch_are_disjoint_and_together_the_whole(processes: int, epoch: int, index: int) -> None:
    recordings, config = animals(), config_of()
    whole = ViewSampler(recordings, config).batch(epoch, index)
    shares = [
        ViewSampler(recordings, config, rank=r, processes=processes).batch(epoch, index) for r in range(processes)
    ]
    drawn = [pair for share in shares if share is not None for pair in pairs(share)]
    assert len(set(drawn)) == len(drawn) and set(drawn) == set(pairs(whole))


def pairs(views: object) -> list[tuple[object, ...]]:
    """Every pair of a batch as a value: recording, starts, units and counts."""
    found = []
    for i, units in enumerate(views.units):
        real = units >= 0
        counts = views.counts1[i, real].tobytes() + views.counts2[i, real].tobytes()
        found.append((int(views.recordings[i]), *views.starts[i].tolist(), units[real].tobytes(), counts))
    return found


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    processes = join()
    assert (processes.rank, processes.size, processes.first, is_first()) == (0, 1, True, True)
    monkeypatch.setenv("RANK", "1")
    assert not is_first()


def test_a_process_without_a_gpu_of_its_own_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="process 2 of this machine has no GPU: there are 2"):
        join()


@pytest.mark.parametrize(
    ("loss", "size", "message"),
    [("scaled", 6, "batch_windows = 5: every one of 6"), ("vicreg", 2, "loss.kind = vicreg")],
)
def test_what_several_processes_cannot_share_is_rejected(loss: str, size: int, message: str) -> None:
    config = config_of().model_copy(update={"loss": config_of().loss.model_copy(update={"kind": loss})})
    with pytest.raises(ConfigError, match=message):
        module._check_shares(config, Processes(size=size))
    module._check_shares(config, Processes())
