"""Markdown tables, and numbers in them."""

from __future__ import annotations

from collections.abc import Sequence

NONE = "-"
"""What stands where a score does not exist."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with the columns `head`."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def score(value: float | None, *, digits: int = 3) -> str:
    """A score, or a dash."""
    return NONE if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share in percent, or a dash."""
    return NONE if value is None else f"{100 * value:.0f} %"


def between(value: float, extremes: Sequence[float] | None) -> str:
    """A score and its interval or range, where it has one."""
    if extremes is None or extremes[0] == extremes[1]:
        return score(value)
    return f"{score(value)} ({score(extremes[0])}-{score(extremes[1])})"
