"""How good placement is where the truth is known: borders and their intervals, regions by depth, offsets of a plan.

Settings are chosen on animals of their own. An interval promises 90 %; `coverage` is how many of the borders that were
found (a border between the same two regions) lie in theirs, `coverage_in_order` the same given the true order of
regions. Ranges are 95 % intervals from resampling probes. Shapes: S observation times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.features.unit_rows import Float64Array
from nuclr_stream.placement.regions import (
    DEFAULTS,
    INTERVAL,
    Boundary,
    PlacementSettings,
    ShankPlacement,
    place,
    pool_along_depth,
)
from nuclr_stream.placement.trajectory import Planned, agree
from offline_training.simulation.probes import SimulatedProbe, draw_probe

Result = dict[str, Any]

DRAWN_SEED, DRAWN_TUNING_SEED = 400, 10_000
CORRELATIONS = (0.05, 0.1, 0.2, 0.3, 0.4)
DISTANCES_UM = (50.0, 100.0, 200.0)
BORDER_SDS_UM = (1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
LEAST_PROBABILITY = 1e-4
OFFSET_UM, MISPLACED_UM = 400.0, 100.0  # of a drawn plan: its offset, uniform, and each border's own, normal
FAR_UM = 10_000.0
TUNED = ("correlation", "correlation_um", "border_sd_um")
TITLES = {"animals": "simulated animals, what the bundle says of them", "drawn": "probes drawn without spikes"}
COLUMNS = {
    "borders": ("borders",),
    "found": ("borders_found",),
    "in their interval": ("coverage", "coverage_range"),
    "error, um": ("error_um",),
    "width, um": ("width_um",),
    "in it, order given": ("coverage_in_order", "coverage_in_order_range"),
    "order right": ("order_right",),
    "region right, by depth": ("accuracy_by_depth",),
    "units right, single": ("accuracy_single",),
    "pooled": ("accuracy_pooled",),
    "placed": ("accuracy_placed",),
    "offset in its interval": ("offset_coverage", "offset_coverage_range"),
    "offset error, um": ("offset_error_um",),
}
RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """What an interval did with the truth: error of its median, width, how far outside the truth lies (0 inside)."""

    error_um: float
    width_um: float
    miss_um: float


@dataclass(frozen=True)
class ProbeScore:
    """One probe at one time. `found` and `in_order` hold an Interval for every true border, None where missed."""

    placed: bool
    found: tuple[Interval | None, ...]
    in_order: tuple[Interval | None, ...]
    false_borders: int
    order_right: bool
    order_probability: float
    accuracy_by_depth: float
    accuracy_single: float
    accuracy_pooled: float
    accuracy_placed: float
    offset: Interval | None
    agreement: float


def score_probe(probe: SimulatedProbe, time: int, settings: PlacementSettings = DEFAULTS) -> ProbeScore:
    """Place a probe after `probe.seconds[time]`; compare with the truth, and with a plan that is off by a known bit."""
    units = probe.units(time)
    placement = place(units, settings=settings)
    (shank,) = placement.shanks
    offset_um, plan = draw_plan(probe)
    (agreement,) = agree(units, placement, plan, settings=settings)
    placed = shank.reason in ("", "one_region")
    found = _matched(shank.boundaries, probe)
    posterior = shank.at(units.depth_um) if placed else units.probabilities
    at_depth = probe.classes[shank.posterior.argmax(axis=1)] == probe.region_at(shank.depth_um)
    return ProbeScore(
        placed=placed,
        found=found,
        in_order=_matched(agreement.boundaries, probe),
        false_borders=len(shank.boundaries) - sum(one is not None for one in found),
        order_right=[s.region for s in shank.segments] == probe.order.tolist(),
        order_probability=shank.order_probability,
        accuracy_by_depth=float(at_depth.mean()) if placed else 0.0,
        accuracy_single=_accuracy(probe, units.probabilities),
        accuracy_pooled=_accuracy(probe, pool_along_depth(units)),
        accuracy_placed=_accuracy(probe, posterior),
        offset=_interval(agreement.offset_um, agreement.low_um, agreement.high_um, offset_um) if placed else None,
        agreement=agreement.agreement,
    )


def draw_plan(probe: SimulatedProbe) -> tuple[float, list[Planned]]:
    """An offset, and a plan of the true order that is off by it; every border strays from it on its own besides."""
    rng = np.random.default_rng([probe.seed, 3])
    offset_um = float(rng.uniform(-OFFSET_UM, OFFSET_UM))
    strayed = probe.borders_um - offset_um + rng.normal(0.0, MISPLACED_UM, len(probe.borders_um))
    edges = [-FAR_UM, *(np.maximum.accumulate(strayed) + np.arange(len(strayed))).tolist(), FAR_UM]
    return offset_um, [
        Planned(n, low, high) for n, (low, high) in zip(probe.order.tolist(), pairwise(edges), strict=True)
    ]


def _matched(boundaries: Sequence[Boundary], probe: SimulatedProbe) -> tuple[Interval | None, ...]:
    matched: list[Interval | None] = []
    for (below, above), truth in zip(pairwise(probe.order.tolist()), probe.borders_um.tolist(), strict=True):
        same = [b for b in boundaries if (b.below, b.above) == (below, above)]
        nearest = min(same, key=lambda b: abs(b.depth_um - truth), default=None)
        found = None if nearest is None else _interval(nearest.depth_um, nearest.low_um, nearest.high_um, truth)
        matched.append(found)
    return tuple(matched)


def _interval(middle_um: float, low_um: float, high_um: float, truth_um: float) -> Interval:
    miss = max(low_um - truth_um, truth_um - high_um, 0.0)
    return Interval(abs(middle_um - truth_um), high_um - low_um, miss)


def _accuracy(probe: SimulatedProbe, probabilities: Float64Array) -> float:
    return float((probe.classes[probabilities.argmax(axis=1)] == probe.region).mean())


def choose_settings(populations: Mapping[str, Sequence[SimulatedProbe]]) -> PlacementSettings:
    """How alike neighbours err by the log loss of the region at every depth; then the border by its coverage.

    The loss is over all `populations` and times, the coverage over the times of the first: drawn probes have borders of
    their own. The stay and the plan are not chosen here: they are about anatomy.
    """
    groups = [(probes, time) for probes in populations.values() for time in range(len(probes[0].seconds))]
    alike = [
        replace(DEFAULTS, correlation=correlation, correlation_um=distance_um)
        for correlation, distance_um in product(CORRELATIONS, DISTANCES_UM)
    ]
    best = min(alike, key=lambda settings: sum(_loss(*group, settings) for group in groups))
    blurred = [replace(best, border_sd_um=border_um) for border_um in BORDER_SDS_UM]
    first = next(iter(populations.values()))
    return min(blurred, key=lambda settings: abs(_coverage(first, settings) - INTERVAL))


def _loss(probes: Sequence[SimulatedProbe], time: int, settings: PlacementSettings) -> float:
    return float(np.mean([_log_loss(place(p.units(time), settings=settings).shanks[0], p) for p in probes]))


def _coverage(probes: Sequence[SimulatedProbe], settings: PlacementSettings) -> float:
    matched = [
        _matched(place(probe.units(time), settings=settings).shanks[0].boundaries, probe)
        for probe in probes
        for time in range(len(probe.seconds))
    ]
    return _mean([one.miss_um == 0 for found in matched for one in found if one is not None]) or 0.0


def _log_loss(shank: ShankPlacement, probe: SimulatedProbe) -> float:
    """Of the true region over depth; LEAST_PROBABILITY bounds what one depth can cost."""
    right = probe.classes == probe.region_at(shank.depth_um)[:, None]
    return float(-np.log(np.maximum(shank.posterior[right], LEAST_PROBABILITY)).mean()) if right.any() else 0.0


def summary(scores: Sequence[ProbeScore]) -> Result:
    """Figures over probes, those that promise something with a 95 % interval from resampling probes."""
    found = [one for score in scores for one in score.found if one is not None]
    borders = sum(len(score.found) for score in scores)
    in_order = [one for score in scores for one in score.in_order if one is not None]
    offsets = [score.offset for score in scores if score.offset is not None]
    return {
        "probes": len(scores),
        "placed": sum(score.placed for score in scores),
        "borders": borders,
        "borders_found": len(found),
        "false_borders_per_probe": _mean([score.false_borders for score in scores]),
        "coverage": _mean([one.miss_um == 0 for one in found]),
        "coverage_range": _resampled([score.found for score in scores]),
        "error_um": _median([one.error_um for one in found]),
        "width_um": _median([one.width_um for one in found]),
        "borders_in_order": len(in_order),
        "coverage_in_order": _mean([one.miss_um == 0 for one in in_order]),
        "coverage_in_order_range": _resampled([score.in_order for score in scores]),
        "error_in_order_um": _median([one.error_um for one in in_order]),
        "order_right": _mean([score.order_right for score in scores]),
        "order_probability": _mean([score.order_probability for score in scores]),
        "accuracy_by_depth": _mean([score.accuracy_by_depth for score in scores]),
        "accuracy_single": _mean([score.accuracy_single for score in scores]),
        "accuracy_pooled": _mean([score.accuracy_pooled for score in scores]),
        "accuracy_placed": _mean([score.accuracy_placed for score in scores]),
        "offset_coverage": _mean([one.miss_um == 0 for one in offsets]),
        "offset_coverage_range": _resampled([(score.offset,) for score in scores]),
        "offset_error_um": _median([one.error_um for one in offsets]),
        "offset_width_um": _median([one.width_um for one in offsets]),
        "agreement": _mean([score.agreement for score in scores]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def _median(values: Sequence[float]) -> float | None:
    return round(float(np.median(values)), 1) if values else None


def _resampled(of_probes: Sequence[Sequence[Interval | None]]) -> list[float] | None:
    """95 % interval of the share of intervals that hold the truth, probes drawn anew as a whole."""
    held = np.array([sum(one is not None and one.miss_um == 0 for one in probe) for probe in of_probes])
    there = np.array([sum(one is not None for one in probe) for probe in of_probes])
    rows = np.random.default_rng(0).integers(0, len(held), (RESAMPLES, len(held)))
    shares = held[rows].sum(axis=1) / np.maximum(there[rows].sum(axis=1), 1)
    return [round(float(v), 4) for v in np.quantile(shares, [0.025, 0.975])] if there.any() else None


def evaluate_placement(
    probe_of: Callable[[int], SimulatedProbe],
    *,
    tuning: Iterable[int],
    scored: Iterable[int],
    drawn: int,
    facts: Result,
    out: Path,
) -> Result:
    """Score the shipped settings on the animals `scored` and on `drawn` probes; write the result to `out`, return it.

    `probe_of` gives an animal as a bundle saw it. `chosen` in the result are the settings that the probes for tuning
    ask for, None without any; the shipped ones are those, or the result shows that they are not.
    """
    animals = [probe_of(seed) for seed in tuning]
    tuned_on = {"animals": animals, "drawn": [draw_probe(DRAWN_TUNING_SEED + i) for i in range(len(animals))]}
    populations = {
        "animals": [probe_of(seed) for seed in scored],
        "drawn": [draw_probe(DRAWN_SEED + i) for i in range(drawn)],
    }
    result: Result = facts | {
        "settings": asdict(DEFAULTS),
        "chosen": asdict(choose_settings(tuned_on)) if animals else None,
        "tuning_seeds": {name: [probe.seed for probe in probes] for name, probes in tuned_on.items()},
        "seeds": {name: [probe.seed for probe in probes] for name, probes in populations.items()},
        "scores": {name: _by_time(probes) for name, probes in populations.items() if probes},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _by_time(probes: Sequence[SimulatedProbe]) -> Result:
    seconds = probes[0].seconds.tolist()
    return {f"{at:g}": summary([score_probe(probe, time) for probe in probes]) for time, at in enumerate(seconds)}


def table(result: Result) -> str:
    """The scores as tables of markdown, for docs/results.md: nothing there is typed."""
    tuned = ", ".join(f"{name} {result['settings'][name]:g}" for name in TUNED)
    lines = [
        f"90 % intervals; in brackets 95 % intervals from resampling probes. Settings: {tuned}; {_choice(result)}. "
        f"Bundle: {result['bundle']}, {result['units']} units an animal.\n"
    ]
    for population, times in result["scores"].items():
        probes = next(iter(times.values()))["probes"]
        lines += [f"{probes} {TITLES[population]}:\n", "| observed | " + " | ".join(COLUMNS) + " |"]
        lines.append("|" + " --- |" * (len(COLUMNS) + 1))
        for seconds, found in times.items():
            row = [" ".join(_shown(found[key]) for key in keys) for keys in COLUMNS.values()]
            lines.append(f"| {seconds} s | " + " | ".join(row) + " |")
        lines.append("")
    return "\n".join(lines)


def _choice(result: Result) -> str:
    if result["chosen"] is None:
        return "they were chosen in another run"
    same = result["chosen"] == result["settings"]
    return "chosen on other seeds" if same else "other seeds would have chosen others"


def _shown(value: float | list[float] | None) -> str:
    if isinstance(value, list):
        return f"({value[0]:.2f}-{value[1]:.2f})"
    if value is None:
        return "-"
    return f"{value:.0f}" if value > 1 else f"{value:.2f}"
