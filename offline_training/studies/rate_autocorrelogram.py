"""Autocorrelogram against firing rate: an image per unit, the input of NEMO beside the waveform.

The spikes of a unit are put into ten groups of equal size by how many spikes lie around them; row r of the image is the
autocorrelogram seen from the spikes of group r, at lags on a logarithmic axis.
Shapes: U units, R rows, L lags.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Float32Array, Int64Array

ROWS = 10
LAGS = 64
LAG_RANGE_S = (0.001, 1.0)
AROUND_S = 0.25
"""Spikes up to so far to either side make the rate around a spike."""


def rate_autocorrelograms(recording: Recording, start_s: float, stop_s: float) -> Float32Array:
    """Images (U, R, L) from the spikes in [start_s, stop_s): for each row the mean number of later spikes per ms of lag
    and reference spike; zeros in the rows of units with fewer than ten spikes that stay empty."""
    samples, rows = recording.spike_samples, recording.spike_units
    rate = float(recording.sample_rate)
    first, last = np.searchsorted(samples, [start_s * rate, stop_s * rate])
    order = np.argsort(rows[first:last], kind="stable")
    unit = rows[first:last][order].astype(np.int64)
    at = samples[first:last][order]
    row = unit * ROWS + _rate_group(unit, at, around=AROUND_S * rate)
    counts = _lag_counts(unit, at, row, rows=len(recording.unit_ids) * ROWS, rate=rate)
    references = np.bincount(row, minlength=len(counts))
    width_ms = 1000 * np.diff(_lag_edges_s())
    images = counts / np.maximum(references, 1)[:, None] / width_ms
    return images.reshape(-1, ROWS, LAGS).astype(np.float32)


def _lag_edges_s() -> npt.NDArray[np.float64]:
    return np.geomspace(*LAG_RANGE_S, LAGS + 1)


def _rate_group(unit: Int64Array, at: Int64Array, *, around: float) -> Int64Array:
    """Tenth (N,) of its unit's spikes that each spike belongs to by how many lie within `around` samples of it; among
    equals the earlier comes first. Spikes come unit by unit, their samples `at` ascending."""
    at = at + unit * (at.max(initial=0) + int(2 * around) + 1)  # far apart, so that one search serves all units
    near = np.searchsorted(at, at + around, side="right") - np.searchsorted(at, at - around)
    order = np.lexsort([np.arange(len(unit)), near, unit])
    per_unit = np.bincount(unit)
    begins = np.cumsum(per_unit) - per_unit
    place = np.empty(len(unit), dtype=np.int64)
    place[order] = np.arange(len(unit)) - begins[unit]
    return place * ROWS // per_unit[unit]


def _lag_counts(unit: Int64Array, at: Int64Array, row: Int64Array, *, rows: int, rate: float) -> Int64Array:
    """How many spikes of the same unit follow the spikes of every row, per lag (rows, L)."""
    counts = np.zeros(rows * LAGS, dtype=np.int64)
    low, high = (lag_s * rate for lag_s in LAG_RANGE_S)
    per_e_fold = LAGS / np.log(high / low)
    reference = np.arange(len(unit))
    for ahead in range(1, len(unit)):
        reference = reference[reference + ahead < len(unit)]
        lag = at[reference + ahead] - at[reference]
        near = (unit[reference + ahead] == unit[reference]) & (lag < high)
        reference, lag = reference[near], lag[near]
        if not len(reference):
            break
        lag, of = lag[lag >= low], row[reference[lag >= low]]
        counts += np.bincount(
            of * LAGS + np.minimum(per_e_fold * np.log(lag / low), LAGS - 1).astype(np.int64), minlength=len(counts)
        )
    return counts.reshape(rows, LAGS)
