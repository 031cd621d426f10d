"""Scores on animals held out, from nested.json: macro-F1 over time, precision against coverage, confusion, animals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from offline_training.reporting.figures import confusion_figure, scores_figure
from offline_training.reporting.files import ResultsError
from offline_training.reporting.names import row_name, task_name
from offline_training.reporting.nested import WHOLE, Nested, Task, load
from offline_training.reporting.report.page import Missing, Part, Picture, Section, Table
from offline_training.reporting.tables import percent, score

TITLE = "Scores"


def scores_sections(results: Path | None) -> list[Section]:
    """A section for every task of the results in a folder, or one that says why there is none.

    Raises ResultsError for a folder that does not exist or a file that is damaged.
    """
    if results is None:
        return [Section(TITLE, [Missing("no results were given (--results DIR, a folder of `nuclr-train evaluate`).")])]
    if not results.is_dir():
        raise ResultsError(f"{results}: no such folder; give the folder that `nuclr-train evaluate` wrote")
    if not (results / "nested.json").is_file():
        return [Section(TITLE, [Missing(f"{results.name} holds no nested.json of `nuclr-train evaluate`.")])]
    nested = load(Nested, results / "nested.json")
    lead = (
        f"{nested.kind}. {nested.protocol} These are scores of the procedure: encoder and readouts were fitted anew in "
        f"every fold, without the {len(nested.animals)} animals that they are scored on."
    )
    return [
        Section(f"{TITLE}: {task_name(name)}", [lead, *_parts({name: task})]) for name, task in nested.tasks.items()
    ]


def _parts(tasks: Mapping[str, Task]) -> list[Part]:
    """The figures of one task, and its scores by animal."""
    ((name, task),) = tasks.items()
    whole = task.shipped.seconds[WHOLE]
    listed = ", ".join(f"{row_name(row.row, row.role)} {score(row.seconds[WHOLE].macro_f1)}" for row in task.rows)
    parts: list[Part] = [
        Picture(
            scores_figure(tasks),
            alt=f"Macro-F1 of {task_name(name)} after the whole recording: {listed}. Called: {percent(whole.called)}, "
            f"right of those: {percent(whole.precision)}.",
            caption="Left: macro-F1 by how much was observed, with 95 % intervals; dotted: one over the number of "
            "classes. Middle: share of units called a class, and share right of those. Right: precision against the "
            "share called as the threshold of abstention moves; the dot is the threshold that was chosen.",
        )
    ]
    confusion = confusion_figure(tasks)
    if confusion is None:
        parts.append(Missing("confusion: the results hold no confusion matrix."))
    else:
        shares = ", ".join(
            f"{label} {counts[index] / sum(counts):.2f}"
            for index, (label, counts) in enumerate(zip(task.classes, whole.confusion, strict=True))
            if sum(counts)
        )
        parts.append(
            Picture(
                confusion,
                alt=f"Confusion matrix; share of each class that was recognised: {shares}.",
                caption="Rows: ground truth, with the number of units; columns: prediction after the whole recording, "
                "abstained or not. Shares of the row.",
            )
        )
    rows = [
        [animal, str(one.units), score(one.macro_f1), score(one.ece), percent(one.called), percent(one.precision)]
        for animal, one in whole.per_animal.items()
    ]
    head = ["animal", "units", "macro-F1", "ECE", "called a class", "right when called"]
    return [*parts, Table(head, rows, "Whole recordings, by animal.")]
