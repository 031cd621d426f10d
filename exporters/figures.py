"""Evaluation figures for manifest and card: read from the summary.json of `nuclr-train evaluate`, never typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporters.graphs import ExportError

_FACTS = ("name", "kind", "split", "setting", "hop_s", "seeds", "held_out", "encoder", "versions")
_SCORES = ("macro_f1", "balanced_accuracy", "precision", "coverage", "units")


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return what a manifest keeps of a summary: the setting and, per task, feature and time observed, mean scores.

    Raises ExportError when the file is not such a summary.
    """
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        tasks = {
            task: {
                "scored": found["scored"],
                "units": found["units"],
                "features": {name: feature["mean"] for name, feature in found["features"].items()},
            }
            for task, found in summary["tasks"].items()
        }
        return {key: summary[key] for key in _FACTS} | {"tasks": tasks}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{path}: not a summary.json of `nuclr-train evaluate` ({error!r})") from error


def figures_table(evaluation: dict[str, Any]) -> str:
    """Return the figures in Markdown, with the setting that they hold for."""
    if not evaluation:
        return "No evaluation was given at export."
    head = (
        f"Setting: {evaluation['setting']}; split: {evaluation['split']}; held out: "
        f"{', '.join(evaluation['held_out'])}; seeds: {', '.join(map(str, evaluation['seeds'])) or 'none'}. In the "
        "inductive setting encoder and readouts are trained anew for every fold, without the animals that they are "
        "scored on: the figures then describe this recipe, not these very weights."
    )
    columns = ("task", "feature", "observed", *(name.replace("_", " ") for name in _SCORES))
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([head, "", *lines, *(f"| {' | '.join(row)} |" for row in _rows(evaluation))])


def _rows(evaluation: dict[str, Any]) -> Iterator[list[str]]:
    for task, found in evaluation["tasks"].items():
        for feature, seconds in found["features"].items():
            for observed, scores in seconds.items():
                time = f"{observed} s" if observed.replace(".", "").isdigit() else observed
                yield [task, feature, time, *(_shown(scores.get(name)) for name in _SCORES)]


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value <= 1 else f"{value:.0f}"
