"""Scaling with the number of pretraining animals, and label efficiency, where result files hold them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from offline_training.reporting.report.files import read_json
from offline_training.reporting.report.page import Missing, Part, Picture, Section
from offline_training.reporting.report.style import looks, panels
from offline_training.reporting.results import FEATURES

TITLE = "Scaling and label efficiency"
ARM = re.compile(r"embedding_animals(\d+)")
"""Rows of `nuclr-train scale`: the embedding of an encoder that was trained on so many animals."""

Curve = dict[float, tuple[float, float, float]]
"""Macro-F1 and its range over runs, by number of animals or share of labels, ascending."""


def curves_section(results: Path | None) -> Section:
    """Curves of every task whose results have points for them, or why there are none.

    Raises ReportError for a file that cannot be read.
    """
    parts = [*_scaling(results), *_label_efficiency(results)]
    return Section(TITLE, parts)


def scaling_curve(features: Mapping[str, Any]) -> Curve:
    """Macro-F1 after the whole recording by number of pretraining animals."""
    points = {int(found[1]): features[name]["mean"]["all"] for name in features if (found := ARM.fullmatch(name))}
    return {number: (one["macro_f1"], *one["macro_f1_range"]) for number, one in sorted(points.items())}


def label_curve(shares: Mapping[str, Any]) -> Curve:
    """Mean macro-F1 by share of the labelled training units; the range is that over seeds and draws."""
    points = sorted((float(share), one["macro_f1"]) for share, one in shares.items())
    return {share: (float(np.mean(f1)), min(f1), max(f1)) for share, f1 in points}


def _scaling(results: Path | None) -> list[Part]:
    summary = read_json(results / "summary.json") if results and (results / "summary.json").is_file() else {}
    parts: list[Part] = []
    for task, content in summary.get("tasks", {}).items():
        if curve := scaling_curve(content["features"]):
            listed = ", ".join(f"{number:g}: {f1:.3f}" for number, (f1, _, _) in curve.items())
            figure = _figure({"NuCLR embedding": curve}, task, "animals in pretraining")
            figure.axes[0].set_xticks(list(curve))
            alt = f"Macro-F1 of {task} by number of pretraining animals: {listed}."
            text = (
                f"{task}: macro-F1 on held-out animals by the number of animals that the encoder was trained on; the "
                "readouts are fitted on all training animals. Bars: range over seeds."
            )
            parts.append(Picture(figure, alt, text))
    return parts or [Missing("scaling: the results hold no rows of `nuclr-train scale`.")]


def _label_efficiency(results: Path | None) -> list[Part]:
    path = results / "label_efficiency.json" if results else None
    if path is None or not path.is_file():
        return [Missing("label efficiency: there is no label_efficiency.json of `nuclr-train label-efficiency`.")]
    found = read_json(path)
    parts: list[Part] = []
    for task, content in found["tasks"].items():
        curves = {FEATURES.get(name, name): label_curve(shares) for name, shares in content["features"].items()}
        listed = "; ".join(f"{name}: {_percent(curve)}" for name, curve in curves.items())
        figure = _figure(curves, task, "share of the labelled training units")
        _share_ticks(figure, sorted({share for curve in curves.values() for share in curve}))
        text = (
            f"{task}: macro-F1 on held-out animals when readouts are fitted on a share of the labelled units. Points: "
            f"mean; bars: range over seeds {', '.join(map(str, found['seeds']))} and {found['draws']} draws."
        )
        parts.append(Picture(figure, f"Macro-F1 of {task} by share of labels. {listed}.", text))
    return parts


def _percent(curve: Curve) -> str:
    return ", ".join(f"{100 * share:g} %: {f1:.3f}" for share, (f1, _, _) in curve.items())


def _share_ticks(figure: Figure, shares: list[float]) -> None:
    axis = figure.axes[0]
    axis.set_xscale("log")
    axis.set_xticks(shares, [f"{100 * share:g} %" for share in shares])
    axis.minorticks_off()


def _figure(curves: Mapping[str, Curve], title: str, along: str) -> Figure:
    figure, (axis,) = panels(1, 1, height_in=2.9, width_in=6.6)
    shown = looks(list(curves))
    for name, curve in curves.items():
        f1, low, high = np.array(list(curve.values())).T
        error = np.maximum([f1 - low, high - f1], 0)
        axis.errorbar(list(curve), f1, error, color=shown[name].colour, marker="o", capsize=2, label=name)
    axis.set(xlabel=along, ylabel="macro-F1", ylim=(0, None), title=title)
    if len(curves) > 1:
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
