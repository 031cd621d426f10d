"""docs/results.md and the table of the README, from the result files: figures are read, never typed.

A folder of results holds summary.json (held-out folds, see `combine`), fresh_animals.json (see `evaluate_simulated`) or
both, may hold label_efficiency.json, and notes.md: what a reader has to know about the data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nuclr_stream.errors import NuclrStreamError
from offline_training.reporting.anytime_figure import anytime_section
from offline_training.reporting.figures import confusion_figure, label_figure, picture, scaling_figure
from offline_training.reporting.tables import FEATURES as FEATURES
from offline_training.reporting.tables import (
    OTHERS,
    animal_table,
    cost_table,
    difference_tables,
    name_of,
    ordered,
    score_table,
    table,
    time_in_words,
    with_range,
)
from offline_training.studies.normaliser_distance import distance_section
from offline_training.studies.placement import table as placement_table

BEGIN, END = "<!-- results -->", "<!-- /results -->"
INTRODUCTION = """\
# Results

This page is generated from the files under `results/` by `make results`; no figure is typed by hand.

* Every score is the top-1 class of every labelled unit (at least 100 spikes in its recording), abstained or not. A unit
  that no window shows counts as an error. Macro-F1 is the mean of F1 over the scored classes; BA is balanced accuracy.
* *10 s, 60 s, 300 s, all*: how much of the recording had been observed, from its start.
* ECE: expected calibration error of the top-1 probability, 15 bins of equal mass. *Called* is the share of units whose
  probability reaches the abstention threshold, *right* the share of those that are right; the threshold promises 0.90
  at every exposure, averaged over classes, and is 1 (nothing is called) where the training animals do not allow that.
* *Multi-unit*: the probabilities of a unit are averaged with those of its up to four nearest neighbours within 60 um on
  its shank (NEMO's way). **These columns use depth**; all others know of activity only, and single units are the
  headline.
* *Pooled*: joined by the mean over the 10 most correlated units (1 s counts) and over the population; computed offline
  only, the daemon does not do it.
* *Transductive*: the activity of the tested units was in the pretraining and readouts were fitted on other units of the
  same populations. *Transductive zero-shot*: their activity was seen, no label of their animals. *Inductive zero-shot*:
  their animals were never seen. **A live daemon is inductive zero-shot; only such rows describe it.** A row of another
  setting than its table says so.
* *Differences* are of whole recordings, means over seeds, with 95 % intervals of a bootstrap over the recordings within
  every animal (2,000 draws). Animals are not resampled, so an interval says nothing about other animals; every animal's
  own difference, of the mean recall over its classes, stands beside it.
* *Selected on these folds* marks rows of which something was chosen by the score shown: they flatter themselves.
* All rows but LOLCAT, which is trained on labels throughout, share one recipe: examples of 1 to 30 windows and of
  everything, features standardised for their exposure and clipped at two standard deviations, within-class covariance
  normalisation, multinomial logistic regression, class-balanced, C and calibration by cross-validation over the
  training animals; over their recordings where no class has units in two of them. **The recipe itself was chosen on the
  rats, for our own rows**; docs/training.md has it. *rat_plain_readouts* has the other rows without it.
"""

Result = dict[str, Any]


class ResultsError(NuclrStreamError):
    """There is nothing to report, or nowhere to put it."""


def write_pages(results: Path, *, page: Path, readme: Path) -> list[Path]:
    """Write `page` from the folders of `results` with its pictures in figures/ beside it, and the table of `readme`
    between its markers.

    Returns what was written; a README that is absent or has no markers is left alone. Raises ResultsError where there
    are no results.
    """
    shown = ("summary.json", "fresh_animals.json", "normaliser.json", "placement.json")
    folders = sorted(folder for folder in results.glob("*") if any((folder / name).is_file() for name in shown))
    if not folders:
        raise ResultsError(
            f"{results}: no summary.json or fresh_animals.json in any folder; run `nuclr-train evaluate`"
        )
    sections = [*(_section(folder, page) for folder in folders), *anytime_section(results, page)]
    text = "\n".join([INTRODUCTION, *sections])
    page.write_text(text, encoding="utf-8")
    written = [page]
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if BEGIN in text and END in text:
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        readme.write_text(f"{before}{BEGIN}\n{_readme_table(folders)}\n{END}{after}", encoding="utf-8")
        written.append(readme)
    return written


def _section(folder: Path, page: Path) -> str:
    parts = [f"## {folder.name}\n"]
    if (notes := folder / "notes.md").is_file():
        parts.append(notes.read_text(encoding="utf-8"))
    if summary := _read(folder / "summary.json"):
        parts.append(_held_out(summary, folder.name, page))
    if labels := _read(folder / "label_efficiency.json"):
        parts.append(_label_efficiency(labels, folder.name, page))
    if fresh := _read(folder / "fresh_animals.json"):
        parts.append(_fresh(fresh))
    if distance := _read(folder / "normaliser.json"):
        parts.append(distance_section(distance))
    for name in ("placement.json", "ten_minutes.json"):
        if placed := _read(folder / name):
            parts.append(placement_table(placed))
    return "\n".join(parts)


def _held_out(summary: Result, folder: str, page: Path) -> str:
    setting = summary["setting"]
    what = f"Held out: {', '.join(summary['held_out'])}" if summary["held_out"] else f"Folds: {len(summary['folds'])}"
    lines = [
        f"### Held out: {summary['split']}\n",
        f"**{setting}.** {what}; the predictions of all folds are pooled before scoring. "
        + _encoder_sentence(summary["encoder"], fresh_per_fold=setting.startswith("inductive"))
        + f" Seeds: {', '.join(map(str, summary['seeds'])) or 'none'}; with more than one, mean and range."
        + f" Step between windows: {' and '.join(f'{hop:g}' for hop in summary['hop_s'])} s."
        + f" {_versions(summary)}\n",
    ]
    if summary["incomplete"]:
        lines += [f"Left out because a fold is missing: {', '.join(summary['incomplete'])}.\n"]
    for task, found in summary["tasks"].items():
        units = ", ".join(f"{name} {number}" for name, number in found["units"].items())
        lines += [f"#### {task}\n", f"Scored units: {units}. Chance: {1 / len(found['classes']):.2f}.\n"]
        lines += [score_table(found, setting), ""]
        figures = page.parent / "figures"
        picture_of = confusion_figure(found, figures / f"{folder}_{task}_confusion.svg")
        lines += picture(picture_of, page, f"Confusion matrices, {folder}, {task}")
        curve = scaling_figure(found, figures / f"{folder}_{task}_scaling.svg")
        lines += picture(curve, page, f"Macro-F1 by number of pretraining animals, {folder}, {task}")
        for reference, differences in difference_tables(found, setting):
            lines += [f"Every row minus {reference}:\n", differences, ""]
        lines += ["Recall per animal, whole recording (units):\n", animal_table(found), ""]
    trained = {name: one for found in summary["tasks"].values() for name, one in found["features"].items()}
    if costs := cost_table(trained):
        lines += ["#### What the rows took to train\n", costs, ""]
    return "\n".join(lines)


def _label_efficiency(result: Result, folder: str, page: Path) -> str:
    lines = [
        "### Label efficiency\n",
        f"**{result['setting']}**, split {result['split']}: readouts fitted on a share of the labelled training units, "
        f"drawn class by class with one unit at least, {result['draws']} draws of every share below 1, seeds "
        f"{', '.join(map(str, result['seeds']))}; C and calibration from those units alone. Macro-F1, whole "
        "recordings: mean (range) over seeds and draws.\n",
    ]
    for task, found in result["tasks"].items():
        shares = list(next(iter(found["features"].values())))
        rows = [
            [name_of(name)] + [_spread(found["features"][name][share]["macro_f1"]) for share in shares]
            for name in ordered(found["features"])
        ]
        lines += [f"#### {task}\n", table(["features", *(f"{100 * float(share):g} %" for share in shares)], rows), ""]
        curve = label_figure(found, page.parent / "figures" / f"{folder}_{task}_labels.svg")
        lines += picture(curve, page, f"Macro-F1 by share of labels, {folder}, {task}")
    return "\n".join(lines)


def _spread(scores: Sequence[float]) -> str:
    return with_range(sum(scores) / len(scores), [min(scores), max(scores)])


def _fresh(result: Result) -> str:
    lines = [
        f"### {len(result['animals'])} fresh animals\n",
        f"**{result['setting']}.** Animals that neither encoder nor readouts saw, {result['units']} units and "
        f"{result['duration_s']:g} s each. Encoder trained on {result['training_animals']} animals, readouts on "
        f"{result['readout_animals']}. {_encoder_sentence(result['encoder'], fresh_per_fold=False)} Step between "
        f"windows: {result['hop_s']:g} s. {_versions(result)} Macro-F1: median (range) over animals.\n",
    ]
    for task, found in result["tasks"].items():
        rows = [
            [name_of(name)] + [with_range(one["median"], one["range"]) for one in times.values()]
            for name, times in ((name, found["features"][name]) for name in ordered(found["features"]))
        ]
        times = [time_in_words(seconds) for seconds in next(iter(found["features"].values()))]
        lines += [f"#### {task}\n", f"{', '.join(found['classes'])}. Chance: {1 / len(found['classes']):.2f}.\n"]
        lines += [table(["features", *times], rows), ""]
    return "\n".join(lines)


def _readme_table(folders: Sequence[Path]) -> str:
    """One row per data set and task, for animals never seen: what the embedding, floors and best other method reach.

    Only folders that hold the embedding itself; other settings and studies stand on the page."""
    rows = []
    for folder in folders:
        summary = _read(folder / "summary.json")
        if summary and summary["setting"].startswith("inductive"):
            for task, found in summary["tasks"].items():
                if "embedding" not in found["features"]:
                    continue
                whole = {
                    name: one["mean"]["all"]
                    for name, one in found["features"].items()
                    if one["setting"] == summary["setting"]
                }
                scores = {name: with_range(one["macro_f1"], one["macro_f1_range"]) for name, one in whole.items()}
                for name in (name for name in whole if found["features"][name]["selected_on_these_folds"]):
                    scores[name] += " (selected on these folds)"
                if others := [name for name in OTHERS if name in whole]:
                    best = max(others, key=lambda name: whole[name]["macro_f1"])
                    scores["best"] = f"{scores[best]} {name_of(best)}"
                held_out = f"{len(summary['held_out'])} animals, {summary['split']}"
                rows.append(_readme_row(folder, summary, task, held_out, scores=scores, classes=len(found["scored"])))
        if fresh := _read(folder / "fresh_animals.json"):
            for task, found in fresh["tasks"].items():
                whole = {name: one["all"] for name, one in found["features"].items()}
                scores = {name: with_range(one["median"], one["range"]) for name, one in whole.items()}
                held_out = f"{len(fresh['animals'])} fresh animals, median"
                rows.append(_readme_row(folder, fresh, task, held_out, scores=scores, classes=len(found["classes"])))
    head = [
        "data",
        "task (classes)",
        "tested on",
        "NuCLR",
        "all predictors",
        "ISI histogram",
        "mean rate",
        "best other method",
    ]
    return "Macro-F1, whole recordings; see docs/results.md for what these figures may be used for.\n\n" + table(
        head, rows
    )


def _readme_row(
    folder: Path, result: Result, task: str, held_out: str, *, scores: dict[str, str], classes: int
) -> list[str]:
    columns = [scores.get(name, "-") for name in ("embedding", "predictors", "isi", "rate", "best")]
    data = f"{folder.name}: {result['kind'] or result['name']}"
    return [data, f"{task} ({classes})", f"{held_out}; {result['setting']}", *columns]


def _encoder_sentence(encoder: Result | None, *, fresh_per_fold: bool) -> str:
    if encoder is None:
        return "No encoder: training-free features only."
    steps = encoder["steps"] if "steps" in encoder else [encoder["step"]]
    machines = encoder["machine"] if isinstance(encoder["machine"], list) else [encoder["machine"]]
    trained = "pretrained anew for every fold" if fresh_per_fold else "pretrained once"
    number = ", ".join(str(step) for step in steps)
    return (
        f"Encoder: {encoder['parameters'] / 1e6:.2f} M parameters, {trained}, {number} steps on {', '.join(machines)}."
    )


def _versions(result: Result) -> str:
    return f"({', '.join(f'{name} {version}' for name, version in result['versions'].items())})"


def _read(path: Path) -> Result:
    found: Result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
