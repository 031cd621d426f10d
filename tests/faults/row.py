"""What a row of the campaign is: one promise, how it is tried, and a planted bug that the trial must notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Size = Literal["test", "ci", "long"]
"""`test` is part of `make test` and judges no times; `ci` takes minutes; `long` hours."""


@dataclass(frozen=True)
class Outcome:
    """How a trial went: whether the promise held, what was measured, and whether the planted bug was noticed."""

    held: bool
    caught: bool
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One promise. `run(seed, size, folder)` tries it in a fresh folder; `bar` and `planted` say in words what counts.

    `sizes` are those that it is part of.
    """

    id: str
    promise: str
    bar: str
    planted: str
    run: Callable[[int, Size, Path], Outcome]
    sizes: tuple[Size, ...] = ("test", "ci", "long")
