"""Integration of the network: adaptive exponential integrate-and-fire cells coupled by conductances, compiled by numba.

This is the only module that imports numba. Compiled code is kept beside the module or in the user's cache directory;
where neither can be written it is compiled anew by every process. `fastmath` lets the processor reorder sums: one kind
of processor repeats its own spikes bit for bit, another kind gives another realisation of the same network.
Shapes: N cells, S synapses, T rows of C drive channels, K channels that drive one cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

RING_SLOTS = 32
"""Steps that the ring of arriving spikes holds: no delay is longer."""

ZERO_AT_FIRST = (
    *("adaptation", "excitation", "fast_inhibition", "slow_inhibition", "gate", "refractory_ms"),
    *("noise", "background", "drive"),
)
"""Parts of `State` that begin at 0."""

Floats = npt.NDArray[np.float64]
F = TypeVar("F", bound=Callable[..., Any])


class Cells(NamedTuple):
    """Constants of the cells, (N,) each; see `network_biology` for the units."""

    rest_mv: Floats
    threshold_mv: Floats
    slope_mv: Floats
    reset_mv: Floats
    membrane_ms: Floats
    subthreshold: Floats
    per_spike: Floats
    adaptation_ms: Floats
    refractory_ms: Floats
    calcium: Floats
    inhibition_mv: Floats
    excitation_ms: Floats
    fast_inhibition_ms: Floats
    slow_inhibition_ms: Floats
    noise_mv: Floats
    noise_ms: Floats
    background_mv: Floats
    background_ms: Floats
    depression: Floats
    depression_ms: Floats
    facilitation: Floats
    facilitation_ms: Floats
    receptor: npt.NDArray[np.int64]


class Synapses(NamedTuple):
    """Outgoing synapses of cell i are [first[i], first[i + 1]): target, conductance step, delay in steps, and whether
    it facilitates (else it depresses)."""

    first: npt.NDArray[np.int64]
    target: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    delay: npt.NDArray[np.uint8]
    facilitates: npt.NDArray[np.uint8]


class Drives(NamedTuple):
    """Channels (T, C), and for every cell which of them drive it (N, K) and by how many mV (N, K)."""

    channels: npt.NDArray[np.float32]
    which: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]


class State(NamedTuple):
    """Everything that changes, (N,) each but for `ring` (RING_SLOTS, receptor, N) and the generator's state (1,)."""

    bias_mv: Floats
    voltage: Floats
    adaptation: Floats
    excitation: Floats
    fast_inhibition: Floats
    slow_inhibition: Floats
    gate: Floats
    refractory_ms: Floats
    noise: Floats
    background: Floats
    drive: Floats
    resources: Floats
    use: Floats
    last_step: npt.NDArray[np.int64]
    ring: npt.NDArray[np.float32]
    random: npt.NDArray[np.uint64]


def _compiled(function: F) -> F:
    """Compile by numba; without a cache where no directory for one can be written."""
    try:
        compiled: Any = numba.njit(fastmath=True, cache=True, boundscheck=False)(function)
    except RuntimeError:  # numba found no place that it may write to
        compiled = numba.njit(fastmath=True, boundscheck=False)(function)
    return cast(F, compiled)


@_compiled
def _normal(s: np.uint64) -> tuple[np.uint64, float]:
    """The next state of a xorshift generator, and a nearly normal number: the sum of four uniform ones."""
    s ^= s << np.uint64(13)
    s ^= s >> np.uint64(7)
    s ^= s << np.uint64(17)
    total = (
        float(s & np.uint64(0xFFFF))
        + float((s >> np.uint64(16)) & np.uint64(0xFFFF))
        + float((s >> np.uint64(32)) & np.uint64(0xFFFF))
        + float((s >> np.uint64(48)) & np.uint64(0xFFFF))
    )
    return s, (total - 131070.0) * (np.sqrt(12.0 / 4.0) / 65536.0)


@_compiled
def _renew_drive(row: npt.NDArray[np.float32], drives: Drives, state: State, decay: Floats, kick: Floats) -> None:
    """Sum the channels that drive every cell, and move its private slow background."""
    s = state.random[0]
    for i in range(state.voltage.size):
        total = state.bias_mv[i]
        for j in range(drives.which.shape[1]):
            total += drives.weight[i, j] * row[drives.which[i, j]]
        s, z = _normal(s)
        state.background[i] = state.background[i] * decay[i] + kick[i] * z
        state.drive[i] = total + state.background[i]
    state.random[0] = s


@_compiled
def _receive(arriving: npt.NDArray[np.float32], decays: tuple[Floats, Floats, Floats], state: State) -> None:
    """Let conductances decay, and add the spikes that arrive in this step (receptor, N)."""
    for i in range(state.voltage.size):
        state.excitation[i] = state.excitation[i] * decays[0][i] + arriving[0, i]
        state.fast_inhibition[i] = state.fast_inhibition[i] * decays[1][i] + arriving[1, i]
        state.slow_inhibition[i] = state.slow_inhibition[i] * decays[2][i] + arriving[2, i]
        arriving[0, i] = 0.0
        arriving[1, i] = 0.0
        arriving[2, i] = 0.0


@_compiled
def _renew_noise(state: State, decay: Floats, kick: Floats) -> None:
    """Move the private fast noise of every cell."""
    s = state.random[0]
    for i in range(state.voltage.size):
        s, z = _normal(s)
        state.noise[i] = state.noise[i] * decay[i] + kick[i] * z
    state.random[0] = s


@_compiled
def _integrate(i: int, dt: float, cells: Cells, state: State) -> bool:
    """Advance cell i by one step; True, with the membrane reset, where it fires."""
    v = state.voltage[i]
    # The low-threshold calcium current, where there is one: it recovers below -62 mV and drives a rebound burst above.
    calcium = 0.0
    if cells.calcium[i] > 0.0:
        if v < -62.0:
            state.gate[i] += dt * (1.0 - state.gate[i]) / 100.0
        else:
            state.gate[i] -= dt * state.gate[i] / 20.0
            calcium = cells.calcium[i] * state.gate[i] * (120.0 - v)
    pull = cells.subthreshold[i] * (v - cells.rest_mv[i]) - state.adaptation[i]
    state.adaptation[i] += dt * pull / cells.adaptation_ms[i]
    if state.refractory_ms[i] > 0.0:
        state.refractory_ms[i] -= dt
        return False
    # The exponential upstroke, bounded: far below threshold it is nothing, far above the spike is certain.
    upstroke = 0.0
    q = (v - cells.threshold_mv[i]) / cells.slope_mv[i]
    if q > -6.0:
        if q > 4.0:
            q = 4.0
        upstroke = cells.slope_mv[i] * np.exp(q)
    # Exponential Euler on the linear part, its exponential by a rational function.
    inhibition = state.fast_inhibition[i] + state.slow_inhibition[i]
    total = 1.0 + state.excitation[i] + inhibition
    target = (
        cells.rest_mv[i]
        + inhibition * cells.inhibition_mv[i]
        + upstroke
        - state.adaptation[i]
        + state.drive[i]
        + state.noise[i]
        + calcium
    ) / total
    y = 0.5 * dt * total / cells.membrane_ms[i]
    v = target + (v - target) * max(0.0, (1.0 - y) / (1.0 + y))
    if v < -95.0:
        v = -95.0
    if v > cells.threshold_mv[i] + 4.0 * cells.slope_mv[i] + 4.0:
        state.voltage[i] = cells.reset_mv[i]
        state.adaptation[i] += cells.per_spike[i]
        state.refractory_ms[i] = cells.refractory_ms[i]
        return True
    state.voltage[i] = v
    return False


@_compiled
def _send(i: int, step: int, dt: float, cells: Cells, synapses: Synapses, state: State) -> None:
    """Put a spike of cell i into the ring, as strong as the time since the last one leaves it (Tsodyks and Markram)."""
    since = (step - state.last_step[i]) * dt
    state.last_step[i] = step
    resources = 1.0 - (1.0 - state.resources[i]) * np.exp(-since / cells.depression_ms[i])
    rest = cells.facilitation[i]
    use = rest + (state.use[i] - rest) * np.exp(-since / cells.facilitation_ms[i])
    facilitated = use * (0.5 + 0.5 * resources)
    state.resources[i] = resources - cells.depression[i] * resources
    state.use[i] = use + rest * (1.0 - use)
    receptor = cells.receptor[i]
    for p in range(synapses.first[i], synapses.first[i + 1]):
        slot = (step + synapses.delay[p]) % state.ring.shape[0]
        strength = facilitated if synapses.facilitates[p] else resources
        state.ring[slot, receptor, synapses.target[p]] += synapses.weight[p] * strength


@_compiled
def run_steps(
    first_step: int,
    steps: int,
    dt: float,
    first_row: int,
    steps_per_row: int,
    cells: Cells,
    synapses: Synapses,
    drives: Drives,
    state: State,
    out_step: npt.NDArray[np.int64],
    out_cell: npt.NDArray[np.int32],
) -> int:
    """Advance the network by `steps` of `dt` ms and return the number of spikes, in `out_step` and `out_cell`.

    What does not fit into these is lost: a return value as large as they are means that they were too small.
    Row `first_row` of the drive channels holds for the first `steps_per_row` steps. `dt` is an argument, no constant,
    so that the compiler turns no division into a product.
    """
    decays = (
        np.exp(-dt / cells.excitation_ms),
        np.exp(-dt / cells.fast_inhibition_ms),
        np.exp(-dt / cells.slow_inhibition_ms),
    )
    noise_decay = np.exp(-2 * dt / cells.noise_ms)
    noise_kick = np.sqrt(1.0 - noise_decay * noise_decay) * cells.noise_mv
    background_decay = np.exp(-steps_per_row * dt / cells.background_ms)
    background_kick = np.sqrt(1.0 - background_decay * background_decay) * cells.background_mv
    spikes = 0
    for k in range(steps):
        step = first_step + k
        if k % steps_per_row == 0:
            row = drives.channels[first_row + k // steps_per_row]
            _renew_drive(row, drives, state, background_decay, background_kick)
        _receive(state.ring[step % state.ring.shape[0]], decays, state)
        if k % 2 == 0:  # fast noise every other step: its time constants are at least that long
            _renew_noise(state, noise_decay, noise_kick)
        for i in range(state.voltage.size):
            if not _integrate(i, dt, cells, state):
                continue
            if spikes < out_step.size:
                out_step[spikes] = step
                out_cell[spikes] = i
                spikes += 1
            _send(i, step, dt, cells, synapses, state)
    return spikes
