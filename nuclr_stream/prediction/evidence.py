"""What a task's predictions rest on: the prediction of every feature set, its weight in the pool, the thresholds.

It explains an answer and changes nothing about it. Shapes: U units, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nuclr_stream.features.accumulator import FeatureSet, FeatureSnapshot
from nuclr_stream.prediction.answer import Answer
from nuclr_stream.prediction.pool import LogLinearPool, log_softmax
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array


@dataclass(frozen=True)
class Evidence:
    """What one task's answer about some units (U,) was made from.

    `logits` (U, C) and `has` (U,) by feature set; `pool` (U,) is the place in `pools` of the one that answered, -1
    where none could; `exposure` and `observed` (U,) as in FeatureSnapshot. `abstain_below` is the threshold in the
    place of the pools' own, None for theirs.
    """

    pools: tuple[LogLinearPool, ...]
    logits: Mapping[FeatureSet, Float32Array]
    has: Mapping[FeatureSet, BoolArray]
    pool: Int64Array
    exposure: Float32Array
    observed: Float32Array
    abstain_below: float | None = None

    @classmethod
    def of(
        cls,
        pools: Sequence[LogLinearPool],
        snapshot: FeatureSnapshot,
        logits: Mapping[FeatureSet, Float32Array],
        *,
        found: Answer,
        abstain_below: float | None = None,
    ) -> Evidence:
        """Return what `found` was made from; empty `logits` say that the readouts gave no number."""
        has = {name: snapshot.has[name] for name in logits}
        return cls(tuple(pools), logits, has, found.pool, snapshot.exposure, snapshot.observed, abstain_below)

    def document(self, row: int) -> dict[str, Any]:
        """Return the evidence of one unit as plain values.

        `predictors` by feature set: `has_data`; `probabilities` (C,) as the readout gives them, before pooling and
        calibration; `weight`, the exponent that they have in the pool, 0 for a set that the pool leaves out.
        `abstain_below` and `set_above` are the thresholds at the unit's exposure, null where no pool answered.
        """
        place = int(self.pool[row])
        pool = self.pools[place] if place >= 0 else None
        at = slice(row, row + 1)
        weights: dict[str, float] = {}
        thresholds: dict[str, float | None] = {"abstain_below": None, "set_above": None}
        exposure = float(self.exposure[row])
        if pool is not None:
            n = self._exposure_of(pool)[at]
            exposure = float(n[0])
            weights = {name: float(pool.at(w, n)[0]) for name, w in zip(pool.predictors, pool.weight, strict=True)}
            thresholds["abstain_below"] = float(pool.least(n, self.abstain_below)[0])
            thresholds["set_above"] = float(pool.at(pool.set_above, n)[0])
        predictors = {
            str(name): {
                "has_data": bool(self.has[name][row]),
                "probabilities": [round(float(p), 4) for p in np.exp(log_softmax(logits[at]))[0]],
                "weight": round(weights.get(name, 0.0), 4),
            }
            for name, logits in self.logits.items()
        }
        return {"pool": place, "exposure": round(exposure, 3), **thresholds, "predictors": predictors}

    def _exposure_of(self, pool: LogLinearPool) -> Float32Array:
        embedded = any(name.startswith("embedding") for name in pool.predictors)
        return self.exposure if embedded else self.observed
