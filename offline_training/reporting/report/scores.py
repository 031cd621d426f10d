"""Scores on animals held out: macro-F1 over time, confusion, F1 of every class by seed and recall by animal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offline_training.reporting.report.curves import ARM
from offline_training.reporting.report.files import ReportError, read_json
from offline_training.reporting.report.outcomes import WHOLE, Outcome, outcomes
from offline_training.reporting.report.page import Missing, Part, Picture, Section
from offline_training.reporting.report.score_figures import (
    confusion_figure,
    f1_figure,
    fresh_figure,
    recall_figure,
    time_figure,
)
from offline_training.reporting.report.style import Look, looks
from offline_training.reporting.results import FEATURES

TITLE = "Scores"
HEADLINE = "embedding"
FEATURES_SHOWN = 5


def scores_sections(results: Path | None) -> list[Section]:
    """A section for every task of the results in a folder, or one that says why there is none.

    Raises ReportError for a folder or file that is none of `nuclr-train evaluate`.
    """
    if results is None:
        return [Section(TITLE, [Missing("no results were given (--results DIR, a folder of `nuclr-train evaluate`).")])]
    if not results.is_dir():
        raise ReportError(f"{results}: no such folder; give the --out of `nuclr-train evaluate`")
    sections = []
    if (results / "summary.json").is_file():
        sections += _held_out(results, read_json(results / "summary.json"))
    if (results / "fresh_animals.json").is_file():
        sections += _fresh(read_json(results / "fresh_animals.json"))
    return sections or [Section(TITLE, [Missing(f"{results.name} holds no summary.json and no fresh_animals.json.")])]


def shown_name(feature: str) -> str:
    """How a feature set is called for readers."""
    return FEATURES.get(feature, feature)


def _held_out(results: Path, summary: Mapping[str, Any]) -> list[Section]:
    return [
        Section(
            f"{TITLE}: {task}",
            [_setting(summary, task), *_task(content, outcomes(results, task, content["features"]))],
        )
        for task, content in summary["tasks"].items()
    ]


def _setting(summary: Mapping[str, Any], task: str) -> str:
    units = ", ".join(f"{name} {number}" for name, number in summary["tasks"][task]["units"].items())
    seeds = ", ".join(map(str, summary["seeds"])) or "none"
    return (
        f"{summary['setting'].capitalize()}, {summary['split']}; held out: {', '.join(summary['held_out'])}. Seeds of "
        f"the pretraining: {seeds}. Scored units: {units}. These are scores of the recipe: where the setting is "
        "inductive, encoder and readouts were trained anew for every fold."
    )


def _task(task: Mapping[str, Any], found: Mapping[str, Sequence[Outcome]]) -> list[Part]:
    names = _chosen(task["features"])
    means = {name: task["features"][name]["mean"] for name in names}
    shown = looks([shown_name(name) for name in names])
    best, worst = names[0], names[-1]
    parts: list[Part] = [
        Picture(
            time_figure(
                {shown_name(name): mean for name, mean in means.items()}, shown, chance=1 / len(task["classes"])
            ),
            alt=f"Macro-F1 over observed time; after the whole recording {_figure(means[best])} for {shown_name(best)} "
            f"and {_figure(means[worst])} for {shown_name(worst)}.",
            caption="Macro-F1 by how much of a recording was observed. Bars: range over seeds (training-free features "
            "have none). Dotted: one over the number of classes.",
        )
    ]
    names = [name for name in names if name in found]
    if not names:
        return [*parts, Missing("confusion and scores of single classes: the fold_*.json files are not in the folder.")]
    scored = np.array([task["classes"].index(name) for name in task["scored"]])
    return [*parts, *_confusions(task, found, scored, names), *_by_class(task, found, scored, shown, names=names)]


def _chosen(features: Mapping[str, Any]) -> list[str]:
    """The best feature sets by macro-F1 after the whole recording, the headline always among them; best first."""
    ranked = [name for name in features if not ARM.fullmatch(name)]  # those have a curve of their own
    ordered = sorted(ranked, key=lambda name: -features[name]["mean"][WHOLE]["macro_f1"])
    chosen = ordered[:FEATURES_SHOWN]
    if HEADLINE in features and HEADLINE not in chosen:
        chosen[-1] = HEADLINE
    return chosen


def _figure(mean: Mapping[str, Any]) -> str:
    return f"{mean[WHOLE]['macro_f1']:.3f}"


def _confusions(
    task: Mapping[str, Any], found: Mapping[str, Sequence[Outcome]], scored: np.ndarray, names: Sequence[str]
) -> list[Part]:
    """Of the headline, and of the best feature set where that is another one."""
    headline = HEADLINE if HEADLINE in names else names[0]
    classes = list(task["classes"])
    counts = {
        name: np.mean([one.confusion(scored, len(classes)) for one in found[name]], axis=0)
        for name in dict.fromkeys([headline, names[0]])
    }
    diagonal = "; ".join(
        f"{shown_name(name)}: "
        + ", ".join(f"{classes[c]} {table[i, c] / table[i].sum():.2f}" for i, c in enumerate(scored))
        for name, table in counts.items()
    )
    return [
        Picture(
            confusion_figure({shown_name(name): table for name, table in counts.items()}, classes, scored),
            alt=f"Confusion matrices; share of each class that was recognised: {diagonal}.",
            caption="Rows: ground truth, with the number of units; columns: prediction after the whole recording, "
            "abstained or not. Shares of the row, mean over seeds.",
        )
    ]


def _by_class(
    task: Mapping[str, Any],
    found: Mapping[str, Sequence[Outcome]],
    scored: np.ndarray,
    shown: Mapping[str, Look],
    *,
    names: Sequence[str],
) -> list[Part]:
    by_seed = {shown_name(name): [one.f1(scored) for one in found[name]] for name in names}
    parts: list[Part] = [
        Picture(
            f1_figure(by_seed, shown, task["scored"]),
            alt="F1 of every class: "
            + "; ".join(
                f"{name}: " + ", ".join(f"{c} {v:.2f}" for c, v in zip(task["scored"], np.mean(runs, 0), strict=True))
                for name, runs in by_seed.items()
            ),
            caption="F1 of every class over the pooled units of all held-out animals. Bar: mean over seeds; points: "
            "single seeds.",
        )
    ]
    headline = HEADLINE if HEADLINE in task["per_subject"] else names[0]
    animals = task["per_subject"][headline]
    return [
        *parts,
        Picture(
            recall_figure(animals, task["scored"]),
            alt=f"Recall of every class in every animal, {shown_name(headline)}.",
            caption=f"{shown_name(headline)}: share of an animal's units of a class that were recognised, mean over "
            "seeds. The larger the point, the more units; the line is the mean over animals.",
        ),
    ]


def _fresh(result: Mapping[str, Any]) -> list[Section]:
    sections = []
    for task, content in result["tasks"].items():
        features = {shown_name(name): times for name, times in content["features"].items()}
        medians = ", ".join(f"{name} {times[WHOLE]['median']:.3f}" for name, times in features.items())
        picture = Picture(
            fresh_figure(features, chance=1 / len(content["classes"])),
            alt=f"Macro-F1 of {len(result['animals'])} fresh animals; medians after the whole recording: {medians}.",
            caption="Macro-F1 of every animal (points) and their median (line), by how much was observed.",
        )
        text = (
            f"{result['setting'].capitalize()}: {len(result['animals'])} simulated animals that neither encoder nor "
            f"readouts saw, {result['units']} units and {result['duration_s']:g} s each."
        )
        why = "confusion and scores of single classes: this kind of result keeps macro-F1 per animal only."
        sections.append(Section(f"{TITLE} on fresh animals: {task}", [text, picture, Missing(why)]))
    return sections
