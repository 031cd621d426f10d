"""Running mean embeddings: what the windows of a unit add up to.

The embedding of a unit is the plain mean over its window embeddings (NuCLR, Arora et al. 2025, evaluation protocol),
kept as float64 sums so that hours of windows add up the same in any order of magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.unit_rows import Float64Array, UnitRows
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array

KNOTS = (1.0, 3.0, 6.0, 15.0, 30.0, 60.0)
"""Evidences at which what hangs on exposure is fitted; between them it is interpolated linearly in log n."""


def between_knots(n: npt.ArrayLike, knots: Sequence[float] | Float64Array) -> Float64Array:
    """Return the share (U, K) of each knot in what holds at exposure n (U,); beyond the ends, of the knot there."""
    at, log_knots = np.log(np.maximum(np.asarray(n, dtype=np.float64), 1.0)), np.log(np.asarray(knots))
    return np.stack([np.interp(at, log_knots, unit) for unit in np.eye(len(log_knots))], axis=-1)


def exposure_windows(windows: npt.ArrayLike, *, hop_s: float, window_s: float) -> Float32Array:
    """Return how many non-overlapping windows (U,) the given steps are worth: 1 + (windows - 1) * hop / window.

    With hop >= window every step counts as one; 0 windows are 0 exposure. Less than one window, where part of its data
    is missing or was long ago, is worth just that.
    """
    steps = np.asarray(windows, dtype=np.float64)
    share = min(hop_s / window_s, 1.0)
    n: Float32Array = np.where(steps > 1, 1.0 + (steps - 1.0) * share, steps).astype(np.float32)
    return n


class MeanEmbedding:
    """Running embedding sums of the units of one probe, by the unit index that the source gave.

    A window weighs 1, or less where part of its data is missing. `half_life_windows`, if given, lets what was gathered
    fade by half over so many windows of the probe, for units that drift.
    """

    def __init__(self, dim: int, *, half_life_windows: float | None = None) -> None:
        self.dim = dim
        self._keep = 1.0 if half_life_windows is None else 0.5 ** (1 / half_life_windows)
        self._sums = UnitRows(dim + 3)  # weighted embeddings, weighted squares, weight, windows
        self._last = UnitRows(dim)

    def add(self, indices: Int64Array, embeddings: Float32Array, *, weight: float = 1.0) -> None:
        """Add one window's embeddings (U, D) of the units `indices` (U,), each of them at most once."""
        if self._keep < 1:
            self._sums.scale(self._keep)
        squares = np.square(embeddings, dtype=np.float64).sum(axis=1, keepdims=True)
        ones = np.ones((len(embeddings), 1))
        self._sums.add(indices, np.hstack([embeddings * np.float64(weight), squares * weight, ones * weight, ones]))
        self._last.put(indices, embeddings)

    def windows(self, indices: Int64Array) -> Int64Array:
        """Return in how many windows each unit (U,) has been embedded; faded ones count for what is left of them."""
        windows: Int64Array = np.ceil(self._sums.read(indices)[:, -1]).astype(np.int64)
        return windows

    def weight(self, indices: Int64Array) -> Float64Array:
        """Return the weight (U,) of all windows of each unit: their number where nothing was missing or has faded."""
        return self._sums.read(indices)[:, -2]

    def mean(self, indices: Int64Array) -> Float32Array:
        """Return the mean embedding (U, D) of each unit; zeros for a unit without a window."""
        sums = self._sums.read(indices)
        means: Float32Array = (sums[:, : self.dim] / _some(sums[:, -2:-1])).astype(np.float32)
        return means

    def scatter(self, indices: Int64Array) -> Float64Array:
        """Return the variance (U,) of the window embeddings of each unit around their mean, summed over D.

        0 where there are not two windows.
        """
        sums = self._sums.read(indices)
        weight = _some(sums[:, -2])
        spread = sums[:, self.dim] / weight - np.square(sums[:, : self.dim] / weight[:, None]).sum(axis=1)
        scatter: Float64Array = np.where(
            sums[:, -2] > 1, np.maximum(spread, 0) * weight / np.maximum(weight - 1, 1e-9), 0
        )
        return scatter

    def last(self, indices: Int64Array) -> Float32Array:
        """Return the embedding (U, D) of the last window in which each unit was embedded; zeros before it."""
        return self._last.read(indices).astype(np.float32)

    def merge(self, source: int, target: int) -> None:
        """Add what unit `source` has gathered to unit `target` and forget `source`."""
        self._sums.merge(source, target)
        if target in self._last:
            self._last.forget(source)
        else:
            self._last.merge(source, target)

    def forget(self, index: int) -> None:
        """Drop what a unit has gathered; an index without exposure is no error."""
        self._sums.forget(index)
        self._last.forget(index)

    def reindex(self, index_of: Mapping[int, int]) -> None:
        """Keep only the units named in `index_of` (old index -> new index), under their new indices."""
        self._sums.reindex(index_of)
        self._last.reindex(index_of)


def effective_sample_size(n: Float32Array, scatter: Float64Array, typical_scatter: float | None) -> Float32Array:
    """Return the exposure (U,) that counts, where windows of one quiet state say less than windows of varied states.

    Every window beyond the first counts in proportion to how far the unit's windows scatter, compared with what is
    `typical_scatter` of a whole recording in training; n (U,) as it is where the bundle does not say.
    """
    if typical_scatter is None:
        return n
    varied = np.minimum(scatter / typical_scatter, 1.0)
    effective: Float32Array = np.where(n > 1, 1 + (n - 1) * varied, n).astype(np.float32)
    return effective


def _some(weight: Float64Array) -> Float64Array:
    return np.where(weight > 0, weight, 1.0)


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities that may be believed, per task.

    `temperature` is known at the exposures `n` (both ascending in n) and interpolated linearly in log n between them.
    A top-1 probability below `abstain_below` is not called a class; at 1 none is, however near it rounds.
    """

    n: tuple[float, ...] = (1.0,)
    temperature: tuple[float, ...] = (1.0,)
    abstain_below: float = 0.0

    def probabilities(self, logits: Float32Array, exposure: Float32Array) -> Float32Array:
        """Return softmax(logits / T(n)) (U, C) for logits (U, C) and exposure n (U,)."""
        at = np.log(np.maximum(exposure, 1.0))
        temperature = np.interp(at, np.log(self.n), self.temperature)
        scaled = logits.astype(np.float64) / temperature[:, None]
        weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities: Float32Array = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        return probabilities

    def abstains(self, probabilities: Float32Array, exposure: Float32Array) -> BoolArray:
        """Return which units (U,) have too little behind their top class: no window yet, or too low a probability."""
        too_low = (probabilities.max(axis=1) < self.abstain_below) | (self.abstain_below >= 1)
        abstained: BoolArray = (exposure <= 0) | too_low
        return abstained
