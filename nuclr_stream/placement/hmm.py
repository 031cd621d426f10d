"""Hidden Markov chains over the depths of a shank: posteriors, the likeliest path, where one state ends. Pure numpy.

Shapes: G depths of a grid in ascending order, S states, K states that follow one another, O offsets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nuclr_stream.windows.binning import Int64Array

Float64Array = npt.NDArray[np.float64]

_TINY = 1e-300


def forward_backward(
    log_emission: Float64Array, *, start: Float64Array, step: Float64Array, end: Float64Array
) -> tuple[Float64Array, float]:
    """Return the posterior (G, S) of the states and the log likelihood of all depths.

    `log_emission` (G, S), `start` (S,) probabilities of the first state, `step` (S, S) from row to column, `end` (S,)
    1 where the last state may be that one.
    """
    top = log_emission.max(axis=1)
    emission = np.maximum(np.exp(log_emission - top[:, None]), _TINY)
    forward = np.empty_like(emission)
    backward = np.empty_like(emission)
    scale = np.empty(len(emission))
    ahead = start
    for g, seen in enumerate(emission):
        joint = ahead * seen
        scale[g] = max(joint.sum(), _TINY)
        forward[g] = joint / scale[g]
        ahead = forward[g] @ step
    backward[-1] = end
    for g in range(len(emission) - 2, -1, -1):
        backward[g] = step @ (emission[g + 1] * backward[g + 1]) / scale[g + 1]
    ends = max(float(forward[-1] @ end), _TINY)
    posterior = forward * backward
    posterior /= np.maximum(posterior.sum(axis=1, keepdims=True), _TINY)
    return posterior, float(np.log(scale).sum() + top.sum() + np.log(ends))


def likeliest_path(log_emission: Float64Array, *, start: Float64Array, step: Float64Array) -> Int64Array:
    """Return the likeliest state (G,) of every depth (Viterbi)."""
    log_step = np.log(np.maximum(step, _TINY))
    best = np.log(np.maximum(start, _TINY)) + log_emission[0]
    came_from = np.zeros(log_emission.shape, dtype=np.int64)
    for g in range(1, len(log_emission)):
        options = best[:, None] + log_step
        came_from[g] = options.argmax(axis=0)
        best = options.max(axis=0) + log_emission[g]
    path = np.empty(len(log_emission), dtype=np.int64)
    path[-1] = best.argmax()
    for g in range(len(path) - 1, 0, -1):
        path[g - 1] = came_from[g, path[g]]
    return path


def free_step(transitions: Float64Array, *, step_um: float, stay_um: float) -> Float64Array:
    """Return the step (S, S) of a chain that stays `stay_um` on average and leaves by `transitions` (S, S)."""
    stay = np.exp(-step_um / stay_um)
    step: Float64Array = stay * np.eye(len(transitions)) + (1 - stay) * transitions
    return step


def ordered_step(leave: Float64Array) -> Float64Array:
    """Return the step (K, K) of states that follow one another; `leave` (K - 1,) is the chance of going on."""
    step: Float64Array = np.diag(np.append(1 - leave, 1.0)) + np.diag(leave, 1)
    return step


def passed(posterior: Float64Array) -> Float64Array:
    """Return the probability (G, K - 1) that the border above each state but the last of an order lies below a depth.

    `posterior` (G, K) is that of an ordered chain; the result never falls along depth.
    """
    above = np.cumsum(posterior[:, :0:-1], axis=1)[:, ::-1]
    return np.maximum.accumulate(above, axis=0)


def quantiles(at_um: Float64Array, mass: Float64Array, probabilities: Sequence[float]) -> list[float]:
    """Return where the cumulative `mass` (G,), from 0 to 1 over `at_um` (G,), reaches each probability."""
    rising = np.concatenate([[True], np.diff(mass) > 0])  # the first depth of a plateau; one past it would jump
    rising[:-1] |= np.diff(mass) > 0
    return [float(v) for v in np.interp(probabilities, mass[rising], at_um[rising])]


def blurred_quantiles(
    depth_um: Float64Array, mass: Float64Array, probabilities: Sequence[float], *, sd_um: float
) -> list[float]:
    """As `quantiles` of a mass that rises along an even grid, blurred by a normal; never outside of the grid."""
    from scipy.special import ndtr  # loaded when it is needed: it takes a daemon as long to start as all the rest

    step_um = float(depth_um[1] - depth_um[0])
    reach = int(np.ceil(4 * sd_um / step_um)) + 1
    kernel = np.diff(ndtr((np.arange(-reach, reach + 2) - 0.5) * step_um / max(sd_um, 1e-9)))
    spread = np.convolve(np.diff(mass) / (mass[-1] - mass[0]), kernel)
    at_um = depth_um[0] + step_um * (np.arange(len(spread) + 1, dtype=np.float64) - reach)
    found = quantiles(at_um, np.append(0.0, np.cumsum(spread)), probabilities)
    return [float(v) for v in np.clip(found, depth_um[0], depth_um[-1])]


def offset_likelihoods(
    depth_um: Float64Array,
    log_emission: Float64Array,
    *,
    planned_um: Float64Array,
    offsets_um: Float64Array,
    sd_um: float,
) -> Float64Array:
    """Return the log likelihood (O,) of all depths for each shift `offsets_um` (O,) of a planned order.

    `log_emission` (G, K) of the planned states in order, `planned_um` (K - 1,) their borders; every border lies
    `sd_um` (standard deviation) from its shifted place.
    """
    top = log_emission.max(axis=1)
    emission = np.exp(log_emission - top[:, None])
    beyond = _passed_planned(depth_um[0], planned_um, offsets_um, sd_um)
    state = np.maximum(-np.diff(np.pad(beyond, ((0, 0), (1, 1)), constant_values=((0, 0), (1.0, 0.0)))), 0)
    total = np.zeros(len(offsets_um))
    for g in range(len(depth_um)):
        if g:
            now = _passed_planned(depth_um[g], planned_um, offsets_um, sd_um)
            moving = state[:, :-1] * np.clip((now - beyond) / np.maximum(1 - beyond, 1e-12), 0, 1)
            state[:, :-1] -= moving
            state[:, 1:] += moving
            beyond = now
        state *= emission[g]
        scale = np.maximum(state.sum(axis=1), _TINY)
        state /= scale[:, None]
        total += np.log(scale) + top[g]
    return total


def _passed_planned(depth_um: float, planned_um: Float64Array, offsets_um: Float64Array, sd_um: float) -> Float64Array:
    """Probability (O, K - 1) that each planned border lies below a depth."""
    from scipy.special import ndtr

    found: Float64Array = ndtr((depth_um - offsets_um[:, None] - planned_um) / sd_um)
    return np.minimum.accumulate(found, axis=1)
