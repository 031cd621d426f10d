"""What traces are divided by before the encoder sees them. One definition, live and offline.

The published method divides by one number per recording, a quantile over all units and frames: it knows the future.
Here a window is divided by the quantile over everything that was observed up to its end. Values are counted by the
leading bits of their float32 pattern, so memory is fixed, the order and the chunks in which values come do not matter,
and the result lies within 1/128 of its size of the exact quantile of the same values, or within 1e-40 of it where that
is below the smallest normal float32 (1.2e-38), whose numbers are evenly spaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_BIN_BITS = 16  # of 32: eight of the exponent and seven of the mantissa remain beside the sign
_BINS = 1 << (31 - _BIN_BITS)


@dataclass(frozen=True)
class Normalisation:
    """How traces are normalised: by the running `quantile`, once `warm_up_frames` frames have been observed.

    `trained_with` says what the encoder's training divided by: the quantile of the whole recording ("offline", as
    published) or the running one at the end of each view. Windows are always cut with the running one.
    """

    quantile: float = 0.99
    warm_up_frames: int = 0
    trained_with: Literal["offline", "running"] = "offline"

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1 or self.warm_up_frames < 0:
            raise ValueError(f"quantile must be within 0 and 1 and warm_up_frames not negative, got {self}")


class RunningQuantile:
    """The quantile of all values added so far, in 256 KiB, however many they are and in whatever order they come."""

    def __init__(self) -> None:
        self._above_zero = np.zeros(_BINS, dtype=np.int64)
        self.values = 0

    def add(self, values: Float32Array) -> None:
        """Count finite float32 values of any shape."""
        # Positive floats sort like their bit patterns, so the leading bits are a histogram with bins of equal relative
        # width. Values of 0 and less need no bins: a quantile among them is no scale to divide by.
        patterns = values[values > 0].astype(np.float32).view(np.uint32)
        self._above_zero += np.bincount(patterns >> _BIN_BITS, minlength=_BINS)
        self.values += values.size

    def at(self, quantile: float) -> float:
        """Return the quantile, linear between ranks like numpy's; 0.0 before any value or where it is not above 0."""
        cumulative = np.cumsum(self._above_zero)
        # The rank among all values, less those of 0 and below, which come first and are in no bin.
        rank = quantile * (self.values - 1) - (self.values - int(cumulative[-1]))
        if not self.values or rank < 0:
            return 0.0
        place = int(np.searchsorted(cumulative, rank, side="right"))
        inside = int(self._above_zero[place])
        low, high = np.array([place << _BIN_BITS, (place + 1) << _BIN_BITS], dtype=np.uint32).view(np.float32).tolist()
        share = (rank - (int(cumulative[place]) - inside) + 0.5) / inside
        return float(low + min(share, 1.0) * (high - low))

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything, for `load`."""
        return {"above_zero": self._above_zero.copy(), "values": self.values}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        self._above_zero, self.values = saved["above_zero"], saved["values"]


class RunningNormaliser:
    """Normalises the windows of one stream or recording, given one after the other in the order of their ends."""

    def __init__(self, settings: Normalisation) -> None:
        self.settings = settings
        self.frames = 0
        self._running = RunningQuantile()
        self._end: int | None = None

    def normalise(self, window: Float32Array, observed: BoolArray, *, end_bin: int) -> tuple[Float32Array, str]:
        """Take in what no window before held; return the window (U, T) divided, and why it is not to be embedded or "".

        `observed` (T,) or (U, T) says which values are real: what was missing or masked does not count.
        """
        bins = window.shape[1]
        # Windows overlap: a frame counts in the first window that holds it, and never again.
        new = bins if self._end is None else min(bins, end_bin - self._end)
        self._end = end_bin
        real = np.broadcast_to(observed, window.shape)[:, bins - new :]
        self._running.add(window[:, bins - new :][real])
        self.frames += int(real.any(axis=0).sum())
        scale = self._running.at(self.settings.quantile)
        if scale <= 0 or self.frames < self.settings.warm_up_frames:
            return window, "normaliser"
        return window / np.float32(scale), ""

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything but the settings, for `load`."""
        return {"frames": self.frames, "running": self._running.dump(), "end": self._end}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        self.frames, self._end = saved["frames"], saved["end"]
        self._running.load(saved["running"])


def running_scales(traces: Float32Array, observed: BoolArray, quantile: float) -> Float32Array:
    """Return the running quantile after every frame, (T + 1,): entry k has seen frames [0, k) of `traces` (U, T).

    `observed` (T,) says which frames count.
    """
    running = RunningQuantile()
    scales = np.zeros(traces.shape[1] + 1, dtype=np.float32)
    for frame in range(traces.shape[1]):
        if observed[frame]:
            running.add(traces[:, frame])
        scales[frame + 1] = running.at(quantile)
    return scales
