"""Figures of scores. Shapes: C classes, K classes that are scored, S seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offline_training.reporting.report.style import GREY, INK, WIDTH_IN, Look, looks, panels

Scores = Mapping[str, Mapping[str, Any]]
"""Per time observed the scores of a feature set."""


def time_figure(features: Mapping[str, Scores], shown: Mapping[str, Look], *, chance: float) -> Figure:
    """Macro-F1 of every feature set over observed time, with its range over seeds."""
    figure, (axis,) = panels(1, 1, height_in=3.0)
    for offset, (name, times) in enumerate(features.items()):
        x = np.arange(len(times)) + 0.05 * (offset - (len(features) - 1) / 2)
        f1 = np.array([one["macro_f1"] for one in times.values()])
        low, high = np.array([one["macro_f1_range"] for one in times.values()]).T
        error = np.maximum([f1 - low, high - f1], 0)
        axis.errorbar(x, f1, error, color=shown[name].colour, marker="o", markersize=4.5, capsize=2, label=name)
    axis.axhline(chance, color=INK, linestyle=":", linewidth=1)
    times = next(iter(features.values()))
    axis.set_xticks(np.arange(len(times)), [_time(seconds) for seconds in times])
    axis.set(ylabel="macro-F1", xlabel="observed", ylim=(0, _top(axis)))
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def confusion_figure(counts: Mapping[str, np.ndarray], classes: Sequence[str], scored: np.ndarray) -> Figure:
    """One matrix (K, C + 1) a feature set; the column of no prediction is left out where it is empty."""
    columns = [*classes, "none"]
    side = max(2.6, 0.42 * len(scored) + 1.3)
    figure, axes = panels(1, len(counts), height_in=side, width_in=WIDTH_IN if len(counts) > 1 else 0.6 * WIDTH_IN)
    for axis, (name, table) in zip(axes, counts.items(), strict=True):
        used = len(columns) if table[:, -1].any() else len(columns) - 1
        shares = table[:, :used] / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axis.grid(visible=False)
        for row, column in np.ndindex(shares.shape):
            value = shares[row, column]
            colour = "white" if value > 0.55 else INK
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
        axis.set_xticks(range(used), columns[:used], rotation=45, ha="right", rotation_mode="anchor")
        units = table.sum(axis=1)
        rows = [f"{classes[c]} ({units[i]:.0f})" for i, c in enumerate(scored)]
        axis.set_yticks(range(len(scored)), rows)
        axis.set(title=name, xlabel="prediction")
        axis.tick_params(length=0)
    axes[0].set_ylabel("ground truth (units)")
    return figure


def f1_figure(
    features: Mapping[str, Sequence[Sequence[float]]], shown: Mapping[str, Look], classes: Sequence[str]
) -> Figure:
    """F1 of every class (S, K) per feature set: bars of means, points of seeds."""
    figure, (axis,) = panels(1, 1, height_in=3.0)
    width = 0.8 / len(features)
    for place, (name, runs) in enumerate(features.items()):
        values = np.array(runs)
        x = np.arange(len(classes)) + width * (place - (len(features) - 1) / 2)
        axis.bar(x, values.mean(axis=0), 0.9 * width, color=shown[name].colour, label=name, alpha=0.85, linewidth=0)
        if len(values) > 1:
            axis.scatter(np.tile(x, len(values)), values.ravel(), s=11, color="white", edgecolors=INK, linewidths=0.8)
    _class_ticks(axis, classes)
    axis.set(ylabel="F1", ylim=(0, _top(axis)))
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def recall_figure(animals: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> Figure:
    """Recall of every class in every animal, with the mean over animals."""
    figure, (axis,) = panels(1, 1, height_in=2.8)
    shown = looks(sorted(animals))
    few = len(animals) <= 9
    for place, name in enumerate(classes):
        own = [(animal, one) for animal, one in sorted(animals.items()) if name in one["recall"]]
        spread = np.linspace(-0.24, 0.24, len(own)) if len(own) > 1 else np.zeros(len(own))
        recall = [one["recall"][name] for _, one in own]
        if not own:
            continue
        axis.hlines(np.mean(recall), place - 0.32, place + 0.32, color=INK, linewidth=1.4, zorder=1)
        for offset, (animal, one) in zip(spread, own, strict=True):
            size = 14 + 5 * np.sqrt(one["units_of_class"][name])
            colour = shown[animal].colour if few else GREY
            axis.scatter(place + offset, one["recall"][name], s=size, color=colour, edgecolors="white", zorder=2)
    for animal in sorted(animals) if few else ():
        axis.scatter([], [], color=shown[animal].colour, s=30, label=animal)
    _class_ticks(axis, classes)
    axis.set(ylabel="recall", ylim=(-0.05, 1.05))
    if few:
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="animal", alignment="left")
    return figure


def fresh_figure(features: Mapping[str, Scores], *, chance: float) -> Figure:
    """Macro-F1 of every animal by feature set and time observed."""
    figure, (axis,) = panels(1, 1, height_in=3.0)
    shown = looks(list(features))
    width = 0.8 / len(features)
    for place, (name, times) in enumerate(features.items()):
        for column, one in enumerate(times.values()):
            x = column + width * (place - (len(features) - 1) / 2)
            jitter = np.linspace(-0.3, 0.3, len(one["macro_f1"])) * width
            label = name if not column else None
            axis.scatter(x + jitter, one["macro_f1"], s=12, color=shown[name].colour, label=label, alpha=0.75)
            axis.hlines(one["median"], x - 0.42 * width, x + 0.42 * width, color=INK, linewidth=1.6)
    axis.axhline(chance, color=INK, linestyle=":", linewidth=1)
    times = next(iter(features.values()))
    axis.set_xticks(range(len(times)), [_time(seconds) for seconds in times])
    axis.set(ylabel="macro-F1", xlabel="observed", ylim=(0, 1))
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), markerscale=1.6)
    return figure


def _class_ticks(axis: Axes, classes: Sequence[str]) -> None:
    many = len(classes) > 6
    axis.set_xticks(range(len(classes)), classes, rotation=45 if many else 0, ha="right" if many else "center")
    axis.grid(visible=False, axis="x")
    axis.set_xlim(-0.6, len(classes) - 0.4)


def _top(axis: Axes) -> float:
    return min(1.0, 1.08 * axis.get_ylim()[1])


def _time(seconds: str) -> str:
    return "whole recording" if seconds == "all" else f"{seconds} s"
