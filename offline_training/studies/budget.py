"""What the training of a comparison method cost, for its row of the results: a handicap would show there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Budget:
    """Optimiser steps, seconds of CPU (all threads of this process) and parameters of a training; `how` in words."""

    steps: int
    cpu_s: float
    parameters: int
    how: str


def together(budgets: Sequence[Budget]) -> Budget:
    """The budget of a row: most steps and parameters of any fold, CPU seconds of all, `how` of the first.

    A training that served several folds comes with the same budget in each and is counted once.
    """
    distinct = list(dict.fromkeys(budgets))
    return Budget(
        steps=max(budget.steps for budget in distinct),
        cpu_s=round(sum(budget.cpu_s for budget in distinct), 1),
        parameters=max(budget.parameters for budget in distinct),
        how=distinct[0].how,
    )


@dataclass(frozen=True)
class CpuClock:
    """Seconds of CPU that this process has used since the clock was made."""

    began_s: float = field(default_factory=time.process_time)

    @property
    def cpu_s(self) -> float:
        """Seconds so far, to a tenth."""
        return round(time.process_time() - self.began_s, 1)


def parameters_of(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(p.numel() for p in module.parameters())
