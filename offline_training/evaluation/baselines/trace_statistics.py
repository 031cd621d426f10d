"""Statistics of a single trace: level, spread, shape and autocorrelation of one cell, over any stretch of a recording.

The floor for encoders of traces, as rate and ISI histogram are for encoders of spikes.
Shapes: K steps, U units, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.accumulator import FeatureSnapshot
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.windows.binning import WindowSpec
from offline_training.evaluation.baselines.one_set import snapshot_of

LAGS = (1, 2, 4, 8, 16)
"""Frames apart at which a trace is correlated with itself."""
PERCENTILES = (5, 50, 95, 99)


@dataclass(frozen=True)
class TraceStatistics:
    """Statistics of one recording in steps of one window."""

    recording: TraceRecording
    spec: WindowSpec
    steps_per_window: int = 1
    name: str = "trace_statistics"

    @property
    def recording_id(self) -> str:
        """The recording."""
        return self.recording.recording_id

    @property
    def subject_id(self) -> str:
        """The animal."""
        return self.recording.subject_id

    @property
    def end_s(self) -> npt.NDArray[np.float64]:
        """When each step (K,) is over, in seconds from frame 0."""
        return np.arange(1.0, self.recording.num_samples // self.spec.bins + 1) * np.float64(self.spec.window_s)

    def snapshot(self, first: int, last: int) -> FeatureSnapshot:
        """Features (U, F) from steps [first, last): mean, log spread, skewness, percentiles, autocorrelation; the
        exposure is how many steps that are."""
        values = self.recording.traces[:, first * self.spec.bins : last * self.spec.bins].astype(np.float64)
        mean, spread = values.mean(axis=1, keepdims=True), values.std(axis=1, keepdims=True) + 1e-9
        standard = (values - mean) / spread
        features = [mean, np.log(spread), (standard**3).mean(axis=1, keepdims=True)]
        features += [np.percentile(values, PERCENTILES, axis=1).T]
        features += [_autocorrelation(standard, lag) for lag in LAGS]
        exposure = np.full(len(values), last - first, dtype=np.float32)
        return snapshot_of(self.name, np.hstack(features).astype(np.float32), exposure)


def _autocorrelation(standard: npt.NDArray[np.float64], lag: int) -> npt.NDArray[np.float64]:
    """Correlation (U, 1) of standardised traces with themselves; 0 where the stretch is not longer than the lag."""
    products = standard[:, lag:] * standard[:, :-lag]
    return products.mean(axis=1, keepdims=True) if products.size else np.zeros((len(standard), 1))
