"""Window: what crosses from the side of the data to the side of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from nuclr_stream.features.isi import Int32Array
from nuclr_stream.stream.units import Operation
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array


@dataclass(frozen=True, kw_only=True)
class Window:
    """One window on its way to the encoder. Nothing in it is shared: it may cross to another thread.

    counts (U, T) float32 of all units of the probe, by ascending `unit_index` (U,); `eligible` (U,) units exist for the
    whole window; `active` (U,) are the eligible ones that enter the encoder; `intervals` (U, 17) are those that ended
    since the window before, see `isi`, and `coupling` (U, 54) what was counted of millisecond
    lags since then, see `coupling`. `exclusion` says why it is not embedded
    (empty when it is). `operations` are the changes of the unit table since the window before, in order; `closed_ns` is
    the host's monotonic time when it was cut, as the caller gave it. `observed` (T,) are the bins with data throughout.
    `checkpoint`, if asked for, is the state of the population right after the cut: together with what the model's side
    knows after this window it is a whole.
    """

    stream: str
    epoch: int
    step: int
    end_bin: int
    end_sample: int
    sample_rate: Fraction
    origin: int
    closed_ns: int
    unit_index: Int64Array
    unit_ids: tuple[str, ...]
    counts: Float32Array
    eligible: BoolArray
    active: BoolArray
    intervals: Int32Array
    coupling: Int64Array
    missing: float
    exclusion: str
    operations: tuple[Operation, ...]
    observed: BoolArray
    skipped_steps: int = 0
    checkpoint: Mapping[str, Any] | None = None

    def superseding(self, older: Window) -> Window:
        """Return this window in the place of an older one never labelled; what changed and ended in that is in it."""
        operations = older.operations + self.operations
        if older.epoch != self.epoch:
            return replace(self, operations=operations)
        intervals, coupling = self.intervals.copy(), self.coupling.copy()
        if not older.exclusion:
            now = older.unit_index
            for operation in self.operations:
                if operation.kind == "merge":
                    now = np.where(now == operation.source, operation.target, now)
            here = np.isin(now, self.unit_index)
            rows = np.searchsorted(self.unit_index, now[here])
            np.add.at(intervals, rows, older.intervals[here])
            np.add.at(coupling, rows, older.coupling[here])
        skipped = self.skipped_steps + older.skipped_steps + 1
        return replace(self, operations=operations, intervals=intervals, coupling=coupling, skipped_steps=skipped)
