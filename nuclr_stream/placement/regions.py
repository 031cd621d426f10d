"""Where along a probe which region lies: what single units say, joined along depth. Single predictions stay.

The regions of one shank are a hidden Markov model over depth, an idea of the IBL ephys atlas. A depth emits what its
units say, p(region | unit) / prior, tempered: neighbours err together, so a unit among others counts for less. What the
windows of a unit are worth is in its calibrated probabilities already; a unit without a window says nothing.

Shapes: U units, C classes, G depths of a grid, K regions in order. Depth is in micrometres from the tip, upwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nuclr_stream.errors import PlacementError
from nuclr_stream.placement.hmm import (
    Float64Array,
    blurred_quantiles,
    forward_backward,
    free_step,
    likeliest_path,
    passed,
)
from nuclr_stream.windows.binning import BoolArray, Int64Array

Reason = Literal["", "no_depth", "too_few_units", "no_data", "all_abstained", "one_region", "too_many_shanks"]

INTERVAL = 0.90
"""Mass of every interval; the tails outside are equal."""
LEAST_UNITS = 2
POOL_UNITS, POOL_UM = 5, 60.0
MAX_GRID = 1024
"""Most depths of one shank; a longer shank has a coarser grid."""
MAX_SHANKS = 64
UNKNOWN_SHANK = -1
QUANTILES = (0.5 - INTERVAL / 2, 0.5, 0.5 + INTERVAL / 2)


@dataclass(frozen=True, kw_only=True)
class PlacementSettings:
    """How depth is read; the defaults were chosen on simulated probes, see results/placement.

    step_um: distance of the depths of the grid. stay_um: mean thickness of a region.
    correlation, correlation_um: how alike the errors of two units at one depth are, and over what distance that fades.
    outlier: share of units that say nothing about their depth, however sure they are.
    border_sd_um: how far units change region from where the border lies: no border is a plane.
    plan_sd_um: how far a border lies from where the plan has it once the offset is right.
    """

    step_um: float = 10.0
    stay_um: float = 600.0
    correlation: float = 0.3
    correlation_um: float = 50.0
    outlier: float = 0.05
    border_sd_um: float = 20.0
    plan_sd_um: float = 100.0


DEFAULTS = PlacementSettings()


@dataclass(frozen=True, kw_only=True)
class DepthUnits:
    """What is known of the units of one probe: `probabilities` (U, C) under `prior` (C,), and where the units are.

    `depth_um` (U,) NaN where unknown, `shank` (U,) -1 where unknown, `exposure` (U,) n, `abstained` (U,) bool.
    """

    classes: tuple[str, ...]
    prior: Float64Array
    probabilities: Float64Array
    depth_um: Float64Array
    shank: Int64Array
    exposure: Float64Array
    abstained: BoolArray

    def of(self, rows: Int64Array) -> DepthUnits:
        """Return some of the units, in the order of `rows`."""
        return DepthUnits(
            classes=self.classes,
            prior=self.prior,
            probabilities=self.probabilities[rows],
            depth_um=self.depth_um[rows],
            shank=self.shank[rows],
            exposure=self.exposure[rows],
            abstained=self.abstained[rows],
        )


@dataclass(frozen=True)
class Segment:
    """A stretch of a shank in one region; `probability` is that of the region, averaged over the stretch."""

    region: str
    from_um: float
    to_um: float
    probability: float


@dataclass(frozen=True)
class Boundary:
    """The border between region `below` and region `above`: median and 90 % interval, given the order of regions.

    `probability` is that of the border lying on the stretch of the shank that has units.
    """

    below: str
    above: str
    depth_um: float
    low_um: float
    high_um: float
    probability: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ShankPlacement:
    """One shank: `posterior` (G, C) over the classes at `depth_um` (G,), and its segments and borders from the tip up.

    `reason` says why there is nothing to see ("one_region": no border). `order_probability` is that of the segments'
    regions being the regions of the shank, in this order; borders and intervals are given that they are.
    """

    shank: int
    units: int
    reason: Reason = ""
    depth_um: Float64Array
    posterior: Float64Array
    segments: tuple[Segment, ...] = ()
    boundaries: tuple[Boundary, ...] = ()
    order_probability: float = 0.0

    def at(self, depth_um: Float64Array) -> Float64Array:
        """Return the posterior (U, C) at the grid's depth nearest to each of `depth_um` (U,)."""
        return self.posterior[nearest(self.depth_um, depth_um)]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """All shanks of a probe, ascending; `reason` is why there is none, or that of all of them if they share one."""

    classes: tuple[str, ...]
    shanks: tuple[ShankPlacement, ...]
    reason: Reason = ""


def pool_along_depth(units: DepthUnits) -> Float64Array:
    """Mean probabilities (U, C) over the <= 5 nearest units within 60 um on the same shank, itself included.

    The multi-unit averaging of NEMO (ICLR 2025). Units without exposure do not count; where none does, or the depth is
    unknown, a unit keeps its own probabilities.
    """
    pooled = units.probabilities.copy()
    usable = np.isfinite(units.depth_um) & (units.exposure > 0)
    for shank in np.unique(units.shank):
        rows = np.flatnonzero((units.shank == shank) & np.isfinite(units.depth_um))
        members = np.flatnonzero((units.shank == shank) & usable)
        members = members[np.argsort(units.depth_um[members], kind="stable")]
        for row in rows:
            near = _nearest_members(units.depth_um[members], units.depth_um[row], itself=members == row)
            if len(near):
                pooled[row] = units.probabilities[members[near]].mean(axis=0)
    return pooled


def _nearest_members(sorted_um: Float64Array, depth_um: float, *, itself: BoolArray) -> Int64Array:
    """Positions of the POOL_UNITS depths nearest to `depth_um`, at most POOL_UM away; a unit is nearest to itself."""
    low = int(np.searchsorted(sorted_um, depth_um - POOL_UM, side="left"))
    high = int(np.searchsorted(sorted_um, depth_um + POOL_UM, side="right"))
    distance = np.where(itself[low:high], -1.0, np.abs(sorted_um[low:high] - depth_um))
    rows: Int64Array = low + np.argsort(distance, kind="stable")[:POOL_UNITS]
    return rows


def place(
    units: DepthUnits, *, transitions: Float64Array | None = None, settings: PlacementSettings = DEFAULTS
) -> Placement:
    """Regions along every shank, their borders and how sure that is; what is missing is a reason, never an error.

    `transitions` (C, C) is the chance, on leaving a region upwards, that the next one is another; its diagonal does not
    count. Without it all are equal. Raises PlacementError for a matrix that cannot be one.
    """
    step = _transitions(transitions, len(units.classes))
    known = np.unique(units.shank[units.shank != UNKNOWN_SHANK])
    # without any shank there is one; a unit of unknown shank beside known ones could be anywhere
    shanks = known.tolist() or ([UNKNOWN_SHANK] if len(units.shank) else [])
    if len(shanks) > MAX_SHANKS:
        return Placement(classes=units.classes, shanks=(), reason="too_many_shanks")
    placed = tuple(_place_shank(units, shank, step, settings) for shank in shanks)
    reasons = {one.reason for one in placed} or {"too_few_units"}
    return Placement(classes=units.classes, shanks=placed, reason=reasons.pop() if len(reasons) == 1 else "")


@dataclass(frozen=True, eq=False)
class Column:
    """What the usable units of a shank say at every depth (G,) of a grid: log likelihoods (G, C), tempered."""

    depth_um: Float64Array
    log_emission: Float64Array
    step_um: float


def usable(units: DepthUnits, shank: int) -> tuple[Int64Array, Reason]:
    """Rows of the units of a shank that can be placed, and why there are none."""
    on_shank = units.shank == shank
    deep = on_shank & np.isfinite(units.depth_um)
    known = deep & (units.exposure > 0) & np.isfinite(units.probabilities).all(axis=1)
    rows = np.flatnonzero(known)
    if not deep.any():
        return rows, "no_depth"
    if not len(rows):
        return rows, "no_data"
    if units.abstained[rows].all():
        return rows, "all_abstained"
    return rows, "too_few_units" if len(rows) < LEAST_UNITS else ""


def column_of(units: DepthUnits, settings: PlacementSettings) -> Column:
    """Return what usable units of one shank say, on a grid from the deepest to the highest of them."""
    low, high = float(units.depth_um.min()), float(units.depth_um.max())
    step_um = max(settings.step_um, (high - low) / (MAX_GRID - 1))
    depth_um = low + step_um * np.arange(int(np.rint((high - low) / step_um)) + 1, dtype=np.float64)
    ratio = units.probabilities / np.maximum(units.prior, 1e-9)
    predictions = np.log((1 - settings.outlier) * ratio + settings.outlier)
    log_emission = np.zeros((len(depth_um), len(units.classes)))
    np.add.at(log_emission, nearest(depth_um, units.depth_um), weights(units.depth_um, settings)[:, None] * predictions)
    return Column(depth_um, log_emission, step_um)


def weights(depth_um: Float64Array, settings: PlacementSettings) -> Float64Array:
    """What each unit (U,) is worth beside the others: 1 / (1 + correlation * neighbours), neighbours fading over depth.

    Units that err together add up to fewer than they are: the design effect of a cluster sample.
    """
    order = np.argsort(depth_um, kind="stable")
    fade = np.exp(-np.diff(depth_um[order]) / settings.correlation_um)
    below = np.zeros(len(order))
    above = np.zeros(len(order))
    for i in range(1, len(order)):
        below[i] = (below[i - 1] + 1) * fade[i - 1]
    for i in range(len(order) - 2, -1, -1):
        above[i] = (above[i + 1] + 1) * fade[i]
    found = np.empty(len(order))
    found[order] = 1 / (1 + settings.correlation * (below + above))
    return found


def nearest(grid_um: Float64Array, depth_um: Float64Array) -> Int64Array:
    """Row of the even grid nearest to each depth; the first or last for depths outside."""
    step_um = grid_um[1] - grid_um[0] if len(grid_um) > 1 else 1.0
    rows: Int64Array = np.clip(np.rint((depth_um - grid_um[0]) / step_um), 0, len(grid_um) - 1).astype(np.int64)
    return rows


def _place_shank(
    units: DepthUnits, shank: int, transitions: Float64Array, settings: PlacementSettings
) -> ShankPlacement:
    rows, reason = usable(units, shank)
    count = len(units.classes)
    if reason:
        nothing: Float64Array = np.zeros((0, count))
        return ShankPlacement(shank=shank, units=len(rows), reason=reason, depth_um=nothing[:, 0], posterior=nothing)
    column = column_of(units.of(rows), settings)
    start = np.full(count, 1 / count)
    step = free_step(transitions, step_um=column.step_um, stay_um=settings.stay_um)
    posterior, likelihood = forward_backward(column.log_emission, start=start, step=step, end=np.ones(count))
    path = likeliest_path(column.log_emission, start=start, step=step)
    order = path[np.append(True, np.diff(path) != 0)]
    ends = np.eye(len(order))
    # the free chain's own steps: what is left over is the mass of all other orders
    along = np.diag(step[order, order]) + np.diag(step[order[:-1], order[1:]], 1)
    within, ordered = forward_backward(column.log_emission[:, order], start=ends[0] / count, step=along, end=ends[-1])
    names = tuple(units.classes[c] for c in order)
    boundaries = borders(column.depth_um, within, names, settings)
    return ShankPlacement(
        shank=shank,
        units=len(rows),
        reason="" if boundaries else "one_region",
        depth_um=column.depth_um,
        posterior=posterior,
        segments=_segments(column.depth_um, posterior, order, names, boundaries),
        boundaries=boundaries,
        order_probability=float(min(np.exp(ordered - likelihood), 1.0)),
    )


def borders(
    depth_um: Float64Array, posterior: Float64Array, names: Sequence[str], settings: PlacementSettings
) -> tuple[Boundary, ...]:
    """The borders that lie on the shank more likely than not, from the posterior (G, K) of an ordered chain."""
    found = []
    for k, mass in enumerate(passed(posterior).T):
        on_shank = float(mass[-1] - mass[0])
        if on_shank < 0.5:
            continue
        low, middle, high = blurred_quantiles(depth_um, mass, QUANTILES, sd_um=settings.border_sd_um)
        found.append(Boundary(names[k], names[k + 1], middle, low, high, on_shank))
    return tuple(found)


def _segments(
    depth_um: Float64Array,
    posterior: Float64Array,
    order: Int64Array,
    names: Sequence[str],
    boundaries: Sequence[Boundary],
) -> tuple[Segment, ...]:
    edges = [float(depth_um[0]), *(b.depth_um for b in boundaries), float(depth_um[-1])]
    found = []
    for c, name, low, high in zip(order.tolist(), names, edges[:-1], edges[1:], strict=True):
        first, last = nearest(depth_um, np.array([low, high])).tolist()
        found.append(Segment(name, low, high, float(posterior[first : last + 1, c].mean())))
    return tuple(found)


def _transitions(given: Float64Array | None, classes: int) -> Float64Array:
    """The chance (C, C), on leaving, of each next region: rows add up to 1, nothing on the diagonal."""
    matrix = np.ones((classes, classes)) if given is None else np.asarray(given, dtype=np.float64)
    off = ~np.eye(classes, dtype=bool)
    if matrix.shape != off.shape or not np.isfinite(matrix).all() or (matrix < 0).any():
        raise PlacementError(f"transitions: {matrix.shape} with {classes} classes; give finite chances (C, C) >= 0")
    chances = np.where(off, matrix, 0.0)
    if (chances.sum(axis=1) == 0).any():
        raise PlacementError("transitions: a region without any next one; give every row a chance off the diagonal")
    found: Float64Array = chances / chances.sum(axis=1, keepdims=True)
    return found
