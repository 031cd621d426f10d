"""Several processes, one training: what torchrun starts, a process per GPU (or per CPU, over gloo), on many machines.

Every process holds all weights and takes its share of the pairs of every batch, so `training.batch_windows` counts the
pairs of all processes together. The loss is a mean over matched units, so the gradient of the whole batch is
sum(w_i g_i) / sum(w_i) with w_i the matched units of process i: windows weigh by their matched units across processes
as they do within one. Gradients are added up in one go after the backward pass, as one array.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import distributed, nn

from nuclr_stream.errors import ConfigError

PATIENCE = timedelta(hours=2)
"""How long processes wait for one another: the first one may be busy scoring validation animals."""


class Share(NamedTuple):
    """What a step's loss came to on some of its pairs, with the matched units that weigh it, and how many pairs and
    units there were."""

    loss: float
    numerator: float
    denominator: float
    weight: float
    windows: int
    units: int


NOTHING = Share(0.0, 0.0, 0.0, 0.0, 0, 0)


@dataclass(frozen=True)
class Processes:
    """The processes of one training and the place of this one among them. A lone process has nothing to combine."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == 0

    def seed(self, seed: int, step: int) -> None:
        """Give each of several processes dropout of its own, which depends on nothing but seed, step and rank: a
        checkpoint then needs no random state of theirs. A lone process keeps the generator that it has."""
        if self.size > 1:
            torch.manual_seed(int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1, np.uint64)[0]))

    def combine(self, share: Share, parameters: Sequence[nn.Parameter]) -> Share:
        """Replace the gradients of this process's pairs by those of the whole batch, and return its figures."""
        if self.size == 1:
            return share
        weighted = [share.weight * value for value in share[:3]]
        # float64: matched units of many processes are counted exactly, and all round alike.
        sums = torch.tensor([*weighted, *share[3:]], dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        loss, numerator, denominator, weight, windows, units = sums.tolist()
        weight = max(weight, 1.0)
        if windows:  # the same in all processes: either all join the sum of gradients or none does
            _add_up(parameters, share.weight / weight)
        return Share(loss / weight, numerator / weight, denominator / weight, weight, int(windows), int(units))

    def any(self, stop: bool) -> bool:
        """Whether any process is to stop: all of them stop after the same step or none does."""
        if self.size == 1:
            return stop
        flag = torch.tensor(float(stop), device=self.device)
        distributed.all_reduce(flag)
        return bool(flag.item())

    def from_first(self, state: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """What the first process has, everywhere: only it needs the files of the run."""
        if self.size == 1:
            return state
        held = [state]
        distributed.broadcast_object_list(held, src=0)
        return held[0]

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            distributed.barrier()


def join() -> Processes:
    """Join the processes that torchrun started, once and until the program ends; without torchrun, a lone process.

    Raises ConfigError where a process has no GPU of its own on a machine with GPUs.
    """
    size, on_gpu = int(os.environ.get("WORLD_SIZE", "1")), torch.cuda.is_available()
    if size == 1:
        return Processes(device=torch.device("cuda" if on_gpu else "cpu"))
    device = torch.device("cpu")
    if on_gpu:
        local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= gpus:
            raise ConfigError(f"process {local} of this machine has no GPU: there are {gpus}; lower --nproc-per-node")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
        atexit.register(distributed.destroy_process_group)
    return Processes(distributed.get_rank(), distributed.get_world_size(), device)


def is_first() -> bool:
    """Whether this is the process that reports: the only one, or rank 0 of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _add_up(parameters: Sequence[nn.Parameter], share: float) -> None:
    """Sum the gradients of all processes, each times its share of the weight; one without pairs adds zeros."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([part.flatten() for part in parts]).mul_(share)
    distributed.all_reduce(flat)
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view_as(p)
