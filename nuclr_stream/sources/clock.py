"""How a device's clock runs against the host's: for reports only. Bins are cut on device samples, never on this."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

EVERY_S = 1.0
"""Of each so many seconds one point is kept: the one that was held up least on its way."""
MAX_POINTS = 3_600
MIN_S = 10.0
"""No drift is estimated from less."""


class DeviceClock:
    """Compares a device clock of `sample_rate` with the host's monotonic one.

    What is held up on its way comes late, never early, so of each second the point counts that lies furthest ahead, and
    the drift is the slope of a line through those.
    """

    def __init__(self, sample_rate: Fraction) -> None:
        self._rate_hz = float(sample_rate)
        self._points: list[tuple[float, float]] = []  # host time, and how far the device's clock is behind it

    def note(self, sample: int, host_s: float) -> None:
        """Take that everything before `sample` was there at host time `host_s`."""
        point = host_s, host_s - sample / self._rate_hz
        if self._points and int(host_s / EVERY_S) == int(self._points[-1][0] / EVERY_S):
            self._points[-1] = min(self._points[-1], point, key=lambda one: one[1])
        else:
            self._points.append(point)
            del self._points[:-MAX_POINTS]

    @property
    def drift_ppm(self) -> float:
        """How much faster than its nominal rate the device's clock runs by the host's, in millionths; NaN unknown."""
        if not self._points or self._points[-1][0] - self._points[0][0] < MIN_S:
            return float("nan")
        host_s, behind_s = np.array(self._points).T
        return float(-1e6 * np.polyfit(host_s - host_s[0], behind_s, 1)[0])

    def report(self) -> dict[str, Any]:
        """Return the estimate and from how long it is, None for what is not known."""
        drift = self.drift_ppm
        span_s = self._points[-1][0] - self._points[0][0] if self._points else 0.0
        return {"drift_ppm": round(drift, 1) if np.isfinite(drift) else None, "over_s": round(span_s, 1)}
