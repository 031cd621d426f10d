"""What torchrun starts twice for test_distributed.py: every process leaves in a folder what came out for it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from nuclr_stream.recordings.recording import Recording
from offline_training.config import TrainConfig
from offline_training.pretraining.distributed import Processes, join
from offline_training.pretraining.pretrain import pretrain
from offline_training.pretraining.steps import backward, new_training
from offline_training.pretraining.views import Views, ViewSampler

SIZES = {"dim": 16, "heads": 2, "head_dim": 8, "ffn_hidden": 16, "temporal_blocks": 1, "spatiotemporal_blocks": 1}
FP32 = torch.autocast("cpu", enabled=False)
STEPS = 6


def config_of(dropout: float = 0.0, **training: object) -> TrainConfig:
    """Windows of 2 s, batches of 5 pairs: the processes have unequal shares."""
    return TrainConfig.parse(
        {
            "name": "shared",
            "window": {"bins_per_second": 10, "bins_per_patch": 5, "patches": 4},
            "encoder": {**SIZES, "dropout": dropout},
            "training": {"steps": STEPS, "batch_windows": 5, "warmup_steps": 1, "precision": "fp32", **training},
        }
    )


def animals() -> list[Recording]:
    """Three animals with populations of different sizes and random trains."""
    found = []
    for number, units in enumerate((40, 25, 18)):
        rng = np.random.default_rng(number)
        samples = np.sort(rng.integers(0, 60_000, 60 * 3 * units))
        found.append(
            Recording(
                recording_id=f"r{number}",
                subject_id=f"s{number}",
                sample_rate=Fraction(1000),
                num_samples=60_000,
                spike_samples=samples,
                spike_units=(units * rng.random(len(samples)) ** 2).astype(np.int32),
                unit_ids=np.array([f"{number}:{i}" for i in range(units)]),
            )
        )
    return found


def gradients(processes: Processes, batches: Sequence[Views | None]) -> list[dict[str, object]]:
    """The figures and gradients of every batch, as `train_step` would see them, with the same first weights."""
    config, found = config_of(), []
    for views in batches:
        torch.manual_seed(0)
        training = new_training(config, torch.device("cpu"))
        share = processes.combine(backward(training, views, FP32), training.parameters)
        found.append({"share": tuple(share), "gradients": [p.grad for p in training.parameters]})
    return found


def main(out: Path) -> None:
    """Gradients of some batches; trainings that stop, go on, and are asked to stop in one process only."""
    recordings, config = animals(), config_of()
    processes = join()
    rank = processes.rank
    sampler = ViewSampler(recordings, config, rank=rank, processes=processes.size)
    batches = [sampler.batch(0, 0), sampler.batch(0, 1), None if rank else sampler.batch(0, 0), None]
    torch.save(gradients(processes, batches), out / f"gradients_{rank}.pt")

    mine = out / f"rank_{rank}"  # not the same folder: only the first process needs one
    pretrain(config_of(0.2), recordings, mine / "whole")
    pretrain(config_of(0.2), recordings, mine / "halves", stop_after=3)
    pretrain(config_of(0.2), recordings, mine / "halves", resume=True)
    pretrain(config_of(), recordings, mine / "plain")

    draw = ViewSampler.batch

    def interrupted(sampler: ViewSampler, epoch: int, index: int) -> Views | None:
        if rank == 1 and index == 2:
            signal.raise_signal(signal.SIGTERM)
        return draw(sampler, epoch, index)

    ViewSampler.batch = interrupted  # type: ignore[method-assign]
    pretrain(config_of(), recordings, mine / "stopped")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
