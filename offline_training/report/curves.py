"""Scaling with the number of pretraining animals, and label efficiency, where result files hold them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from offline_training.report.files import read_json
from offline_training.report.page import Missing, Part, Picture, Section
from offline_training.report.style import MUTED, panels

TITLE = "Scaling and label efficiency"
ARM = re.compile(r"embedding_animals(\d+)")
"""Rows of `nuclr-train scale`: the embedding of an encoder that was trained on so many animals."""

Curve = dict[float, tuple[float, float, float]]
"""macro-F1 and its range over seeds by number of animals."""


def curves_section(results: Path | None) -> Section:
    """A curve for every task whose results have points for it, or why there is none."""
    summary = read_json(results / "summary.json") if results and (results / "summary.json").is_file() else {}
    parts: list[Part] = []
    for task, content in summary.get("tasks", {}).items():
        curve = scaling_curve(content["features"])
        if curve:
            parts.append(_picture(task, curve))
    if not parts:
        parts.append(Missing("scaling: the results hold no rows of `nuclr-train scale`."))
    return Section(TITLE, parts)


def scaling_curve(features: Mapping[str, Any]) -> Curve:
    """Macro-F1 after the whole recording by number of pretraining animals, ascending."""
    points = {int(found[1]): features[name]["mean"]["all"] for name in features if (found := ARM.fullmatch(name))}
    return {number: (one["macro_f1"], *one["macro_f1_range"]) for number, one in sorted(points.items())}


def _picture(task: str, curve: Curve) -> Picture:
    listed = ", ".join(f"{number:g}: {f1:.3f}" for number, (f1, _, _) in curve.items())
    return Picture(
        _figure(task, curve),
        alt=f"Macro-F1 of {task} by number of pretraining animals: {listed}.",
        caption=f"{task}: macro-F1 on held-out animals by the number of animals that the encoder was trained on; the "
        "readouts are fitted on all training animals. Bars: range over seeds.",
    )


def _figure(task: str, curve: Curve) -> Figure:
    figure, (axis,) = panels(1, 1, height_in=2.8, width_in=5.2)
    f1, low, high = zip(*curve.values(), strict=True)
    error = [[a - b for a, b in zip(f1, low, strict=True)], [b - a for a, b in zip(f1, high, strict=True)]]
    axis.errorbar(list(curve), f1, error, color=MUTED[0], marker="o", capsize=2)
    axis.set_xticks(list(curve))
    axis.set(xlabel="animals in pretraining", ylabel="macro-F1", ylim=(0, None), title=task)
    return figure
