"""Sections of docs/results_<data set>.md: how the animals were split, every row of every task, comparison methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from offline_training.reporting.figures import confusion_figure, save, scores_figure
from offline_training.reporting.names import row_name, task_name, time_name
from offline_training.reporting.nested import WHOLE, Comparison, ComparisonRow, Nested, Scores, Task
from offline_training.reporting.style import drawing
from offline_training.reporting.tables import NONE, between, percent, score, table

ANIMALS_SHOWN = 10
"""So many animals have a line of their own; of more, the page shows the spread and the file has the animals."""
WHOLE_LENGTH = "0"
"""Stands for whole recordings among the lengths that the scores of a choice are listed by."""
SPREAD = {"lowest": 0.0, "quarter": 0.25, "middle": 0.5, "three quarters": 0.75, "highest": 1.0}
"""Rows of the table of many animals, and the quantile that each shows."""


def nested_section(nested: Nested, page: Path) -> str:
    """Protocol, figures (written to figures/ beside `page`), every task, and what each fold chose."""
    tasks = [_task_section(task_id, task) for task_id, task in nested.tasks.items()]
    return "\n".join([_protocol(nested), *_figures(nested, page), *tasks, _chosen(nested)])


def _protocol(nested: Nested) -> str:
    trained = sorted({fold.train_animals for fold in nested.folds})
    versions = ", ".join(f"{name} {version}" for name, version in nested.versions.items())
    return (
        f"**{nested.kind}.** {nested.protocol} Folds: {len(nested.folds)}; tested on {len(nested.animals)} animals, "
        f"trained on {' to '.join(map(str, trained[:1] + trained[1:][-1:]))} in each fold ({nested.setting}). Windows "
        f"of {nested.window_s:g} s every {nested.hop_s:g} s. Seed {nested.seed}, {nested.machine}; {versions}.\n\n"
        f"```\n{nested.command}\n```\n"
    )


def _figures(nested: Nested, page: Path) -> list[str]:
    """The lines that show the figures of a data set, which are drawn here."""
    lines = []
    with drawing():
        made = {"scores": scores_figure(nested.tasks), "confusion": confusion_figure(nested.tasks)}
        for kind, figure in made.items():
            if figure is not None:
                path = save(figure, page.parent / "figures" / f"{nested.name}_{kind}.svg")
                lines += [f"![{_words(kind)}, {nested.name}](figures/{path.name})\n"]
    return lines


def _words(kind: str) -> str:
    if kind == "confusion":
        return "Confusion matrices after the whole recording, shares of each true class"
    return "Macro-F1 and share called against seconds observed, precision against coverage"


def _task_section(task_id: str, task: Task) -> str:
    whole = task.shipped.seconds[WHOLE]
    lines = [
        f"## {task_name(task_id)}\n",
        f"Scored: {', '.join(task.scored)}; {whole.units:,} units; chance {1 / len(task.scored):.2f}.\n",
        _row_table(task),
        "",
        f"{row_name(task.shipped.row)}, by time observed:\n",
        _time_table(task),
        "",
        _animal_table(task),
        "",
    ]
    return "\n".join(lines)


def _row_table(task: Task) -> str:
    """One line a row: macro-F1 at every time, then the other scores of the whole recording."""
    times = list(task.shipped.seconds)
    rows = []
    for row in task.rows:
        f1 = [_f1(row.seconds[time]) if time in row.seconds else NONE for time in times]
        whole = row.seconds[WHOLE]
        rows.append([row_name(row.row, row.role), *f1, score(whole.balanced_accuracy), score(whole.ece)])
    head = ["row", *(f"macro-F1, {time_name(time)}" for time in times), "balanced accuracy", "ECE"]
    return table(head, rows)


def _time_table(task: Task) -> str:
    rows = [
        [
            time_name(time),
            _f1(one),
            score(one.balanced_accuracy),
            score(one.ece),
            percent(one.called),
            percent(one.precision),
        ]
        for time, one in task.shipped.seconds.items()
    ]
    return table(["observed", "macro-F1", "balanced accuracy", "ECE", "called a class", "right when called"], rows)


def _f1(scores: Scores) -> str:
    return between(scores.macro_f1, scores.macro_f1_interval)


def _animal_table(task: Task) -> str:
    """The shipped row and the floor by animal; the spread over animals where there are many."""
    ours = task.shipped.seconds[WHOLE].per_animal
    floor = task.floor.seconds[WHOLE].per_animal if task.floor else {}
    head = ["units", "macro-F1", "macro-F1, spike statistics", "ECE", "called a class", "right when called"]
    found = {}
    for animal, one in ours.items():
        simpler = floor[animal].macro_f1 if animal in floor else None
        found[animal] = [one.units, one.macro_f1, simpler, one.ece, one.called, one.precision]
    if len(ours) <= ANIMALS_SHOWN:
        rows = [[animal, *_animal_cells(values)] for animal, values in found.items()]
        return "Whole recordings, by animal:\n\n" + table(["animal", *head], rows)
    spread = np.array([[np.nan if v is None else v for v in values] for values in found.values()], dtype=np.float64)
    rows = [
        [words, *_animal_cells([_quantile(column, share) for column in spread.T])] for words, share in SPREAD.items()
    ]
    text = f"Whole recordings, spread over {len(ours)} animals, every column by itself (the file has every animal):\n\n"
    return text + table(["animal", *head], rows)


def _quantile(column: np.ndarray, quantile: float) -> float | None:
    known = column[~np.isnan(column)]
    return float(np.quantile(known, quantile)) if len(known) else None


def _animal_cells(values: list[Any]) -> list[str]:
    units, f1, floor, ece, called, precision = values
    return [f"{units:.0f}", score(f1), score(floor), score(ece), percent(called), percent(precision)]


def _chosen(nested: Nested) -> str:
    """What each fold chose inside its training animals."""
    rows = [
        [_listed(fold.test), task_name(task), _settings(chosen)]
        for fold in nested.folds
        for task, chosen in fold.chosen.items()
    ]
    if not rows:
        return ""
    return "## What each fold chose\n\n" + table(["tested", "task", "chosen inside the training animals"], rows) + "\n"


def _listed(animals: list[str]) -> str:
    return ", ".join(animals) if len(animals) <= 3 else f"{len(animals)} animals"


def _settings(chosen: Mapping[str, Any]) -> str:
    """Members of the pool with the C of each, and how the choice scored inside the training animals."""
    strength = chosen.get("c", {})
    words = []
    for name in chosen.get("members", strength):
        words.append(row_name(name) + (f" (C {strength[name]:g})" if name in strength else ""))
    if inner := chosen.get("scores", {}).get(WHOLE_LENGTH):
        words.append(f"macro-F1 {inner['left_out']:.2f} on training animals left out, {inner['training']:.2f} on all")
    return "; ".join(words)


def comparison_section(comparison: Comparison) -> str:
    lines = [
        "## Comparison methods\n",
        f"{comparison.protocol} Animals tested: {', '.join(comparison.animals)}. Seeds in square "
        f"brackets; with two, mean and range. {comparison.machine}. NeuPRINT needs gradient descent on the activity of "
        "the tested animals, so it knows more than a live system can.\n",
        f"```\n{comparison.command}\n```\n",
    ]
    for task_id, task in comparison.tasks.items():
        units = ", ".join(f"{name} {number}" for name, number in task.units.items())
        times = max((list(row.seconds) for row in task.rows), key=len)
        head = ["method", *(f"macro-F1, {time_name(time)}" for time in times), "balanced accuracy", "minutes a fold"]
        rows = [_comparison_cells(row, times) for row in task.rows]
        lines += [f"### {task_name(task_id)}\n", f"Scored units: {units}.\n", table(head, rows), ""]
    return "\n".join(lines)


def _comparison_cells(row: ComparisonRow, times: list[str]) -> list[str]:
    seeds = f" [{', '.join(map(str, row.seeds))}]" if row.seeds else ""
    setting = "" if row.setting == "inductive zero-shot" else f", {row.setting}"
    f1 = [
        between(row.seconds[time].macro_f1, row.seconds[time].macro_f1_range) if time in row.seconds else NONE
        for time in times
    ]
    minutes = NONE if row.cpu_s is None else f"{row.cpu_s[0] / 60:.1f}-{row.cpu_s[1] / 60:.1f}"
    whole = score(row.seconds[WHOLE].balanced_accuracy)
    return [row_name(row.row) + setting + seeds, *f1, whole, minutes]
