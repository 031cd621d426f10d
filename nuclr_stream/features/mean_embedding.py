"""Running mean embeddings: what the windows of a unit add up to.

The embedding of a unit is the plain mean over its window embeddings (NuCLR, Arora et al. 2025, evaluation protocol),
kept as float64 sums so that hours of windows add up the same in any order of magnitude.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from nuclr_stream.features.unit_rows import Float64Array, UnitRows
from nuclr_stream.windows.binning import Float32Array, Int64Array


class MeanEmbedding:
    """Running embedding sums of the units of one probe, by the unit index that the source gave.

    A window weighs 1, or less where part of its data is missing. `half_life_windows`, if given, lets what was gathered
    fade by half over so many windows of the probe, for units that drift.
    """

    def __init__(self, dim: int, *, half_life_windows: float | None = None) -> None:
        self.dim = dim
        self._keep = 1.0 if half_life_windows is None else 0.5 ** (1 / half_life_windows)
        self._sums = UnitRows(dim + 2)  # weighted embeddings, weight, windows
        self._last = UnitRows(dim)

    def add(self, indices: Int64Array, embeddings: Float32Array, *, weight: float = 1.0) -> None:
        """Add one window's embeddings (U, D) of the units `indices` (U,), each of them at most once."""
        # All units fade with every window of the probe, also those that were silent in it: it is time that makes units
        # drift.
        if self._keep < 1:
            self._sums.scale(self._keep)
        ones = np.ones((len(embeddings), 1))
        self._sums.add(indices, np.hstack([embeddings * np.float64(weight), ones * weight, ones]))
        self._last.put(indices, embeddings)

    def windows(self, indices: Int64Array) -> Int64Array:
        """Return in how many windows each unit (U,) has been embedded; faded ones count for what is left of them."""
        # Rounded up: a unit of which anything is left was embedded.
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

    def last(self, indices: Int64Array) -> Float32Array:
        """Return the embedding (U, D) of the last window in which each unit was embedded; zeros before it."""
        return self._last.read(indices).astype(np.float32)

    def merge(self, source: int, target: int) -> None:
        """Add what unit `source` has gathered to unit `target` and forget `source`."""
        self._sums.merge(source, target)
        # The last embedding is the target's own; only a target that was never embedded takes over the source's.
        if target in self._last:
            self._last.forget({source})
        else:
            self._last.merge(source, target)

    def forget(self, indices: Collection[int]) -> None:
        """Drop what units have gathered; an index without exposure is no error."""
        self._sums.forget(indices)
        self._last.forget(indices)

    def reindex(self, index_of: Mapping[int, int]) -> None:
        """Keep only the units named in `index_of` (old index -> new index), under their new indices."""
        self._sums.reindex(index_of)
        self._last.reindex(index_of)

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything, for `load`."""
        return {"sums": self._sums.dump(), "last": self._last.dump()}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        self._sums.load(saved["sums"])
        self._last.load(saved["last"])


def _some(weight: Float64Array) -> Float64Array:
    return np.where(weight > 0, weight, 1.0)
