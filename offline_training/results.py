"""docs/results.md and the table of the README, from the result files: figures are read, never typed.

A folder of results holds summary.json (held-out folds, see `combine`), fresh_animals.json (see `evaluate_simulated`) or
both, and notes.md: what a reader has to know about the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nuclr_stream.errors import NuclrStreamError

BEGIN, END = "<!-- results -->", "<!-- /results -->"
FEATURES = {
    "embedding": "NuCLR embedding",
    "embedding_pooled": "NuCLR embedding, pooled",
    "isi": "ISI histogram (128 bins)",
    "isi_pooled": "ISI histogram, pooled",
    "statistics": "ISI histogram (square root) + log rate",
    "statistics_pooled": "ISI histogram (square root) + log rate, pooled",
    "rate": "mean rate only",
}
INTRODUCTION = """\
# Results

This page is generated from the files under `results/` by `make results`; no figure is typed by hand.

* Every score is the top-1 class of every labelled unit (at least 100 spikes in its recording), abstained or not. A unit
  that no window shows counts as an error. Macro-F1 is the mean of F1 over the scored classes; BA is balanced accuracy.
* *10 s, 60 s, 300 s, all*: how much of the recording had been observed, from its start.
* ECE: expected calibration error of the top-1 probability, 15 bins of equal mass. *Called* is the share of units whose
  probability reaches the abstention threshold, *right* the share of those that are right; the threshold promises 0.90
  at every evidence, averaged over classes, and is 1 (nothing is called) where the training animals do not allow that.
* *Pooled*: joined by the mean over the 10 most correlated units (1 s counts) and over the population; computed offline
  only, the daemon does not do it.
* All rows share one recipe: examples of 1 to 30 windows and of everything, scaler + multinomial logistic regression,
  class-balanced, C and calibration by cross-validation over the training animals.
"""

Result = dict[str, Any]


class ResultsError(NuclrStreamError):
    """There is nothing to report, or nowhere to put it."""


def write_pages(results: Path, *, page: Path, readme: Path) -> list[Path]:
    """Write `page` from the folders of `results`, and the table of `readme` between its markers.

    Returns what was written; a README that is absent or has no markers is left alone. Raises ResultsError where there
    are no results.
    """
    folders = sorted(
        f for f in results.glob("*") if (f / "summary.json").is_file() or (f / "fresh_animals.json").is_file()
    )
    if not folders:
        raise ResultsError(
            f"{results}: no summary.json or fresh_animals.json in any folder; run `nuclr-train evaluate`"
        )
    page.write_text("\n".join([INTRODUCTION, *(_section(folder) for folder in folders)]), encoding="utf-8")
    written = [page]
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if BEGIN in text and END in text:
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        readme.write_text(f"{before}{BEGIN}\n{_readme_table(folders)}\n{END}{after}", encoding="utf-8")
        written.append(readme)
    return written


def _section(folder: Path) -> str:
    parts = [f"## {folder.name}\n"]
    if (notes := folder / "notes.md").is_file():
        parts.append(notes.read_text(encoding="utf-8"))
    if summary := _read(folder / "summary.json"):
        parts.append(_held_out(summary))
    if fresh := _read(folder / "fresh_animals.json"):
        parts.append(_fresh(fresh))
    return "\n".join(parts)


def _held_out(summary: Result) -> str:
    lines = [
        f"### Animals held out: {summary['split']}\n",
        f"**{summary['setting']}.** Held out: {', '.join(summary['held_out'])}; the predictions of all of them are "
        "pooled before scoring. "
        + _encoder_sentence(summary["encoder"], fresh_per_fold=summary["setting"].startswith("inductive"))
        + f" Seeds: {', '.join(map(str, summary['seeds'])) or 'none'}; with more than one, mean and range."
        + f" Step between windows: {' and '.join(f'{hop:g}' for hop in summary['hop_s'])} s."
        + f" {_versions(summary)}\n",
    ]
    for task, found in summary["tasks"].items():
        units = ", ".join(f"{name} {number}" for name, number in found["units"].items())
        chance = 1 / len(found["classes"])
        lines += [f"#### {task}\n", f"Scored units: {units}. Chance: {chance:.2f}.\n", _score_table(found), ""]
        lines += ["Recall per animal, whole recording (units):\n", _animal_table(found), ""]
    return "\n".join(lines)


def _score_table(found: Result) -> str:
    rows = []
    for name in _ordered(found["features"]):
        mean = found["features"][name]["mean"]
        whole = mean["all"]
        rows.append(
            [FEATURES.get(name, name)]
            + [_with_range(mean[seconds]["macro_f1"], mean[seconds]["macro_f1_range"]) for seconds in mean]
            + [_number(whole[key]) for key in ("balanced_accuracy", "ece", "coverage", "precision")]
        )
    times = [_time(seconds) for seconds in next(iter(found["features"].values()))["mean"]]
    return table(["features", *(f"macro-F1, {time}" for time in times), "BA, all", "ECE", "called", "right"], rows)


def _animal_table(found: Result) -> str:
    names = [
        name for name in _ordered(found["per_subject"]) if name in ("embedding", "embedding_pooled", "isi", "rate")
    ]
    subjects = list(found["per_subject"][names[0]])
    rows = []
    for subject in subjects:
        for index, label in enumerate(found["per_subject"][names[0]][subject]["recall"]):
            of_subject = [found["per_subject"][name][subject] for name in names]
            rows.append(
                [subject if not index else "", f"{label} ({of_subject[0]['units_of_class'][label]})"]
                + [_number(one["recall"][label]) for one in of_subject]
            )
    return table(["animal", "class", *(FEATURES[name] for name in names)], rows)


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
            [FEATURES.get(name, name)] + [_with_range(one["median"], one["range"]) for one in times.values()]
            for name, times in ((name, found["features"][name]) for name in _ordered(found["features"]))
        ]
        times = [_time(seconds) for seconds in next(iter(found["features"].values()))]
        lines += [f"#### {task}\n", f"{', '.join(found['classes'])}. Chance: {1 / len(found['classes']):.2f}.\n"]
        lines += [table(["features", *times], rows), ""]
    return "\n".join(lines)


def _readme_table(folders: Sequence[Path]) -> str:
    """One row per data set and task: what the embedding reaches, and what the floors reach."""
    rows = []
    for folder in folders:
        if summary := _read(folder / "summary.json"):
            for task, found in summary["tasks"].items():
                whole = {name: one["mean"]["all"] for name, one in found["features"].items()}
                scores = {name: _with_range(one["macro_f1"], one["macro_f1_range"]) for name, one in whole.items()}
                held_out = f"{len(summary['held_out'])} animals, {summary['split']}"
                rows.append(_readme_row(summary, task, held_out, scores=scores, classes=len(found["scored"])))
        if fresh := _read(folder / "fresh_animals.json"):
            for task, found in fresh["tasks"].items():
                whole = {name: one["all"] for name, one in found["features"].items()}
                scores = {name: _with_range(one["median"], one["range"]) for name, one in whole.items()}
                held_out = f"{len(fresh['animals'])} fresh animals, median"
                rows.append(_readme_row(fresh, task, held_out, scores=scores, classes=len(found["classes"])))
    head = ["data", "task (classes)", "tested on", "NuCLR", "ISI histogram", "mean rate"]
    return "Macro-F1, whole recordings; see docs/results.md for what these figures may be used for.\n\n" + table(
        head, rows
    )


def _readme_row(result: Result, task: str, held_out: str, *, scores: dict[str, str], classes: int) -> list[str]:
    columns = [scores.get(name, "-") for name in ("embedding", "isi", "rate")]
    return [result["kind"] or result["name"], f"{task} ({classes})", f"{held_out}; {result['setting']}", *columns]


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


def _ordered(names: Iterable[str]) -> list[str]:
    known = list(FEATURES)
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def _time(seconds: str) -> str:
    return seconds if seconds == "all" else f"{seconds} s"


def _with_range(value: float, extremes: Sequence[float]) -> str:
    low, high = extremes
    return f"{value:.3f}" if low == high else f"{value:.3f} ({low:.3f}-{high:.3f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with the columns `head`."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _read(path: Path) -> Result:
    found: Result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
