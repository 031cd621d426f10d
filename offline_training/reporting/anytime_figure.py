"""Pictures and the section of docs/results.md for labels as time goes on, from the JSON of `anytime`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offline_training.reporting.figures import picture, save
from offline_training.reporting.tables import name_of, number, table

SHOWN = {"predictors": "#0072B2", "embedding": "#D55E00"}
"""Rows of the pictures and their colours, which are stated apart in every kind of colour blindness (Okabe and Ito)."""
WAYS = {"single": ("-", "o", "single units"), "multi": ("--", "s", "with neighbours along depth")}
CURVES = {"macro_f1": "macro-F1", "coverage": "share of units called", "ece": "ECE"}
TABLE = {
    "macro_f1": "macro-F1",
    "balanced_accuracy": "BA",
    "coverage": "called",
    "precision": "right",
    "ece": "ECE",
    "brier": "Brier",
    "in_set": "true class in set",
    "set_size": "classes in set",
}
SETTLED = {"stable_s": "stable since, s", "flips_per_minute": "flips a minute"}

Result = dict[str, Any]


def anytime_figure(result: Result, path: Path) -> Path:
    """One row a task: macro-F1, coverage and ECE against seconds observed, and at the last time drawn a reliability
    diagram and risk against coverage of single units."""
    figure = Figure(figsize=(14, 2.9 * len(result["tasks"]) + 0.5), layout="constrained")
    grid = figure.subplots(len(result["tasks"]), len(CURVES) + 2, squeeze=False)
    for row, (task, found) in zip(grid, result["tasks"].items(), strict=True):
        for axes, (score, words) in zip(row, CURVES.items(), strict=False):
            _over_seconds(axes, found, score)
            axes.set(ylabel=words)
        row[0].set_title(f"{task}, {len(found['scored'])} classes", fontsize=9, loc="left")
        _reliability(row[-2], found)
        _risk(row[-1], found)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(handles), fontsize=8, frameon=False)
    return save(figure, path)


def anytime_section(results: Path, page: Path) -> list[str]:
    """What the page says of every results/anytime/*.json, nothing without one; draws their pictures."""
    parts = [_section(path, page) for path in sorted((results / "anytime").glob("*.json"))]
    return ["## Labels as time goes on\n", INTRODUCTION, *parts] if parts else []


def _over_seconds(axes: Axes, found: Result, score: str) -> None:
    for name, colour in SHOWN.items():
        for way, (line, marker, words) in WAYS.items():
            points = found["rows"][name].get(way, {})
            known = {float(s): point[score] for s, point in points.items() if point.get(score) is not None}
            label = f"{name_of(name)}, {words}"
            axes.plot([*known], [*known.values()], line, marker=marker, markersize=3.5, color=colour, label=label)
    seconds = [float(s) for s in found["rows"]["predictors"]["single"]]
    axes.set(xscale="log", xlabel="seconds observed", ylim=(0, 1 if score != "ece" else None))
    axes.set_xticks(seconds, [f"{value:g}" for value in seconds], fontsize=7)
    axes.minorticks_off()
    _plain(axes)


def _reliability(axes: Axes, found: Result) -> None:
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, colour in SHOWN.items():
        bins = _drawn(found, name, "reliability")[1]
        axes.plot([b["probability"] for b in bins], [b["right"] for b in bins], "o-", markersize=3, color=colour)
    axes.set(xlabel="top-1 probability", ylabel=f"right, {_drawn(found, 'predictors', 'reliability')[0]} s")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    _plain(axes)


def _risk(axes: Axes, found: Result) -> None:
    for name, colour in SHOWN.items():
        points = _drawn(found, name, "risk_coverage")[1]
        axes.plot([p["coverage"] for p in points], [p["risk"] for p in points], "o-", markersize=3, color=colour)
    axes.axhline(0.1, color="0.7", linewidth=1)
    axes.set(xlabel="surest units, share", ylabel=f"wrong, {_drawn(found, 'predictors', 'risk_coverage')[0]} s")
    axes.set(xlim=(0, 1), ylim=(0, None))
    _plain(axes)


def _drawn(found: Result, name: str, diagram: str) -> tuple[str, Sequence[Result]]:
    """The last time that has the diagram of single units, and the diagram."""
    return [(s, point[diagram]) for s, point in found["rows"][name]["single"].items() if diagram in point][-1]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_size(8)
    axes.yaxis.label.set_size(8)


INTRODUCTION = """\
* Seconds are those observed of a recording; every point is of the same units, those of recordings of at least the last
  time. A unit that no window shows is an error and counts as abstained, but is in no ECE, Brier score or set.
* *Called*, *right*: the share of units whose probability reaches the threshold that promises 0.90, and the share of
  those that are right. Thresholds are fitted on other animals.
* *Stable since*: median over units of the last change of the top-1 class within the time observed, read after every
  window. *Flips*: changes of that class after its first.
* *With neighbours*: probabilities averaged along depth; **these rows use depth**, with the thresholds of single units.
* *Population*: a recording is dealt into parts of so many units, each embedded by itself; one draw, and every unit is
  asked at every size. Below the least population of the training the daemon says so and lets only spike statistics
  speak; the other rows of such sizes are asked nevertheless.
* In the pictures the last two columns are of single units at the last time; grey lines are probabilities that hold and
  the 10 % of errors that the threshold allows.
"""


def _section(path: Path, page: Path) -> str:
    result: Result = json.loads(path.read_text(encoding="utf-8"))
    chosen = " **The predictors were designed by scores on these very folds: these figures flatter them.**"
    lines = [
        f"### {path.stem}: {result['kind'] or result['name']}\n",
        f"**{result['setting']}**, {result['split']}, seed {result['seed']}: {len(result['recordings'])} recordings of "
        f"{len(result['animals'])} animals. A window every {result['hop_s']:g} s."
        + (chosen if result["selected_on_these_folds"] else "")
        + "\n",
        *picture(
            anytime_figure(result, page.parent / "figures" / f"anytime_{path.stem}.svg"),
            page,
            f"Scores against seconds observed, {path.stem}",
        ),
    ]
    for task, found in result["tasks"].items():
        units = ", ".join(f"{name} {count}" for name, count in found["units"].items())
        lines += [f"#### {task}\n", f"Scored units: {units}.\n", *_tables(result, found)]
    return "\n".join(lines)


def _tables(result: Result, found: Result) -> list[str]:
    lines = []
    for way, (_, _, words) in WAYS.items():
        rows = [
            [name_of(name), seconds, *(number(point.get(score)) for score in TABLE), *_settled(point)]
            for name in found["rows"]
            for seconds, point in found["rows"][name].get(way, {}).items()
            if name in SHOWN or int(seconds) in (60, 600)
        ]
        if rows:
            lines += [
                f"{words.capitalize()}:\n",
                table(["row", "seconds", *TABLE.values(), *SETTLED.values()], rows),
                "",
            ]
    sizes = result["population"]["sizes"]
    rows = [
        [name_of(name), f"{seconds} s"] + [number(by_size[size]["macro_f1"]) for size in sizes]
        for name, row in found["rows"].items()
        for seconds, by_size in row["population"].get("single", {}).items()
    ]
    if rows:
        lines += [f"Macro-F1 by population, {len(result['population']['recordings'])} recordings:\n"]
        lines += [table(["row", "after", *(f"{size} units" for size in sizes)], rows), ""]
    words = sorted({words for row in found["rows"].values() for words in row["calibrated_on"] if words})
    return [*lines, "Calibrated on: " + "; ".join(words) + ".\n"]


def _settled(point: Result) -> list[str]:
    return ["-" if point[name] is None else f"{point[name]:.3g}" for name in SETTLED]
