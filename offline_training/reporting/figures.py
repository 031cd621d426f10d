"""Pictures for docs/results.md, from the same JSON as its tables: confusion matrices and curves, as plain SVG.

The same numbers give the same file, byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from offline_training.reporting.tables import name_of, ordered

MOST_MATRICES = 4
PREFERRED = ("embedding", "embedding_pooled")

Result = dict[str, Any]


def confusion_figure(found: Result, path: Path) -> Path:
    """Confusion matrices of our rows and of the best others, whole recordings, rows normalised to recall."""
    score = {name: one["mean"]["all"]["macro_f1"] for name, one in found["features"].items()}
    names = [name for name in PREFERRED if name in score]
    others = sorted(score.keys() - {*names, "depth_only"}, key=lambda name: (-score[name], name))
    names += others[: MOST_MATRICES - len(names)]
    predicted = [*found["classes"], "none"]
    figure = Figure(figsize=(3.4 * len(names), 3.1), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        counts = np.array(found["features"][name]["confusion"])
        share = counts / counts.sum(axis=1, keepdims=True)
        axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
        for (row, column), value in np.ndenumerate(share):
            colour = "white" if value > 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(predicted)), predicted, fontsize=7, rotation=45)
        axes.set_yticks(range(len(found["scored"])), found["scored"], fontsize=7)
        axes.set_title(f"{name_of(name)}\nmacro-F1 {score[name]:.3f}", fontsize=8)
        axes.set_xlabel("predicted", fontsize=7)
        axes.set_ylabel("label", fontsize=7)
    return save(figure, path)


def scaling_figure(found: Result, path: Path) -> Path | None:
    """Macro-F1 against the number of animals pretrained on; None where fewer than two numbers were tried."""
    names = [name for name in ordered(found["features"]) if name.startswith("embedding_animals")]
    if len(names) < 2:
        return None
    animals = [int(re.sub(r"\D", "", name)) for name in names]
    figure = Figure(figsize=(4.5, 3), layout="constrained")
    axes = figure.subplots()
    for seconds in found["features"][names[0]]["mean"]:
        means = [found["features"][name]["mean"][seconds] for name in names]
        axes.plot(animals, [mean["macro_f1"] for mean in means], "o-", label=f"{seconds} s".replace("all s", "all"))
    axes.set(xscale="log", xlabel="animals pretrained on", ylabel="macro-F1")
    axes.set_xticks(animals, [str(number) for number in animals])
    axes.minorticks_off()
    axes.legend(title="observed", fontsize=7, title_fontsize=7)
    return save(figure, path)


def label_figure(found: Result, path: Path) -> Path:
    """Macro-F1 of every feature against the share of labelled training units, with the range over seeds and draws."""
    figure = Figure(figsize=(4.5, 3), layout="constrained")
    axes = figure.subplots()
    for name in ordered(found["features"]):
        points = found["features"][name]
        percent = [float(share) * 100 for share in points]
        means = [float(np.mean(point["macro_f1"])) for point in points.values()]
        axes.plot(percent, means, "o-", label=name_of(name))
        low, high = zip(*((min(p["macro_f1"]), max(p["macro_f1"])) for p in points.values()), strict=True)
        axes.fill_between(percent, low, high, alpha=0.2)
    axes.set(xscale="log", xlabel="labelled training units, %", ylabel="macro-F1")
    axes.set_xticks(percent, [f"{value:g}" for value in percent])
    axes.minorticks_off()
    axes.legend(fontsize=7)
    return save(figure, path)


def picture(path: Path | None, page: Path, words: str) -> Sequence[str]:
    """The lines of a page that show a picture, none without one."""
    return [] if path is None else [f"![{words}]({path.relative_to(page.parent).as_posix()})", ""]


def save(figure: Figure, path: Path) -> Path:
    """Write a picture as SVG, the same bytes for the same picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "nuclr-stream", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path
