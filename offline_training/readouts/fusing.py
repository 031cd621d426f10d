"""From what predictors said of units that they had not seen: how they speak together, when to say nothing, and sets.

Everything is fitted with weights that balance classes: promises hold under the uniform class prior.
Shapes: R examples, C classes, K knots.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar

from nuclr_stream.features.accumulator import FeatureSet
from nuclr_stream.features.mean_embedding import KNOTS, between_knots
from nuclr_stream.prediction.pool import LogLinearPool, log_softmax
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array
from offline_training.readouts.calibration import LEAST_CALLED, PROMISED_PRECISION, STIFFNESS, nearest_knot

PROMISED_COVERAGE = 0.90
ENOUGH_ANIMALS = 20
"""From so many animals on, the coverage of sets is a promise, and animals tell whom to believe. Below, coverage is a
figure that was measured, and predictors are heard nearly alike: only how loud they speak is fitted."""
LARGEST_WEIGHT = 5.0
"""In units of the weight that suits all predictors alike."""
LOUDNESS = (-3.0, 5.0)
"""Range of the logarithm of that weight."""
QUIETEST = 0.1
"""In the same units: a few animals silence nobody, for then not even the order of classes would be left."""
_SHRINKAGE = 0.003
"""Weight of the squared weights against the mean log loss, in units of the weight that suits all predictors alike: predictors
that add nothing stay silent, and how large logits happen to be does not matter."""
_ALIKE = 1.0
"""Weight of the squared differences between predictors where there are too few animals to tell them apart."""

Float64Array = npt.NDArray[np.float64]


def fit_pool(
    logits: Mapping[FeatureSet, Float32Array],
    label: Int64Array,
    n: Float32Array,
    *,
    weights: Float64Array,
    animal: npt.NDArray[np.str_],
) -> LogLinearPool:
    """Fit weights by exposure, then thresholds, on logits (R, C) of predictors that had not seen the animals of the
    examples: their class, exposure n, weight and animal (R,)."""
    knots = tuple(knot for knot in KNOTS if knot <= max(float(n.max()), 1.0))
    said = {name: log_softmax(values) for name, values in logits.items()}
    promised = len(np.unique(animal)) >= ENOUGH_ANIMALS
    weight = _fit_weights(said, label, n, knots, weights, alike=0.0 if promised else _ALIKE)
    silent = (0.0,) * len(knots)
    pool = LogLinearPool(predictors=tuple(logits), n=knots, weight=weight, abstain_below=silent, set_above=silent)
    p = pool.probabilities(logits, n)
    group = np.minimum(nearest_knot(n), len(knots) - 1)
    return LogLinearPool(
        predictors=pool.predictors,
        n=knots,
        weight=weight,
        abstain_below=(_least_sure(p, label, weights=weights, group=group, animal=animal),) * len(knots),
        set_above=tuple(_set_threshold(p, label, animal, group == k, promised=promised) for k in range(len(knots))),
    )


def _fit_weights(
    said: Mapping[FeatureSet, Float64Array],
    label: Int64Array,
    n: Float32Array,
    knots: tuple[float, ...],
    weights: Float64Array,
    *,
    alike: float,
) -> tuple[tuple[float, ...], ...]:
    """Non-negative weights, one row of K per predictor, that minimise the weighted log loss of what they say together,
    as `alike` as is asked."""
    stacked = np.stack(list(said.values()))
    share = weights / weights.sum()
    hats = between_knots(n, knots).T
    rows = np.arange(len(label))

    def best(spoken: Float64Array) -> float:
        def loss(log_weight: float) -> float:
            return float(-(share * log_softmax(np.exp(log_weight) * spoken)[rows, label]).sum())

        return float(np.exp(minimize_scalar(loss, bounds=LOUDNESS, method="bounded").x))

    # predictors that contradict one another are not alike at all: then what suits one of them is the measure
    unit = max(best(stacked.sum(axis=0)), *(best(alone) / len(stacked) for alone in stacked))
    stacked *= unit

    def loss(flat: Float64Array) -> tuple[float, Float64Array]:
        w = flat.reshape(len(stacked), len(knots))
        total = log_softmax(np.einsum("er,erc->rc", w @ hats, stacked))
        fit = -(share * total[rows, label]).sum() + STIFFNESS * np.square(np.diff(w)).sum() + _SHRINKAGE * (w**2).sum()
        error = np.exp(total)
        error[rows, label] -= 1
        gradient = np.einsum("kr,er->ek", hats, share * np.einsum("rc,erc->er", error, stacked)) + 2 * _SHRINKAGE * w
        steps = 2 * STIFFNESS * np.diff(w)
        gradient[:, 1:] += steps
        gradient[:, :-1] -= steps
        apart = w - w.mean(axis=0)
        return float(fit + alike * np.square(apart).sum()), (gradient + 2 * alike * apart).ravel()

    start = np.ones(stacked.shape[0] * len(knots))
    bounds = [(QUIETEST if alike else 0.0, LARGEST_WEIGHT)] * len(start)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return tuple(tuple(float(v) for v in row) for row in unit * found.x.reshape(len(stacked), len(knots)))


def _least_sure(
    p: Float32Array, label: Int64Array, *, weights: Float64Array, group: Int64Array, animal: npt.NDArray[np.str_]
) -> float:
    """Smallest top-1 probability above which the promised precision holds: at every exposure, and without any one
    animal as well, so that no single animal carries the promise. 1 where there is none."""
    top, right = p.max(axis=1), p.argmax(axis=1) == label
    candidates = np.unique(np.round(top, 4))
    broken, called_at_all = np.zeros(len(candidates), dtype=bool), np.zeros(len(candidates), dtype=bool)
    for k in np.unique(group):
        kept, enough = _keeps(candidates, top, right, weights, group == k)
        broken |= enough & ~kept
        called_at_all |= enough
    animals = np.unique(animal)
    for one in animals if len(animals) > 2 else ():
        kept, enough = _keeps(candidates, top, right, weights, animal != one)
        broken |= enough & ~kept
        called_at_all &= enough
    # only beyond the last that breaks the promise: a lucky island of promise below is none
    last = np.flatnonzero(broken)[-1:]
    good = np.flatnonzero(called_at_all & (np.arange(len(candidates)) > (last[0] if len(last) else -1)))
    return float(candidates[good[0]]) if len(good) else 1.0


def _keeps(
    candidates: Float64Array, top: Float32Array, right: BoolArray, weights: Float64Array, rows: BoolArray
) -> tuple[BoolArray, BoolArray]:
    """For every candidate threshold: is the promise kept among `rows`, and are enough of them called?"""
    own = np.flatnonzero(rows)
    own = own[np.argsort(-top[own], kind="stable")]
    count = np.searchsorted(-top[own], -candidates, side="right")
    called = np.append(0.0, np.cumsum(weights[own]))[count]
    good = np.append(0.0, np.cumsum(weights[own] * right[own]))[count]
    return good >= PROMISED_PRECISION * called, called >= LEAST_CALLED * weights[own].sum()


def _set_threshold(
    p: Float32Array, label: Int64Array, animal: npt.NDArray[np.str_], rows: BoolArray, *, promised: bool
) -> float:
    """Largest probability such that the classes at or above it hold the true one as often as promised, every animal
    counting alike. Where it is `promised`, a new animal counts as one that is always missed: it is conformal.
    """
    true = p[np.arange(len(label)), label].astype(np.float64)[rows]
    animals, counts = np.unique(animal[rows], return_counts=True)
    if not len(animals):
        return 0.0
    share = (1 / counts)[np.searchsorted(animals, animal[rows])]
    total = len(animals) + int(promised)
    order = np.argsort(-true, kind="stable")
    covered = np.cumsum(share[order]) / total
    enough = np.searchsorted(covered, PROMISED_COVERAGE - 1e-12)
    return float(np.floor(true[order][enough] * 1e4) / 1e4) if enough < len(order) else 0.0


def sets_promise(animals: int) -> str:
    """What sets fitted on so many animals promise, in words."""
    share = f"{PROMISED_COVERAGE:.0%}"
    if animals >= ENOUGH_ANIMALS:
        return f"the true class is in the set for {share} of the units of a new animal, on average over animals"
    return f"no promise: the true class was in the set for {share} of the units of the {animals} animals of calibration"
