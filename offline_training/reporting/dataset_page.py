"""Sections of docs/results_<data set>.md: how the animals were split, every row of every task, comparison methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offline_training.reporting.figures import confusion_figure, save, scores_figure
from offline_training.reporting.names import row_name, task_name, time_name
from offline_training.reporting.nested import INDUCTIVE, WHOLE, Comparison, ComparisonRow, Nested, Scores, Task
from offline_training.reporting.style import drawing
from offline_training.reporting.tables import NONE, between, percent, score, table

ANIMALS_SHOWN = 10
"""So many animals have a line of their own; of more, the page shows the spread and the file has the animals."""
WHOLE_LENGTH = "0"
"""Stands for whole recordings among the lengths that the scores of a choice are listed by."""
ANIMAL_COLUMNS = ("units", "macro-F1", "macro-F1, spike statistics", "called", "right when called")
SPREAD = {"lowest": 0.0, "quarter": 0.25, "middle": 0.5, "three quarters": 0.75, "highest": 1.0}
"""Rows of the table of many animals, and the quantile that each shows."""


def nested_section(nested: Nested, page: Path) -> str:
    """Protocol, figures (written to figures/ beside `page`), every task, the animals, and what each fold chose."""
    tasks = [_task_section(task_id, task) for task_id, task in nested.tasks.items()]
    return "\n".join([_protocol(nested), *_figures(nested, page), *tasks, _animals(nested), _chosen(nested)])


def _protocol(nested: Nested) -> str:
    trained = sorted({fold.train_animals for fold in nested.folds})
    versions = ", ".join(f"{name} {version}" for name, version in nested.versions.items())
    return (
        f"**{nested.kind}.** {nested.protocol} Folds: {len(nested.folds)}; tested on {len(nested.animals)} animals, "
        f"trained on {' to '.join(map(str, trained[:1] + trained[1:][-1:]))} in each fold ({nested.setting}). Windows "
        f"of {nested.window_s:g} s every {nested.hop_s:g} s. Units of recordings that are shorter than a time are "
        f"predicted from all of theirs. Seed {nested.seed}, {nested.machine}; {versions}.\n\n"
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
    """One line a row: macro-F1 at every time, then the other scores of the whole recording."""
    times = list(task.shipped.seconds)
    rows = []
    for row in task.rows:
        f1 = [_f1(row.seconds[time]) if time in row.seconds else NONE for time in times]
        whole = row.seconds[WHOLE]
        rows.append([row_name(row.row, row.role), *f1, score(whole.balanced_accuracy), score(whole.ece)])
    head = ["row", *(f"macro-F1, {time_name(time)}" for time in times), "balanced accuracy", "ECE"]
    units = task.shipped.seconds[WHOLE].units
    facts = f"Scored: {', '.join(task.scored)}; {units:,} units; chance {1 / len(task.scored):.2f}.\n"
    return "\n".join([f"## {task_name(task_id)}\n", facts, table(head, rows), ""])


def _f1(scores: Scores) -> str:
    return between(scores.macro_f1, scores.macro_f1_interval)


def _animals(nested: Nested) -> str:
    """The shipped row and the floor by animal, tasks side by side; the spread over animals where there are many."""
    found = {task: _by_animal(content) for task, content in nested.tasks.items()}
    head = ["animal"] + [f"{task_name(task)}: {words}" for task in found for words in ANIMAL_COLUMNS]
    animals = list(dict.fromkeys(animal for of_task in found.values() for animal in of_task))
    if len(animals) <= ANIMALS_SHOWN:
        nothing = (None,) * len(ANIMAL_COLUMNS)
        rows = [
            [animal] + [c for one in found.values() for c in _cells(one.get(animal, nothing))] for animal in animals
        ]
        return "## Animals\n\nWhole recordings.\n\n" + table(head, rows) + "\n"
    rows = []
    for words, share in SPREAD.items():
        columns = [list(zip(*one.values(), strict=True)) for one in found.values()]
        rows.append([words] + [cell for one in columns for cell in _cells([_quantile(c, share) for c in one])])
    text = f"Whole recordings, spread over {len(animals)} animals, every column by itself; the file has every animal."
    return f"## Animals\n\n{text}\n\n" + table(head, rows) + "\n"


def _by_animal(task: Task) -> dict[str, tuple[float | None, ...]]:
    """{animal: the values of ANIMAL_COLUMNS} after the whole recording."""
    floor = task.floor.seconds[WHOLE].per_animal if task.floor else {}
    return {
        animal: (
            one.units,
            one.macro_f1,
            floor[animal].macro_f1 if animal in floor else None,
            one.called,
            one.precision,
        )
        for animal, one in task.shipped.seconds[WHOLE].per_animal.items()
    }


def _quantile(column: Sequence[float | None], share: float) -> float | None:
    known = [value for value in column if value is not None]
    return float(np.quantile(known, share)) if known else None


def _cells(values: Sequence[float | None]) -> list[str]:
    units, f1, floor, called, precision = values
    return [NONE if units is None else f"{units:.0f}", score(f1), score(floor), percent(called), percent(precision)]


def _chosen(nested: Nested) -> str:
    """What each fold chose inside its training animals."""
    tasks = list(nested.tasks)
    rows = [[_listed(fold.test), *(_settings(fold.chosen.get(task, {})) for task in tasks)] for fold in nested.folds]
    return "## What each fold chose\n\n" + table(["tested", *map(task_name, tasks)], rows) + "\n"


def _listed(animals: list[str]) -> str:
    return ", ".join(animals) if len(animals) <= 3 else f"{len(animals)} animals"


def _settings(chosen: Mapping[str, Any]) -> str:
    """Members of the pool with the C of each by exposure, and how the choice scored inside the training animals."""
    strength = chosen.get("c", {})
    words = []
    for name in chosen.get("members", strength):
        found = ", ".join(f"{c:g}" for c in strength.get(name, ()))
        words.append(row_name(name) + (f" (C {found})" if found else ""))
    if inner := chosen.get("scores", {}).get(WHOLE_LENGTH):
        words.append(f"macro-F1 {inner['left_out']:.2f} on training animals left out, {inner['training']:.2f} on all")
    return "; ".join(words)


def comparison_section(comparison: Comparison) -> str:
    """Methods of others on the same data, tasks side by side."""
    animals = [animal for fold in comparison.folds for animal in fold.test]
    lines = [
        "## Comparison methods\n",
        f"{comparison.protocol} Animals tested: {', '.join(animals)}. In round brackets an interval or, with the seeds "
        f"in square brackets, their range. {comparison.machine}. NeuPRINT needs gradient descent on the activity of "
        "the tested animals, so it knows more than a live system can.\n",
        f"```\n{comparison.command}\n```\n",
    ]
    head = ["method"]
    for task_id, task in comparison.tasks.items():
        name = task_name(task_id)
        head += [f"{name}: macro-F1, 60 s", f"{name}: whole recording", f"{name}: balanced accuracy"]
        lines += [f"{name}: {', '.join(task.scored)}; {task.rows[0].seconds[WHOLE].units:,} units.\n"]
    by_task = [{row.row: row for row in task.rows} for task in comparison.tasks.values()]
    rows = []
    for method in dict.fromkeys(method for found in by_task for method in found):
        known = [found.get(method) for found in by_task]
        first = next(row for row in known if row is not None)
        minutes = NONE if first.budget is None else f"{first.budget.cpu_s / 60:.1f}"
        rows.append([_method(first), *(cell for row in known for cell in _comparison_cells(row)), minutes])
    return "\n".join([*lines, table([*head, "CPU minutes, all folds"], rows), ""])


def _method(row: ComparisonRow) -> str:
    seeds = f" [{', '.join(map(str, row.seeds))}]" if row.seeds else ""
    return row_name(row.row) + ("" if row.setting == INDUCTIVE else f", {row.setting}") + seeds


def _comparison_cells(row: ComparisonRow | None) -> list[str]:
    """Macro-F1 after the first minute and the whole recording, and balanced accuracy; dashes without scores."""
    if row is None:
        return [NONE] * 3
    cells = []
    for time in ("60", WHOLE):
        one = row.seconds.get(time)
        cells.append(between(one.macro_f1, one.macro_f1_range or one.macro_f1_interval) if one else NONE)
    return [*cells, score(row.seconds[WHOLE].balanced_accuracy)]
