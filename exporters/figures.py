"""Evaluation figures for manifest and card: read from what `nuclr-train evaluate` wrote, never typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporters.graphs import ExportError

FORMAT = 3
_SCORES = ("macro_f1", "balanced_accuracy", "ece", "called", "precision")


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return what a manifest keeps of an evaluation: {name, protocol, command, machine, seed, versions, tasks: {task:
    {row: {seconds observed: scores}}}}. Raises ExportError when the file is something else."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["format"] != FORMAT:
            raise ValueError(f"format is {result['format']!r}, this version reads {FORMAT}")
        return {
            **{key: result[key] for key in ("name", "protocol", "command", "machine", "seed", "versions")},
            "tasks": {task: _rows_of(found["rows"]) for task, found in result["tasks"].items()},
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{path}: not a result of `nuclr-train evaluate` ({error!r})") from error


def _rows_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The product's row and its floor."""
    kept = [row for row in rows if row["role"] in ("shipped", "floor")]
    return {
        f"{row['row']} ({row['role']})": {
            seconds: {name: scores[name] for name in _SCORES} for seconds, scores in row["seconds"].items()
        }
        for row in kept
    }


def figures_table(evaluation: dict[str, Any]) -> str:
    """Return the figures in Markdown, with the protocol that they hold for."""
    if not evaluation:
        return "No evaluation was given at export."
    columns = ("task", "row", "observed", *(name.replace("_", " ") for name in _SCORES))
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join(
        [evaluation["protocol"], "", *lines, *(f"| {' | '.join(r)} |" for r in _table(evaluation["tasks"]))]
    )


def _table(tasks: dict[str, Any]) -> Iterator[list[str]]:
    for task, rows in tasks.items():
        for row, times in rows.items():
            for observed, scores in times.items():
                time = f"{observed} s" if observed.isdigit() else observed
                yield [task, row, time, *(_shown(scores[name]) for name in _SCORES)]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
