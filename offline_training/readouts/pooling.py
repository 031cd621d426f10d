"""From log-probabilities that nothing of an animal entered to a calibrated pool: which predictors, how warm, when to
abstain, and sets of classes.

Predictors weigh alike. Which of them are pooled is chosen among few candidates by log loss on animals left out; one
temperature per knot of exposure makes the top probability as right as it says, on average over the units as they come.
Shapes: R examples, C classes, K knots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from nuclr_stream.features.accumulator import ALONE, FeatureSet
from nuclr_stream.prediction.pool import LogLinearPool
from nuclr_stream.windows.binning import BoolArray, Float32Array
from offline_training.readouts.examples import WHOLE, Examples
from offline_training.readouts.predictor import LOG_TEMPERATURE, can_choose, loss_at_best_temperature
from offline_training.readouts.regression import Float64Array

CANDIDATES: tuple[tuple[FeatureSet, ...], ...] = (
    ("embedding_neighbourhood", "statistics_neighbourhood", "coupling_neighbourhood"),
    ("embedding_neighbourhood", "statistics_neighbourhood", "statistics", "coupling_neighbourhood", "coupling"),
    ("statistics_neighbourhood", "coupling_neighbourhood"),
    ("embedding_neighbourhood", "statistics_neighbourhood"),
    ("embedding_neighbourhood", "statistics_neighbourhood", "statistics"),
    ("embedding", "embedding_neighbourhood"),
)
PRECISIONS = (0.90, 0.85, 0.80)
"""Share of the called units that is right, on animals left out and less one standard error over animals: the first of
these that a threshold reaches on whole recordings. The card states what was reached."""
LEAST_CALLED = 0.05
LEAST_ANIMALS_CALLED = 3
"""Share of the units, and animals among them, that must be called for their precision to mean anything."""
DEFAULT: tuple[FeatureSet, ...] = ("embedding_neighbourhood", "statistics_neighbourhood")
"""What is pooled where too few animals can be left out to choose."""
COVERAGE = 0.90
ENOUGH_ANIMALS = 20
"""From so many animals on, the coverage of sets is a promise for a new one; below it is a figure that was measured."""

Held = Mapping[FeatureSet, Float32Array]
"""Log-probabilities (R, C) of the examples, by feature set, from predictors that saw nothing of their animals."""


def fit_pools(held: Held, known: Examples) -> tuple[LogLinearPool, ...]:
    """The ways to answer, the preferred first: the best candidate, spike statistics alone for small populations, and
    the embedding alone for units that lack the rest; every set alone where it is none of these."""
    candidates = [names for names in CANDIDATES if set(names) <= set(held)]
    if DEFAULT in candidates and not can_choose(known):
        candidates = [DEFAULT]
    losses = [_loss(held, known, names) for names in candidates]
    ways = [candidates[int(np.argmin(losses))]] if candidates else []
    ways += [(name,) for name in (ALONE, "embedding") if name in held and (name,) not in ways]
    return tuple(calibrated(held, known, names) for names in ways or [(name,) for name in held])


def calibrated(held: Held, known: Examples, names: tuple[FeatureSet, ...]) -> LogLinearPool:
    """The equal pool of these predictors with temperatures, thresholds and sets fitted on units left out."""
    able = np.logical_and.reduce([known.has[name] for name in names])
    own, logits = known.where(able), {name: held[name][able] for name in names}
    exposure = own.exposure_of(names)
    knots, rows = _knots(own, exposure)
    temperature = tuple(_temperature(logits, own, names, at) for at in rows)
    pool = LogLinearPool.equal(names, n=knots, temperature=temperature)
    p = pool.probabilities(logits, exposure)
    top, right = p.max(axis=1), p.argmax(axis=1) == own.label
    tried = [
        tuple(_threshold(top[at], right[at], own.subject[at], precision) for at in rows) for precision in PRECISIONS
    ]
    thresholds = next((found for found in tried if found[-1] < 1), tried[-1])  # whole recordings matter most
    return LogLinearPool.equal(
        names,
        n=knots,
        temperature=temperature,
        abstain_below=thresholds,
        set_above=tuple(_set_threshold(p[at], own.where(at)) for at in rows),
    )


def precision_promise(pool: LogLinearPool, held: Held, known: Examples) -> str:
    """What the pool's thresholds kept on whole recordings of animals left out, in words, with the worst animal's."""
    able = np.logical_and.reduce([known.has[name] for name in pool.predictors]) & (known.length == WHOLE)
    own = known.where(able)
    exposure = own.exposure_of(pool.predictors)
    p = pool.probabilities({name: held[name][able] for name in pool.predictors}, exposure)
    called, right = ~pool.too_unsure(p, exposure), p.argmax(axis=1) == own.label
    if not called.any():
        return f"no threshold reached a precision of {PRECISIONS[-1]:.2f} on animals left out: no class is ever called"
    per_animal = [right[called & (own.subject == one)].mean() for one in np.unique(own.subject[called])]
    return (
        f"on whole recordings of {len(np.unique(own.subject))} animals left out, {called.mean():.0%} of the units were "
        f"called and {right[called].mean():.2f} of those were right; by animal at least {min(per_animal):.2f}, "
        f"in the tenth percentile {np.quantile(per_animal, 0.1):.2f}"
    )


def sets_promise(animals: int) -> str:
    """What sets fitted on so many animals promise, in words."""
    if animals >= ENOUGH_ANIMALS:
        return f"the true class is in the set for {COVERAGE:.0%} of the units of a new animal, on average over animals"
    return (
        f"no promise: the true class was in the set for {COVERAGE:.0%} of the units of the {animals} training animals"
    )


def _loss(held: Held, known: Examples, names: Sequence[FeatureSet]) -> float:
    """Class-balanced log loss of the equal pool on whole recordings at its best temperature."""
    able = np.logical_and.reduce([known.has[name] for name in names]) & (known.length == WHOLE)
    pooled = np.asarray(np.mean([held[name][able] for name in names], axis=0), dtype=np.float64)
    return loss_at_best_temperature(pooled, known.where(able))


def _knots(known: Examples, exposure: Float32Array) -> tuple[tuple[float, ...], list[BoolArray]]:
    """Median exposure of the examples of every length, and which they are; lengths of about the same exposure join."""
    found = [
        (float(np.median(exposure[at])), at) for length in np.unique(known.length) for at in [known.length == length]
    ]
    found.sort(key=lambda pair: pair[0])
    knots, rows = [max(found[0][0], 1.0)], [found[0][1]]
    for n, at in found[1:]:
        if n > 1.5 * knots[-1]:
            knots, rows = [*knots, n], [*rows, at]
        else:
            rows[-1] = rows[-1] | at
    return tuple(knots), rows


def _temperature(logits: Held, known: Examples, names: tuple[FeatureSet, ...], at: BoolArray) -> float:
    """The temperature that minimises the squared error of the top probability, units as they come."""
    own, chosen = known.where(at), {name: logits[name][at] for name in names}
    share = own.shares()

    def loss(log_t: float) -> float:
        p = LogLinearPool.equal(names, temperature=(float(np.exp(log_t)),)).probabilities(chosen, own.exposure)
        return float((share * np.square(p.max(axis=1) - (p.argmax(axis=1) == own.label))).sum() / share.sum())

    return float(np.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURE, method="bounded").x))


def _threshold(top: Float32Array, right: BoolArray, subject: npt.NDArray[np.str_], precision: float) -> float:
    """The smallest top probability such that `precision` of the units at or above it is right, less one standard error
    over animals; 1 if there is none. Units of one animal fail together, so it is animals that count."""
    order = np.argsort(-top, kind="stable")
    animals, place = np.unique(subject[order], return_inverse=True)
    own = np.arange(len(animals)) == place[:, None]
    called, hits = np.cumsum(own, axis=0), np.cumsum(own & right[order][:, None], axis=0)
    total = called.sum(axis=1)
    found = hits.sum(axis=1) / total
    number = (called > 0).sum(axis=1)
    # the standard error of a ratio of sums over animals
    spread = np.square(hits - found[:, None] * called).sum(axis=1)
    error = np.sqrt(spread * number / np.maximum(number - 1, 1)) / total
    enough = (total >= LEAST_CALLED * len(order)) & (number >= min(LEAST_ANIMALS_CALLED, len(animals)))
    kept = np.flatnonzero((found - error >= precision) & enough)
    return float(np.ceil(top[order][kept[-1]] * 1e4) / 1e4) if len(kept) else 1.0


def _set_threshold(p: Float32Array, known: Examples) -> float:
    """Largest probability such that the classes at or above it hold the true one for COVERAGE of the units, every
    animal counting alike. With enough animals a new one counts as one that is always missed: it is conformal."""
    true = p[np.arange(len(known)), known.label].astype(np.float64)
    animals, place, counts = np.unique(known.subject, return_inverse=True, return_counts=True)
    share = (1 / counts)[place]
    order = np.argsort(-true, kind="stable")
    covered: Float64Array = np.cumsum(share[order]) / (len(animals) + int(len(animals) >= ENOUGH_ANIMALS))
    enough = int(np.searchsorted(covered, COVERAGE - 1e-12))
    return float(np.floor(true[order][enough] * 1e4) / 1e4) if enough < len(order) else 0.0
