"""dF/F from raw fluorescence, in the one definition that the readers of traces use, and that a rig can compute live.

F (U, T) is the fluorescence of every cell, N (U, T) that of its surround (neuropil), both in the camera's counts:

    baseline(X) = 8th percentile of X over the last 60 s, renewed every 5 s; the first 60 s share their own
    C = F - 0.7 N                                        (N is 0 where no surround was measured)
    dF/F = (C - baseline(C)) / baseline(F)

Past the first minute it is causal, so that a source can send the very same values live. The numerator is corrected for
the surround; the denominator is not, for a corrected baseline may be close to 0 and would blow up a dim cell.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError

Float32Array = npt.NDArray[np.float32]

BASELINE_S = 60.0
RENEWED_S = 5.0
BASELINE_PERCENTILE = 8.0
NEUROPIL_SHARE = 0.7


def delta_f_over_f(
    fluorescence: Float32Array, neuropil: Float32Array | None, frame_rate: Fraction, *, where: str
) -> Float32Array:
    """Return dF/F (U, T) of `fluorescence` (U, T) and, where measured, `neuropil` (U, T), as the module defines it.

    Raises RecordingError, beginning with `where`, for shapes that differ, values that are not finite, and a cell whose
    baseline is not above 0.
    """
    parts = {"fluorescence": fluorescence} if neuropil is None else {"fluorescence": fluorescence, "neuropil": neuropil}
    for name, values in parts.items():
        if values.shape != fluorescence.shape or values.ndim != 2:
            raise RecordingError(
                f"{where}: {name} is {values.shape}, fluorescence {fluorescence.shape}; both are (U, T)"
            )
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise RecordingError(f"{where}: {name} of ROI {bad[0][0]} is not finite at frame {bad[0][1]}; leave it out")
    corrected = fluorescence if neuropil is None else fluorescence - np.float32(NEUROPIL_SHARE) * neuropil
    below = baseline(fluorescence, frame_rate)
    bad = np.argwhere(below <= 0)
    if len(bad):
        unit, frame = bad[0].tolist()
        raise RecordingError(
            f"{where}: ROI {unit} has a baseline fluorescence of {below[unit, frame]:g} at frame {frame}; raw counts "
            "above 0 are needed: save F before any correction, or leave the ROI out"
        )
    return ((corrected - baseline(corrected, frame_rate)) / below).astype(np.float32)


def baseline(values: Float32Array, frame_rate: Fraction) -> Float32Array:
    """The baseline (U, T) of every row of values (U, T), as the module defines it."""
    frames, step = (max(1, round(seconds * frame_rate)) for seconds in (BASELINE_S, RENEWED_S))
    lows = np.empty_like(values)
    lows[:, :frames] = _low(values[:, :frames])
    for start in range(frames, values.shape[1], step):
        lows[:, start : start + step] = _low(values[:, start - frames : start])
    return lows


def _low(values: Float32Array) -> Float32Array:
    low: Float32Array = np.percentile(values, BASELINE_PERCENTILE, axis=1, keepdims=True).astype(np.float32)
    return low
