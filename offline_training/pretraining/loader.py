"""Batches for one step after the other, sampled in the training process or ahead of it by worker processes."""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch.utils.data import DataLoader, Dataset

from offline_training.pretraining.views import Views, ViewSampler


class _Steps(Dataset[Views | None]):
    """The batch of every step of a training, in all epochs."""

    def __init__(self, sampler: ViewSampler) -> None:
        self.sampler = sampler

    def __getitem__(self, step: int) -> Views | None:
        return self.sampler.batch(*divmod(step, self.sampler.batches_per_epoch))


def batches(sampler: ViewSampler, *, first: int, last: int, workers: int | None) -> Generator[Views | None, None, None]:
    """The batches of steps [first, last), in order; None where no pair is left.

    `workers` processes sample ahead: a batch depends on its step alone, so it is the same whoever draws it.
    """
    steps = _Steps(sampler)
    if workers is None:
        yield from (steps[step] for step in range(first, last))
        return
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # torch's own stays as it is: training draws its dropout from it
    )
    for batch in loader:
        yield None if batch is None else Views(*(column.numpy() for column in batch))
