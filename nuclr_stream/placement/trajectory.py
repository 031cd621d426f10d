"""A planned trajectory beside what the units say: how far the probe is from where it was meant to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nuclr_stream.errors import PlacementError
from nuclr_stream.placement.hmm import Float64Array, forward_backward, offset_likelihoods, ordered_step, quantiles
from nuclr_stream.placement.regions import (
    DEFAULTS,
    QUANTILES,
    Boundary,
    Column,
    DepthUnits,
    Placement,
    PlacementSettings,
    Reason,
    ShankPlacement,
    borders,
    column_of,
    usable,
)

MAX_OFFSET_UM = 1000.0


@dataclass(frozen=True)
class Planned:
    """A region of a planned trajectory: depths from the tip where it begins and ends."""

    region: str
    from_um: float
    to_um: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How one shank compares with a plan: planned depths plus `offset_um` (median, 90 % interval) are found depths.

    `agreement` is the mean probability, over depth and without knowing the plan, of what the shifted plan has there.
    `boundaries` are those of the plan's order that lie on the shank. `reason` as in ShankPlacement.
    """

    shank: int
    reason: Reason = ""
    offset_um: float = 0.0
    low_um: float = 0.0
    high_um: float = 0.0
    agreement: float = 0.0
    boundaries: tuple[Boundary, ...] = ()


def agree(
    units: DepthUnits,
    placement: Placement,
    plan: Sequence[Planned],
    *,
    settings: PlacementSettings = DEFAULTS,
) -> tuple[Agreement, ...]:
    """Compare every shank of `placement`, made from `units`, with a planned trajectory.

    The plan's regions may be others than the classes: those say nothing. Raises PlacementError for an impossible plan.
    """
    order = ordered_plan(plan)
    return tuple(_agree_shank(units, one, order, settings) for one in placement.shanks)


def _agree_shank(
    units: DepthUnits, placed: ShankPlacement, plan: Sequence[Planned], settings: PlacementSettings
) -> Agreement:
    if placed.reason not in ("", "one_region"):
        return Agreement(shank=placed.shank, reason=placed.reason)
    if len(plan) < 2:
        return Agreement(shank=placed.shank, reason="one_region")
    column = column_of(units.of(usable(units, placed.shank)[0]), settings)
    log_emission = np.zeros((len(column.depth_um), len(plan)))
    for k, planned in enumerate(plan):
        if planned.region in units.classes:
            log_emission[:, k] = column.log_emission[:, units.classes.index(planned.region)]
    offsets_um = np.arange(-MAX_OFFSET_UM, MAX_OFFSET_UM + 1, settings.step_um)
    borders_um = np.array([(low.to_um + high.from_um) / 2 for low, high in pairwise(plan)])
    likelihoods = offset_likelihoods(
        column.depth_um, log_emission, planned_um=borders_um, offsets_um=offsets_um, sd_um=settings.plan_sd_um
    )
    share = np.exp(likelihoods - likelihoods.max())
    mass = np.cumsum(share) - share / 2  # the mass of an offset lies around it
    low, middle, high = quantiles(offsets_um, mass / share.sum(), QUANTILES)
    return Agreement(
        shank=placed.shank,
        offset_um=middle,
        low_um=low,
        high_um=high,
        agreement=_mean_probability(placed, units.classes, plan, borders_um + middle),
        boundaries=_planned_boundaries(column, log_emission, plan, settings),
    )


def _planned_boundaries(
    column: Column, log_emission: Float64Array, plan: Sequence[Planned], settings: PlacementSettings
) -> tuple[Boundary, ...]:
    states = len(plan)
    leave = np.full(states - 1, 1 - np.exp(-column.step_um / settings.stay_um))
    anywhere = np.ones(states)
    posterior, _ = forward_backward(log_emission, start=anywhere / states, step=ordered_step(leave), end=anywhere)
    return borders(column.depth_um, posterior, [planned.region for planned in plan], settings)


def _mean_probability(
    placed: ShankPlacement, classes: tuple[str, ...], plan: Sequence[Planned], borders_um: Float64Array
) -> float:
    """Mean posterior, over the depths for which the plan names one of the classes, of that class; 0 without any."""
    names = [plan[k].region for k in np.searchsorted(borders_um, placed.depth_um)]
    found = [row[classes.index(name)] for row, name in zip(placed.posterior, names, strict=True) if name in classes]
    return float(np.mean(found)) if found else 0.0


def ordered_plan(plan: Sequence[Planned]) -> tuple[Planned, ...]:
    """Return the plan from the tip up. Raises PlacementError naming the region that cannot be."""
    if not plan:
        raise PlacementError("plan: no region; give at least one")
    for one in plan:
        if not (np.isfinite([one.from_um, one.to_um]).all() and one.from_um < one.to_um):
            raise PlacementError(f"plan: {one.region} from {one.from_um} to {one.to_um} um; from must be below to")
    order = sorted(plan, key=lambda one: one.from_um)
    for low, high in pairwise(order):
        if high.from_um < low.to_um:
            raise PlacementError(f"plan: {low.region} and {high.region} overlap; end one where the next begins")
    return tuple(order)
