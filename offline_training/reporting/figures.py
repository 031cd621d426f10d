"""The figures of scores, each made here and nowhere else: for the pages in docs/ and for the page of a run.

The same numbers give the same file, byte by byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offline_training.reporting.names import row_name, task_name, time_name
from offline_training.reporting.nested import WHOLE, Row, Task
from offline_training.reporting.style import GREY, INK, MUTED, WIDTH_IN, panels

OURS, FLOOR, PLAIN = MUTED[0], MUTED[1], MUTED[2]
COLOURS = {"shipped": OURS, "floor": FLOOR, "plain": PLAIN, "comparison": MUTED[4]}
CURVE_STYLES = {"60": "--", WHOLE: "-"}
"""Lines of the precision-coverage curves, by time observed."""


def scores_figure(tasks: Mapping[str, Task]) -> Figure:
    """One row a task: macro-F1 and share of units called against seconds observed, and precision against coverage."""
    figure, axes = panels(len(tasks), 3, height_in=2.5 * len(tasks) + 0.3)
    for index, (name, task) in enumerate(tasks.items()):
        over_seconds, called, precision = axes[3 * index : 3 * index + 3]
        _macro_f1(over_seconds, task)
        over_seconds.set_title(f"{task_name(name)}, {len(task.scored)} classes", loc="left")
        _called(called, task.shipped)
        _precision(precision, task.shipped)
    axes[0].legend(loc="lower right", fontsize=7)
    return figure


def confusion_figure(tasks: Mapping[str, Task]) -> Figure | None:
    """One confusion matrix a task, of the shipped row after the whole recording, rows normalised to recall.

    None where no task has one.
    """
    found = {name: task for name, task in tasks.items() if task.shipped.seconds[WHOLE].confusion}
    if not found:
        return None
    side = max(2.6, 0.42 * max(len(task.classes) for task in found.values()) + 1.3)
    width = WIDTH_IN if len(found) > 1 else 0.6 * WIDTH_IN
    figure, axes = panels(1, len(found), height_in=side, width_in=width)
    for axis, (name, task) in zip(axes, found.items(), strict=True):
        _confusion(axis, task)
        axis.set(title=task_name(name), xlabel="prediction")
    axes[0].set_ylabel("ground truth (units)")
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a picture as SVG, the same bytes for the same picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "nuclr-stream", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def _macro_f1(axis: Axes, task: Task) -> None:
    """Every row over the times observed: single predictors grey, the shipped row and simpler methods in colour."""
    times = list(task.shipped.seconds)
    for row in task.rows:
        at = [index for index, time in enumerate(times) if time in row.seconds]
        scores = [row.seconds[times[index]] for index in at]
        f1 = np.array([one.macro_f1 for one in scores])
        if row.role == "predictor":
            axis.plot(at, f1, color=GREY, linewidth=0.9)
            continue
        bounds = np.array([one.macro_f1_interval or (one.macro_f1, one.macro_f1) for one in scores])
        error = np.maximum(np.stack([f1 - bounds[:, 0], bounds[:, 1] - f1]), 0)
        axis.errorbar(at, f1, error, color=COLOURS[row.role], marker="o", capsize=2, label=_short_name(row))
    if any(row.role == "predictor" for row in task.rows):
        axis.plot([], [], color=GREY, linewidth=0.9, label="single predictors")
    axis.axhline(1 / len(task.scored), color=INK, linestyle=":", linewidth=1)
    _time_ticks(axis, times)
    axis.set(ylabel="macro-F1", ylim=(0, 1))


def _called(axis: Axes, row: Row) -> None:
    """Share of units called a class, and of those the share that is right."""
    times = list(row.seconds)
    for scores, words, line in (
        ([one.called for one in row.seconds.values()], "called a class", "-"),
        ([one.precision for one in row.seconds.values()], "right when called", "--"),
    ):
        known = [(index, value) for index, value in enumerate(scores) if value is not None]
        if known:
            axis.plot(*zip(*known, strict=True), color=OURS, linestyle=line, marker="o", label=words)
    _time_ticks(axis, times)
    axis.set(ylabel="share of units", ylim=(0, 1.02))
    axis.legend(loc="lower right", fontsize=7)


def _precision(axis: Axes, row: Row) -> None:
    """Precision against the share of units called, as the threshold of abstention moves; a dot where it is set."""
    for time, scores in row.seconds.items():
        points = [(called, precision) for _, called, precision in scores.curve if precision is not None]
        if not points:
            continue
        axis.plot(*zip(*points, strict=True), color=OURS, linestyle=CURVE_STYLES.get(time, ":"), label=time_name(time))
        if scores.called and scores.precision is not None:
            axis.plot([scores.called], [scores.precision], "o", color=OURS)
    axis.set(xlabel="share of units called", ylabel="share right of those", xlim=(0, 1), ylim=(0, 1.02))
    if axis.lines:
        axis.legend(loc="lower left", fontsize=7)


def _confusion(axis: Axes, task: Task) -> None:
    """A matrix (C, C or C + 1): the last column, units without a prediction, is drawn where it holds any."""
    counts = np.array(task.shipped.seconds[WHOLE].confusion, dtype=np.float64)
    columns = [*task.classes, "none"][: counts.shape[1]]
    if len(columns) > len(task.classes) and not counts[:, -1].any():
        counts, columns = counts[:, :-1], columns[:-1]
    labelled = np.flatnonzero(counts.sum(axis=1))  # classes that are not scored have no row
    counts, names = counts[labelled], [task.classes[index] for index in labelled]
    units = counts.sum(axis=1)
    shares = counts / np.maximum(units, 1)[:, None]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.grid(visible=False)
    for row, column in np.ndindex(shares.shape):
        value = shares[row, column]
        colour = "white" if value > 0.55 else INK
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(units)), [f"{name} ({n:.0f})" for name, n in zip(names, units, strict=True)])
    axis.tick_params(length=0)


def _short_name(row: Row) -> str:
    known = {"shipped": "nuclr-stream", "floor": "spike statistics", "plain": "whole-recording readouts"}
    return known.get(row.role, row_name(row.row))


def _time_ticks(axis: Axes, times: list[str]) -> None:
    axis.set_xticks(range(len(times)), ["whole" if time == WHOLE else time for time in times])
    axis.set(xlabel="seconds observed")
