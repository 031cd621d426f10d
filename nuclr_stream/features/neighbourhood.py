"""A unit's co-active neighbours, the units whose activity is most correlated with its own, and its whole population.

Units that fire together tend to lie in one region, so the features of a unit's neighbours carry its region, without any
depth. Correlations are those of the activity per patch (1 s), kept as running sums over the time that both units of a
pair existed: a step costs O(U^2) additions, and nothing grows with the length of the recording.
Shapes: U units, F features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.unit_rows import Float64Array
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array

NEIGHBOURS = 10
NEIGHBOURHOOD_PARTS = 4
"""Own, nearest, population mean, population spread."""
_KINDS = np.arange(4)
"""Sums per pair: patches that both existed in, and over those the activity of the first, its square, the product."""


class Coactivity:
    """Running correlations between the units of one probe, by unit index."""

    def __init__(self) -> None:
        self._index: Int64Array = np.zeros(0, dtype=np.int64)
        self._sums: Float64Array = np.zeros((4, 0, 0))

    def add(self, index: Int64Array, activity: npt.NDArray[np.floating]) -> None:
        """Add what the units `index` (U,), ascending, did in each patch: activity (U, P)."""
        # A unit that comes later has rows of its own from then on; what is known of the others stays.
        self._make_room(index)
        x = activity.astype(np.float64)
        # what does not depend on the other unit is added to the whole of a row
        parts = (float(x.shape[1]), x.sum(axis=1)[:, None], np.square(x).sum(axis=1)[:, None], x @ x.T)
        if len(index) == len(self._index):
            for sums, part in zip(self._sums, parts, strict=True):
                sums += part
        else:
            rows = np.ix_(*[np.searchsorted(self._index, index)] * 2)
            for sums, part in zip(self._sums, parts, strict=True):
                sums[rows] += part

    def correlation(self, index: Int64Array) -> Float64Array:
        """Return Pearson correlations (U, U) between the units `index` (U,), ascending; 0 where nothing is known."""
        self._make_room(index)
        sums = self._sums
        if len(index) < len(self._index):
            rows = np.searchsorted(self._index, index)
            sums = sums[np.ix_(_KINDS, rows, rows)]
        common, own, squares, products = sums
        if common.size and common.min() == common.max():  # all were there all the time: rows of one number
            common, own, squares = common[:1, :1], own[:, :1], squares[:, :1]
        per_patch = 1 / np.maximum(common, 1)
        variance = squares - np.square(own) * per_patch
        # where a unit hardly varies, what is left of its variance is rounding
        variance[variance <= 1e-12 * squares] = np.inf
        correlation: Float64Array = (products - own * own.T * per_patch) / np.sqrt(variance * variance.T)
        return correlation

    def forget(self, indices: Collection[int]) -> None:
        """Drop units, all in one pass over the (4, U, U) sums; an index that is not there is no error."""
        self._keep(~np.isin(self._index, list(indices)))

    def reindex(self, index_of: Mapping[int, int]) -> None:
        """Keep only the units named in `index_of` (old index -> new index), under their new indices."""
        self._keep(np.isin(self._index, list(index_of)))
        renamed = np.array([index_of[i] for i in self._index.tolist()], dtype=np.int64)
        order = np.argsort(renamed)
        self._index = renamed[order]
        self._sums = self._sums[:, order][:, :, order]

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything, for `load`: four (U, U) sums, 32 MB for 1,000 units."""
        return {"index": self._index, "sums": [sums.copy() for sums in self._sums]}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        self._index = saved["index"]
        self._sums = np.stack(saved["sums"])

    def _keep(self, kept: BoolArray) -> None:
        if not kept.all():
            self._index = self._index[kept]
            self._sums = self._sums[:, kept][:, :, kept]

    def _make_room(self, index: Int64Array) -> None:
        everyone = np.union1d(self._index, index)
        if len(everyone) > len(self._index):
            rows = np.searchsorted(everyone, self._index)
            wider = np.zeros((4, len(everyone), len(everyone)))
            wider[np.ix_(_KINDS, rows, rows)] = self._sums
            self._index, self._sums = everyone, wider


def nearest_units(correlation: Float64Array) -> Int64Array:
    """Return the rows of the up to NEIGHBOURS most correlated other units of each unit (U, N), in no order."""
    units = len(correlation)
    near = min(NEIGHBOURS, units - 1)
    if near < 1:
        return np.zeros((units, 0), dtype=np.int64)
    # argpartition, not a sort: which ten they are matters, their order does not (their mean is taken).
    distance = -correlation
    np.fill_diagonal(distance, np.inf)
    nearest: Int64Array = np.argpartition(distance, near - 1, axis=1)[:, :near]
    return nearest


def with_neighbourhood(features: Float32Array, nearest: Int64Array) -> Float32Array:
    """Return [own, mean of the most correlated others, population mean, population spread] (U, 4 F).

    `features` (U, F) and `nearest` (U, N), see `nearest_units`, are of the units that have any exposure. The spread is
    the standard deviation over the population. A unit without others is its own neighbour.
    """
    values = features.astype(np.float64)
    # A unit without others stands for its own neighbours: zeros there would read as neighbours that never fire.
    around = values
    if len(nearest) and nearest.shape[1]:
        around = sum(values[column] for column in nearest.T) / nearest.shape[1]
    population = [np.broadcast_to(part, values.shape) for part in (values.mean(axis=0), values.std(axis=0))]
    joined: Float32Array = np.hstack([values, around, *population]).astype(np.float32)
    return joined
