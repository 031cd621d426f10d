"""docs/results.md and the table of the README: the shipped pool beside plain spike statistics, for every data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from offline_training.reporting.names import task_name, time_name
from offline_training.reporting.nested import INDUCTIVE, WHOLE, ForeignRow, Nested, Scores, Task
from offline_training.reporting.tables import NONE, between, percent, score, table

LEVEL = 0.01
"""A difference in macro-F1 up to this is called level."""
FIRST_MINUTE = "60"
README_ROWS = 5
NOTHING = "No nested evaluation lies under `results/` yet."
INTRODUCTION = """\
# Results

This page and the pages that it links are generated from the files under `results/` by `make results`; no figure is
typed by hand. [results/README.md](../results/README.md) lists which command writes which file.

* Scores are of animals that neither encoder nor readouts saw; a table of another setting says so. Whatever was chosen
  (regularisation, members of the pool, temperature, threshold) was chosen anew inside the training animals of every
  fold; the pages say what each fold chose.
* Every score is of the top class of every labelled unit, abstained or not. A unit that no window shows counts as an
  error. Macro-F1 is the mean of F1 over the scored classes, predictions of all test animals pooled; in brackets a 95 %
  interval from resampling animals. *Not certain*: the interval of the paired difference holds 0.
* ECE is the expected calibration error of the top probability, 15 bins of equal mass. *Called* is the share of units
  whose top probability reaches the threshold of abstention, *right when called* the share of those that are right.
* *Spike statistics* is the simpler method: a plain readout of interval histogram, rate and variability of a unit and of
  its neighbours, without any encoder.
"""
FOREIGN = """\
## Units unlike those of training

Units of another kind should be called nothing, and units of the own kind should not be flagged as unlike training.
"""


def summary_page(nested: Sequence[Nested], foreign: Sequence[ForeignRow], others: Mapping[str, str]) -> str:
    """The text of docs/results.md; `others` are further pages, {file name: what they hold}."""
    parts = [INTRODUCTION]
    if nested:
        parts += ["## The shipped pool beside spike statistics\n", _pool_table(nested), "", simpler_ahead(nested), ""]
    else:
        parts += [NOTHING, ""]
    if foreign:
        parts += [FOREIGN, _foreign_table(foreign), ""]
    links = "\n".join(f"* [{words}]({name})" for name, words in others.items())
    return "\n".join([*parts, f"## Pages\n\n{links}\n"])


def readme_table(nested: Sequence[Nested]) -> str:
    """At most README_ROWS rows: one per data set and task, the pool at 60 s and whole, the floor beside it."""
    if not nested:
        return NOTHING
    rows = [_readme_row(one, task_id, task) for one in nested for task_id, task in one.tasks.items()][:README_ROWS]
    head = ["data, animals never seen in training", "question", "macro-F1 after 60 s", "whole recording"]
    head += ["spike statistics with neighbours, no encoder", "called a class, right when called", "ahead"]
    return "\n".join([table(head, rows), "", simpler_ahead(nested)])


def simpler_ahead(nested: Sequence[Nested]) -> str:
    """One sentence that says where spike statistics without an encoder reach more than the shipped pool."""
    compared = [
        (f"{task_name(task_id)} of {one.name}, {time_name(time)}", verdict(ours, task.floor.seconds[time]))
        for one in nested
        for task_id, task in one.tasks.items()
        if task.floor is not None
        for time, ours in task.shipped.seconds.items()
        if time in task.floor.seconds
    ]
    if not compared:
        return "No simpler method was scored beside the pool."
    ahead = [words for words, found in compared if found.startswith("spike statistics")]
    if not ahead:
        return f"Spike statistics without an encoder are ahead nowhere in these {len(compared)} comparisons."
    return (
        f"**The simpler method is ahead** in {len(ahead)} of {len(compared)} comparisons (spike statistics with "
        f"neighbours, no encoder): {'; '.join(ahead)}."
    )


def verdict(ours: Scores, floor: Scores) -> str:
    """Who reaches the higher macro-F1, and whether the interval of the difference over animals leaves that open."""
    difference = round(ours.macro_f1 - floor.macro_f1, 4)  # as files have it: 0.50 and 0.49 are LEVEL apart
    if abs(difference) <= LEVEL:
        return "level"
    interval = ours.over_floor.interval if ours.over_floor else (difference, difference)
    open_question = " (not certain)" if interval[0] <= 0 <= interval[1] else ""
    return ("nuclr-stream" if difference > 0 else "spike statistics") + open_question


def _pool_table(nested: Sequence[Nested]) -> str:
    rows = []
    for one in nested:
        for task_id, task in one.tasks.items():
            for time, ours in task.shipped.seconds.items():
                floor = task.floor.seconds.get(time) if task.floor else None
                first = time == next(iter(task.shipped.seconds))
                setting = "" if one.setting == INDUCTIVE else f" ({one.setting})"
                cells = [f"{one.name}{setting}: {task_name(task_id)}" if first else "", time_name(time)]
                cells += [between(ours.macro_f1, ours.macro_f1_interval), score(floor.macro_f1) if floor else NONE]
                cells += [verdict(ours, floor) if floor else NONE, score(ours.balanced_accuracy), score(ours.ece)]
                rows.append([*cells, percent(ours.called), percent(ours.precision)])
    head = ["data and question", "observed", "macro-F1", "spike statistics", "ahead", "balanced accuracy", "ECE"]
    return table([*head, "called", "right when called"], rows)


def _readme_row(nested: Nested, task_id: str, task: Task) -> list[str]:
    whole = task.shipped.seconds[WHOLE]
    minute = task.shipped.seconds.get(FIRST_MINUTE)
    floor = task.floor.seconds[WHOLE] if task.floor else None
    return [
        f"{nested.kind}: {len(nested.animals)} animals",
        f"{task_name(task_id)} ({', '.join(task.scored)})",
        score(minute.macro_f1 if minute else None, digits=2),
        score(whole.macro_f1, digits=2),
        score(floor.macro_f1 if floor else None, digits=2),
        f"{percent(whole.called)}, {percent(whole.precision)}",
        verdict(whole, floor) if floor else NONE,
    ]


def _foreign_table(foreign: Sequence[ForeignRow]) -> str:
    rows = [
        [one.bundle, one.units_of, f"{one.units:,}", task_name(one.task), percent(one.called), percent(one.flagged)]
        for one in foreign
    ]
    return table(["bundle", "units of", "units", "question", "called a class", "flagged as unlike training"], rows)
