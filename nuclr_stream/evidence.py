"""Evidence: what the windows of a unit add up to, and what may be said from it.

The embedding of a unit is the plain mean over its window embeddings (NuCLR, Arora et al. 2025, evaluation protocol),
kept as float64 sums so that hours of windows add up the same in any order of magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nuclr_stream.binning import BoolArray, Float32Array, Int64Array

Float64Array = npt.NDArray[np.float64]


def evidence_n(windows: npt.ArrayLike, *, hop_s: float, window_s: float) -> Float32Array:
    """Return how many non-overlapping windows (U,) the given steps are worth: 1 + (windows - 1) * hop / window.

    With hop >= window every step counts as one; 0 windows are 0 evidence.
    """
    steps = np.asarray(windows, dtype=np.float64)
    share = min(hop_s / window_s, 1.0)
    n: Float32Array = np.where(steps > 0, 1.0 + (steps - 1.0) * share, 0.0).astype(np.float32)
    return n


class Evidence:
    """Running embedding sums of the units of one probe, by the unit index that the source gave."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._row: dict[int, int] = {}
        self._sums = np.zeros((0, dim), dtype=np.float64)
        self._windows = np.zeros(0, dtype=np.int64)
        self._last = np.zeros((0, dim), dtype=np.float32)

    def add(self, indices: Int64Array, embeddings: Float32Array) -> None:
        """Add one window's embeddings (U, D) of the units `indices` (U,), each of them at most once."""
        rows = self._rows(indices)
        self._sums[rows] += embeddings
        self._windows[rows] += 1
        self._last[rows] = embeddings

    def windows(self, indices: Int64Array) -> Int64Array:
        """Return in how many windows each unit (U,) has been embedded."""
        return np.append(self._windows, 0)[self._known_rows(indices)]

    def mean(self, indices: Int64Array) -> Float32Array:
        """Return the mean embedding (U, D) of each unit; zeros for a unit without a window."""
        sums = np.vstack([self._sums, np.zeros((1, self.dim))])[self._known_rows(indices)]
        means: Float32Array = (sums / np.maximum(self.windows(indices), 1)[:, None]).astype(np.float32)
        return means

    def last(self, indices: Int64Array) -> Float32Array:
        """Return the embedding (U, D) of the last window in which each unit was embedded; zeros before it."""
        return np.vstack([self._last, np.zeros((1, self.dim), dtype=np.float32)])[self._known_rows(indices)]

    def merge(self, source: int, target: int) -> None:
        """Add what unit `source` has gathered to unit `target` and forget `source`."""
        row = self._row.get(source)
        if row is None:
            return
        (into,) = self._rows(np.array([target]))
        if not self._windows[into]:
            self._last[into] = self._last[row]
        self._sums[into] += self._sums[row]
        self._windows[into] += self._windows[row]
        self.forget(source)

    def forget(self, index: int) -> None:
        """Drop what a unit has gathered; an index without evidence is no error."""
        row = self._row.pop(index, None)
        if row is None:
            return
        last = len(self._windows) - 1
        if row != last:  # the last row moves into the hole: memory stays that of the living units
            moved = next(i for i, r in self._row.items() if r == last)
            self._row[moved] = row
            for column in (self._sums, self._windows, self._last):
                column[row] = column[last]
        self._sums, self._windows, self._last = self._sums[:last], self._windows[:last], self._last[:last]

    def reindex(self, index_of: dict[int, int]) -> None:
        """Keep only the units named in `index_of` (old index -> new index), under their new indices."""
        for index in [i for i in self._row if i not in index_of]:
            self.forget(index)
        self._row = {index_of[i]: row for i, row in self._row.items()}

    def _known_rows(self, indices: Int64Array) -> Int64Array:
        """Return the row of every index; -1, the row of zeros that readers append, where there is none."""
        return np.array([self._row.get(i, -1) for i in indices.tolist()], dtype=np.int64)

    def _rows(self, indices: npt.NDArray[np.integer]) -> Int64Array:
        new = [int(i) for i in indices if int(i) not in self._row]
        if new:
            self._row |= {index: len(self._windows) + k for k, index in enumerate(new)}
            self._sums = np.vstack([self._sums, np.zeros((len(new), self.dim))])
            self._windows = np.append(self._windows, np.zeros(len(new), dtype=np.int64))
            self._last = np.vstack([self._last, np.zeros((len(new), self.dim), dtype=np.float32)])
        return np.array([self._row[int(i)] for i in indices], dtype=np.int64)


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities that may be believed, per task.

    `temperature` is known at the evidences `n` (both ascending in n) and interpolated linearly in log n between them.
    A top-1 probability below `abstain_below` is not called a class; at 1 none is, however near it rounds.
    """

    n: tuple[float, ...] = (1.0,)
    temperature: tuple[float, ...] = (1.0,)
    abstain_below: float = 0.0

    def probabilities(self, logits: Float32Array, evidence: Float32Array) -> Float32Array:
        """Return softmax(logits / T(n)) (U, C) for logits (U, C) and evidence n (U,)."""
        at = np.log(np.maximum(evidence, 1.0))
        temperature = np.interp(at, np.log(self.n), self.temperature)
        scaled = logits.astype(np.float64) / temperature[:, None]
        weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities: Float32Array = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        return probabilities

    def abstains(self, probabilities: Float32Array, evidence: Float32Array) -> BoolArray:
        """Return which units (U,) have too little behind their top class: no window yet, or too low a probability."""
        too_low = (probabilities.max(axis=1) < self.abstain_below) | (self.abstain_below >= 1)
        abstained: BoolArray = (evidence <= 0) | too_low
        return abstained
