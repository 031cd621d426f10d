"""Columns of numbers kept per unit while units come, merge and go: memory stays that of the living units."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.windows.binning import Int64Array

Float64Array = npt.NDArray[np.float64]


class UnitRows:
    """One row of `width` float64 sums per unit, by the unit index that the source gave; new ones begin with zeros."""

    def __init__(self, width: int) -> None:
        self._row: dict[int, int] = {}
        self._sums: Float64Array = np.zeros((0, width), dtype=np.float64)

    def __contains__(self, index: int) -> bool:
        return index in self._row

    def add(self, indices: Int64Array, values: npt.NDArray[np.floating]) -> None:
        """Add values (U, width) to the rows of `indices` (U,), each of them at most once."""
        rows = self._rows(indices)  # first: it may replace the array
        self._sums[rows] += values

    def put(self, indices: Int64Array, values: npt.NDArray[np.floating]) -> None:
        """Write values (U, width) in the place of what the rows of `indices` (U,) hold."""
        rows = self._rows(indices)
        self._sums[rows] = values

    def read(self, indices: Int64Array) -> Float64Array:
        """Return the rows (U, width) of `indices` (U,); zeros for a unit that has none."""
        # Row -1 is the row of zeros behind the last: units without a row read it.
        known = np.array([self._row.get(i, -1) for i in indices.tolist()], dtype=np.int64)
        return np.vstack([self._sums, np.zeros((1, self._sums.shape[1]))])[known]

    def scale(self, factor: float) -> None:
        """Multiply everything by one factor."""
        self._sums *= factor

    def merge(self, source: int, target: int) -> None:
        """Add the row of unit `source` to that of `target` and forget `source`."""
        if source in self._row:
            one = np.array([target])
            self.add(one, self.read(np.array([source])))
            self.forget({source})

    def forget(self, indices: Collection[int]) -> None:
        """Drop the rows of units, all in one pass; an index without a row is no error."""
        kept = {index: row for index, row in self._row.items() if index not in indices}
        if len(kept) < len(self._row):
            # The rows are packed anew, or memory would grow with every unit that ever was.
            self._sums = self._sums[list(kept.values())]
            self._row = {index: row for row, index in enumerate(kept)}

    def reindex(self, index_of: Mapping[int, int]) -> None:
        """Keep only the units named in `index_of` (old index -> new index), under their new indices."""
        self.forget(self._row.keys() - index_of.keys())
        self._row = {index_of[i]: row for i, row in self._row.items()}

    def dump(self) -> dict[str, Any]:
        """Return what `load` takes: a copy, for the sums go on changing."""
        return {"index": sorted(self._row, key=self._row.__getitem__), "sums": self._sums.copy()}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        self._row = {index: row for row, index in enumerate(saved["index"])}
        self._sums = saved["sums"]

    def _rows(self, indices: Int64Array) -> Int64Array:
        new = [i for i in indices.tolist() if i not in self._row]
        if new:
            self._row |= {index: len(self._sums) + k for k, index in enumerate(new)}
            self._sums = np.vstack([self._sums, np.zeros((len(new), self._sums.shape[1]))])
        return np.array([self._row[i] for i in indices.tolist()], dtype=np.int64)
