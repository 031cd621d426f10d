"""From out-of-fold logits to probabilities that may be believed: temperature by exposure, and when to abstain.

Fitted with class-balanced weights: the promise holds under the uniform class prior that readouts assume.
Shapes: R examples, C classes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from nuclr_stream.features.mean_embedding import KNOTS, Calibration
from nuclr_stream.windows.binning import Float32Array, Int64Array

PROMISED_PRECISION = 0.90
LEAST_CALLED = 0.01
"""Share of the weight that must lie above an abstention threshold for its precision to mean anything."""
STIFFNESS = 0.01
"""Weight of the squared steps of log T between knots, against the mean log loss: knots without data follow their
neighbours."""
TEMPERATURE_RANGE = (0.05, 100.0)

Float64Array = npt.NDArray[np.float64]


def calibrate(logits: Float32Array, label: Int64Array, n: Float32Array, *, weights: Float64Array) -> Calibration:
    """Calibration from logits (R, C) of examples that their readouts had not seen, with class, exposure n and weight
    (R,). `abstain_below` is 1 when no threshold keeps the promise."""
    curve = fit_temperature(logits, label, n, weights=weights)
    probabilities = curve.probabilities(logits, n)
    right = probabilities.argmax(axis=1) == label
    top = probabilities.max(axis=1)
    threshold = abstention_threshold(top, right, weights=weights, group=nearest_knot(n))
    return Calibration(n=curve.n, temperature=curve.temperature, abstain_below=threshold)


def nearest_knot(n: Float32Array) -> Int64Array:
    """Which of the KNOTS each exposure n (R,) is nearest to, by ratio."""
    between = np.sqrt(np.array(KNOTS[1:]) * np.array(KNOTS[:-1]))
    return np.searchsorted(between, n).astype(np.int64)


def fit_temperature(logits: Float32Array, label: Int64Array, n: Float32Array, *, weights: Float64Array) -> Calibration:
    """T at the knots up to the largest exposure seen, minimising the weighted log loss of softmax(logits / T(n))."""
    knots = tuple(knot for knot in KNOTS if knot <= max(float(n.max()), 1.0))
    share = weights / weights.sum()
    low, high = np.log(TEMPERATURE_RANGE)

    def loss(log_t: Float64Array) -> float:
        curve = Calibration(n=knots, temperature=tuple(np.exp(log_t)))
        probability = curve.probabilities(logits, n)[np.arange(len(label)), label]
        fit = -(share * np.log(np.maximum(probability, 1e-12))).sum()
        return float(fit + STIFFNESS * np.square(np.diff(log_t)).sum())

    found = minimize(loss, np.zeros(len(knots)), method="Powell", bounds=[(low, high)] * len(knots))
    return Calibration(n=knots, temperature=tuple(float(t) for t in np.exp(found.x)))


def abstention_threshold(
    top: Float32Array,
    right: npt.NDArray[np.bool_],
    *,
    weights: Float64Array,
    group: Int64Array,
    precision: float = PROMISED_PRECISION,
) -> float:
    """Smallest top-1 probability from which on at least `precision` of the weight is right in every group, or 1.

    top, right, weights, group are (R,). Groups are exposures: a promise that only holds on average over a recording is
    broken in its first minute. A group is content, too, when less than LEAST_CALLED of its weight is called; one group
    at least must be called.
    """
    candidates = np.unique(top)[::-1]
    kept_promise = np.ones(len(candidates), dtype=bool)
    called_at_all = np.zeros(len(candidates), dtype=bool)
    for one in np.unique(group):
        own = np.flatnonzero(group == one)
        own = own[np.argsort(-top[own], kind="stable")]
        count = np.searchsorted(-top[own], -candidates, side="right")
        called = np.append(0.0, np.cumsum(weights[own]))[count]
        good = np.append(0.0, np.cumsum(weights[own] * right[own]))[count]
        enough = called >= LEAST_CALLED * weights[own].sum()
        kept_promise &= ~enough | (good >= precision * called)
        called_at_all |= enough
    lawful = np.flatnonzero(kept_promise & called_at_all)
    return float(candidates[lawful[-1]]) if len(lawful) else 1.0
