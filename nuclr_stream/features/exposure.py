"""Exposure: for how long a unit has been observed, in windows, and how things that depend on it are interpolated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.unit_rows import Float64Array
from nuclr_stream.windows.binning import Float32Array


def exposure_windows(windows: npt.ArrayLike, *, hop_s: float, window_s: float) -> Float32Array:
    """Return how many non-overlapping windows (U,) the given steps are worth: 1 + (windows - 1) * hop / window.

    With hop >= window every step counts as one; 0 windows are 0 exposure. Less than one window, where part of its data
    is missing or was long ago, is worth just that.
    """
    steps = np.asarray(windows, dtype=np.float64)
    # Overlapping windows share data: ten windows at a hop of a tenth of a window are worth not ten, but 1.9.
    share = min(hop_s / window_s, 1.0)
    n: Float32Array = np.where(steps > 1, 1.0 + (steps - 1.0) * share, steps).astype(np.float32)
    return n


def knot_shares(exposure: npt.ArrayLike, knots: Sequence[float] | Float64Array) -> Float64Array:
    """Return the share (U, K) of each knot in what holds at exposure (U,): linear in log n, level beyond the ends."""
    # Doubling the exposure matters alike at any exposure, so between knots things change with its logarithm.
    at, log_knots = np.log(np.maximum(np.asarray(exposure, dtype=np.float64), 1.0)), np.log(np.asarray(knots))
    return np.stack([np.interp(at, log_knots, unit) for unit in np.eye(len(log_knots))], axis=-1)
