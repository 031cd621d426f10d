"""Rolling counts: the last bins of every unit of a probe, in one block that slides along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.windows.binning import Float32Array, Int64Array, count_into


class RollingCounts:
    """Counts of U units over bins that only move forward; writing and reading take absolute bin numbers.

    `reserve` slides the block (it copies what is kept, seldom) and widens it when a stretch does not fit.
    """

    def __init__(self, width: int) -> None:
        self._base = 0
        self._counts = np.zeros((0, width), dtype=np.float32)

    def reserve(self, oldest: int, stop: int) -> None:
        """Make room for bins [oldest, stop); bins before `oldest` may be dropped, bins never written are zero."""
        width = self._counts.shape[1]
        if self._base <= oldest and stop - self._base <= width:
            return
        # A message from far ahead needs more than the block holds. Twice that, so that the next one does not copy
        # again.
        needed = stop - oldest
        kept = np.zeros((len(self._counts), width if needed <= width else 2 * needed), dtype=np.float32)
        a, b = max(oldest, self._base), min(self._base + width, oldest + kept.shape[1])
        if a < b:
            kept[:, a - oldest : b - oldest] = self._counts[:, a - self._base : b - self._base]
        self._counts, self._base = kept, oldest

    def add_spikes(self, rows: Int64Array, bins: Int64Array) -> None:
        """Count one spike at every (row, bin); the bins must have been reserved."""
        count_into(self._counts, rows, bins - self._base)

    def set_frames(self, rows: Int64Array, bins: Int64Array, values: Float32Array) -> None:
        """Write values (R, F) of the given rows (R,) at `bins` (F,), which must have been reserved."""
        self._counts[np.ix_(rows, bins - self._base)] = values

    def read(self, first: int, stop: int) -> Float32Array:
        """Return a view (U, stop - first) of reserved bins."""
        return self._counts[:, first - self._base : stop - self._base]

    def dump(self, oldest: int) -> dict[str, Any]:
        """Return a copy of bins from `oldest` on, for `load`: nothing before it is needed any more."""
        first = min(max(oldest - self._base, 0), self._counts.shape[1])
        kept = self._counts[:, first:]
        written = np.flatnonzero(kept.any(axis=0))
        stop = int(written[-1]) + 1 if len(written) else 0
        return {"base": self._base + first, "width": self._counts.shape[1], "counts": kept[:, :stop].copy()}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        counts = saved["counts"]
        self._base = saved["base"]
        self._counts = np.zeros((len(counts), saved["width"]), dtype=np.float32)
        self._counts[:, : counts.shape[1]] = counts

    def rearrange(
        self, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64], merges: Iterable[tuple[int, int]]
    ) -> None:
        """Give the units of index array `after` their rows, from those of `before`; (source, target) merges add up."""
        old = dict(zip(before.tolist(), self._counts, strict=True))
        # Before rows are given out: the source has none any more, and its spikes belong to the target from now on.
        for source, target in merges:
            if source in old:
                old[target] = old[source] + old[target] if target in old else old[source]
        self._counts = np.zeros((len(after), self._counts.shape[1]), dtype=np.float32)
        for row, index in enumerate(after.tolist()):
            if index in old:
                self._counts[row] = old[index]
