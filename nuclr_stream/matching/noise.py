"""The noise of a stream, measured at its start: how large on every channel, how alike on neighbours and over time.

Spikes are left out: whatever is beyond four standard deviations, and half a millisecond around it. Covariance is taken
as that over channels times that over time, which is what whitening in a small neighbourhood needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import toeplitz
from scipy.ndimage import maximum_filter1d

from nuclr_stream.errors import RecordingError
from nuclr_stream.matching.templates import Float32Array

OF_A_NORMAL = 1.4826
"""Standard deviation over median absolute deviation of a normal variable."""
QUIET = 4.0
AROUND_SAMPLES = 31
RIDGE = 0.02
EVERY = 4  # samples: covariance over channels is measured on every so many
CHANNELS_OF_TIME = 64  # at most: covariance over time is measured on so many


@dataclass(frozen=True, eq=False)
class Noise:
    """`sd` (C,) in units of the samples; `over_channels` (C, C) and `over_time` (S, S) are correlations, float64."""

    sd: Float32Array
    over_channels: npt.NDArray[np.float64]
    over_time: npt.NDArray[np.float64]


def measure_noise(trace: Float32Array, *, window_samples: int) -> Noise:
    """Measure the noise of a filtered `trace` (T, C), of windows of `window_samples`.

    Raises RecordingError when a whole trace is flat; a single flat channel gets the median of the others, and is
    correlated with none.
    """
    sd = (OF_A_NORMAL * np.median(np.abs(trace), axis=0)).astype(np.float32)
    alive = sd > 0
    if not alive.any():
        raise RecordingError(
            "no channel carries a signal: every sample is the same; check the headstage and the stream"
        )
    sd[~alive] = np.median(sd[alive])
    z = trace / sd
    quiet = maximum_filter1d(np.abs(z), AROUND_SAMPLES, axis=0) < QUIET
    quiet[:, ~alive] = False
    z[~quiet] = 0.0
    return Noise(sd, _over_channels(z[::EVERY], quiet[::EVERY]), _over_time(z, quiet, window_samples))


def _over_channels(z: Float32Array, quiet: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    seen = quiet.astype(np.float32)
    covariance = (z.T @ z).astype(np.float64) / np.maximum(seen.T @ seen, 1.0)
    np.fill_diagonal(covariance, np.where(np.diag(covariance) > 0, np.diag(covariance), 1.0))
    scale = np.sqrt(np.diag(covariance))
    correlation: npt.NDArray[np.float64] = covariance / np.outer(scale, scale)
    return correlation


def _over_time(z: Float32Array, quiet: npt.NDArray[np.bool_], samples: int) -> npt.NDArray[np.float64]:
    chosen = np.linspace(0, z.shape[1] - 1, min(z.shape[1], CHANNELS_OF_TIME)).astype(int)
    z, quiet = z[:, chosen], quiet[:, chosen]
    lags = np.zeros(samples)
    for lag in range(samples):
        both = quiet[lag:] & quiet[: len(quiet) - lag]
        lags[lag] = float(np.vdot(z[lag:], z[: len(z) - lag])) / max(int(both.sum()), 1)
    return np.asarray(toeplitz(lags / lags[0] if lags[0] > 0 else np.eye(1, samples)[0]), dtype=np.float64)
