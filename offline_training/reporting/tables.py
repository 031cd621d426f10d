"""Markdown tables of one summary.json: scores, paired differences, recall per animal, and what each row took.

Names of rows say in words what a feature is; where its setting is not that of the table, or where it was chosen by the
score shown, the name says that too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

FEATURES = {
    "embedding": "NuCLR embedding",
    "predictors": "all predictors together",
    "embedding_neighbourhood": "NuCLR embedding, with company",
    "spike_statistics": "spike statistics (16 intervals, rate, variability)",
    "spike_statistics_company": "spike statistics, with company",
    "embedding_pooled": "NuCLR embedding, pooled",
    "embedding_no_spatial": "NuCLR embedding, no population layers",
    "embedding_no_unit_dropout": "NuCLR embedding, no unit dropout",
    "embedding_published_loss": "NuCLR embedding, published loss",
    "embedding_vicreg": "NuCLR embedding, VICReg",
    "isi": "ISI histogram (128 bins)",
    "isi_pooled": "ISI histogram, pooled",
    "statistics": "ISI histogram (square root) + log rate",
    "statistics_pooled": "ISI histogram (square root) + log rate, pooled",
    "rate": "mean rate only",
    "lolcat": "LOLCAT (re-implemented)",
    "nemo": "NEMO (re-implemented)",
    "nemo_acg": "NEMO, autocorrelogram alone",
    "neuprint": "NeuPRINT (re-implemented, no behaviour)",
    "embedding_offline": "NuCLR embedding, divided by the percentile of the whole recording",
    "trace_statistics": "statistics of the single trace",
    "depth_only": "depth alone (a control that cheats)",
}
OTHERS = ("isi", "isi_pooled", "statistics", "statistics_pooled", "rate", "lolcat", "nemo", "nemo_acg", "neuprint")
"""Rows that are not ours and do not cheat: floors and peers."""
ANIMAL_ROWS = ("embedding", "embedding_pooled", "isi", "rate", "lolcat", "nemo")

Result = dict[str, Any]


def name_of(feature: str) -> str:
    """What a feature is, in words; its own name where nobody gave it any."""
    if found := re.fullmatch(r"embedding_animals(\d+)", feature):
        return f"NuCLR embedding, pretrained on {found[1]} animal{'s' * (found[1] != '1')}"
    return FEATURES.get(feature, feature)


def row_name(feature: str, found: Result, setting: str) -> str:
    """The name of a row in a table of `setting`, with whatever the reader has to know before comparing."""
    remarks = [found["setting"]] if found["setting"] != setting else []
    if found["selected_on_these_folds"]:
        remarks.append("**selected on these folds**")
    return name_of(feature) + (f" ({'; '.join(remarks)})" if remarks else "")


def ordered(names: Iterable[str]) -> list[str]:
    """Known rows first, in the order of FEATURES, then others by name; numbers of animals ascending."""
    known = list(FEATURES)

    def place(name: str) -> tuple[int, int, str]:
        number = re.search(r"(\d+)$", name)
        return (known.index(name) if name in known else len(known), int(number[1]) if number else 0, name)

    return sorted(names, key=place)


def score_table(found: Result, setting: str) -> str:
    """One row a feature: macro-F1 at every time, then for the whole recording the other scores and the multi-unit
    ones."""
    means = {name: found["features"][name]["mean"] for name in ordered(found["features"])}
    times = max((list(mean) for mean in means.values()), key=len)
    rows = []
    for name, mean in means.items():
        whole = mean["all"]
        rows.append(
            [row_name(name, found["features"][name], setting)]
            + [with_range(mean[t]["macro_f1"], mean[t]["macro_f1_range"]) if t in mean else "-" for t in times]
            + [number(whole["balanced_accuracy"])]
            + [number(whole["multi_macro_f1"]), number(whole["multi_balanced_accuracy"])]
            + [number(whole[key]) for key in ("ece", "coverage", "precision")]
        )
    head = [f"macro-F1, {time_in_words(t)}" for t in times]
    return table(["features", *head, "BA", "multi-unit macro-F1", "multi-unit BA", "ECE", "called", "right"], rows)


def difference_tables(found: Result, setting: str) -> list[tuple[str, str]]:
    """For every reference its name and the table of all other rows minus it."""
    tables = []
    for reference in ordered({one["minus"] for one in found["differences"]}):
        ours = {one["row"]: one for one in found["differences"] if one["minus"] == reference}
        subjects = list(next(iter(ours.values()))["per_subject"])
        rows = [
            [row_name(name, found["features"][name], setting)]
            + [_with_interval(ours[name][score]) for score in ("macro_f1", "balanced_accuracy")]
            + [_signed(ours[name]["per_subject"].get(subject)) for subject in subjects]
            for name in ordered(ours)
        ]
        tables.append((name_of(reference), table(["row", "macro-F1", "BA", *(f"BA, {s}" for s in subjects)], rows)))
    return tables


def animal_table(found: Result) -> str:
    """Recall of every class of every animal, whole recording, for the rows of ANIMAL_ROWS."""
    names = [name for name in ordered(found["per_subject"]) if name in ANIMAL_ROWS] or list(found["per_subject"])[:1]
    first = found["per_subject"][names[0]]
    rows = []
    for subject in first:
        for index, label in enumerate(first[subject]["recall"]):
            of_subject = [found["per_subject"][name][subject] for name in names]
            rows.append(
                [subject if not index else "", f"{label} ({of_subject[0]['units_of_class'][label]})"]
                + [number(one["recall"][label]) for one in of_subject]
            )
    return table(["animal", "class", *(name_of(name) for name in names)], rows)


def cost_table(features: dict[str, Result]) -> str:
    """What the training of every trained row took, per fold and seed."""
    rows = [[name_of(name), *_cost(features[name])] for name in ordered(features) if _cost(features[name])]
    return table(["row", "parameters", "steps", "minutes a fold", "how"], rows) if rows else ""


def _cost(found: Result) -> list[str]:
    if encoder := found["encoder"]:
        minutes = _between(*encoder["minutes"])
        steps = ", ".join(str(step) for step in encoder["steps"])
        return [f"{encoder['parameters']:,}", steps, minutes, ", ".join(encoder["machine"])]
    if budgets := found["budgets"]:
        steps = sorted({budget["steps"] for budget in budgets})
        minutes = [budget["cpu_s"] / 60 for budget in budgets]
        how = min((budget["how"] for budget in budgets), key=lambda how: (len(how), how))
        parameters = max(budget["parameters"] for budget in budgets)
        return [f"{parameters:,}", ", ".join(map(str, steps)), f"{_between(min(minutes), max(minutes))} (CPU)", how]
    return []


def time_in_words(seconds: str) -> str:
    """The name of a time observed."""
    return seconds if seconds == "all" else f"{seconds} s"


def with_range(value: float, extremes: Sequence[float]) -> str:
    """A score and, where it varies, its range."""
    low, high = extremes
    return f"{value:.3f}" if low == high else f"{value:.3f} ({low:.3f}-{high:.3f})"


def number(value: float | None) -> str:
    """A score, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with the columns `head`."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _with_interval(found: Result) -> str:
    low, high = found["interval"]
    return f"{_signed(found['difference'])} [{_signed(low)}, {_signed(high)}]"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _between(low: float, high: float) -> str:
    return f"{low:.1f}" if round(low, 1) == round(high, 1) else f"{low:.1f}-{high:.1f}"
