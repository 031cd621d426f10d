"""Evaluation figures for manifest and card: read from what `nuclr-train evaluate` wrote, never typed.

Two kinds of files are understood: summary.json of held-out folds, and the scores on fresh simulated animals. Both
become {setting, split, held_out, seeds, describes, tasks: {task: {feature: {time observed: mean or median scores}}}}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporters.graphs import ExportError

_FOLDS = (
    "a recipe: where it says inductive, encoder and readouts were trained anew for every fold, without the animals "
    "that they are scored on"
)
_FRESH = "these very weights, on simulated animals that nothing was trained on; median over the animals"
_SCORES = ("macro_f1", "balanced_accuracy", "precision", "coverage", "units")


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return what a manifest keeps of an evaluation. Raises ExportError when the file is something else."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        return _of_fresh_animals(result) if "animals" in result else _of_folds(result)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{path}: not a result of `nuclr-train evaluate` ({error!r})") from error


def _of_folds(summary: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: summary[key] for key in ("name", "setting", "split", "held_out", "seeds", "encoder", "versions")},
        "describes": _FOLDS,
        "selected_on_these_folds": _selected(summary["tasks"]),
        "tasks": {
            task: {name: feature["mean"] for name, feature in found["features"].items()}
            for task, found in summary["tasks"].items()
        },
    }


def _selected(tasks: dict[str, Any]) -> list[str]:
    """Features of which something was chosen by the very scores that are shown."""
    rows = [row for found in tasks.values() for row in found["features"].items()]
    return sorted({name for name, feature in rows if feature.get("selected_on_these_folds")})


def _of_fresh_animals(result: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: result[key] for key in ("name", "setting", "encoder", "versions", "units", "duration_s")},
        "split": "fresh animals",
        "held_out": result["animals"],
        "seeds": [],
        "describes": _FRESH,
        "tasks": {
            task: {
                name: {seconds: _median_scores(scores) for seconds, scores in feature.items()}
                for name, feature in found["features"].items()
            }
            for task, found in result["tasks"].items()
        },
    }


def _median_scores(scores: dict[str, Any]) -> dict[str, Any]:
    return {
        "macro_f1": scores["median"],
        "macro_f1_range": scores["range"],
        "balanced_accuracy": scores["balanced_accuracy_median"],
    }


def figures_table(evaluation: dict[str, Any]) -> str:
    """Return the figures in Markdown, with the setting that they hold for."""
    if not evaluation:
        return "No evaluation was given at export."
    head = (
        f"Setting: {evaluation['setting']}; split: {evaluation['split']}; scored on: "
        f"{', '.join(evaluation['held_out'])}"
        + (f"; seeds: {', '.join(map(str, evaluation['seeds']))}" if evaluation["seeds"] else "")
        + f". The figures describe {evaluation['describes']}."
    )
    if chosen := evaluation.get("selected_on_these_folds"):
        head += f" Selected on these very folds, and flattered by that: {', '.join(chosen)}."
    columns = ("task", "feature", "observed", *(name.replace("_", " ") for name in _SCORES))
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([head, "", *lines, *(f"| {' | '.join(row)} |" for row in _rows(evaluation["tasks"]))])


def _rows(tasks: dict[str, Any]) -> Iterator[list[str]]:
    for task, features in tasks.items():
        for feature, times in features.items():
            for observed, scores in times.items():
                time = f"{observed} s" if observed.replace(".", "").isdigit() else observed
                cells = [_shown(scores.get(name)) for name in _SCORES]
                if low_high := scores.get("macro_f1_range"):
                    cells[0] += f" ({'-'.join(map(_shown, low_high))})"
                yield [task, feature, time, *cells]


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value <= 1 else f"{value:.0f}"
