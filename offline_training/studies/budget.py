"""What the training of a peer cost, for its row of the results: no peer is to be handicapped in silence."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Budget:
    """Optimiser steps, seconds of CPU (of this process, all its threads) and parameters of a peer; `how` in words."""

    steps: int
    cpu_s: float
    parameters: int
    how: str


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
