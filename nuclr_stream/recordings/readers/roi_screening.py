"""Which ROIs can be used: what is dead, without a baseline or not finite is left out, and frames that nobody has are
gaps.

Shape letters: U ROIs, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from nuclr_stream.recordings.left_out import MOST_UNITS, keep_good
from nuclr_stream.recordings.readers.fluorescence import Float32Array, baseline, delta_f_over_f
from nuclr_stream.windows.binning import BoolArray

HUGE = 1000.0
"""No indicator brightens a thousandfold: such dF/F was divided by almost nothing."""

RAW_LEVEL, SMALL = 10.0, 10.0
"""A baseline above RAW_LEVEL is no dF/F; values below SMALL around zero are no camera counts."""


@dataclass(frozen=True)
class Screened:
    """dF/F (U', T) of the ROIs `keep` (U,), and which frames (T,) were lost: NaN in all of them, here 0."""

    traces: Float32Array
    keep: BoolArray
    lost: BoolArray


def holds(values: Float32Array, stated: str, *, where: str, notes: list[str]) -> str:
    """Whether values (U, T) are "raw" or "dff": what is `stated` of them, unless they can not be that."""
    with np.errstate(invalid="ignore"):
        rows = values[np.isfinite(values).all(axis=1)]
    if not len(rows):
        return stated
    low, middle = np.percentile(rows, 8, axis=1), np.median(np.abs(rows))
    if stated == "dff" and np.median(low) > RAW_LEVEL:
        notes.append(f"{where}: is called dF/F, but its baseline is at {np.median(low):.4g}: taken as raw fluorescence")
        return "raw"
    if stated == "raw" and np.mean(low <= 0) > 0.5 and middle < SMALL:
        notes.append(
            f"{where}: is called fluorescence, but {int((low <= 0).sum())} of {len(rows)} ROIs have a baseline of 0 "
            "or less "
            f"and a typical value of {middle:.3g}: taken as dF/F"
        )
        return "dff"
    return stated


def screened(
    values: Float32Array,
    neuropil: Float32Array | None,
    *,
    raw: bool,
    frame_rate: Fraction,
    names: Sequence[str],
    where: str,
    notes: list[str],
) -> Screened:
    """Make dF/F of the ROIs that can be used, or check what is dF/F already.

    Args:
        values: Raw fluorescence, or dF/F (U, T).
        neuropil: Fluorescence of the surround (U, T) to subtract from raw `values`.
        raw: Whether `values` are raw fluorescence.
        frame_rate: Frames per second.
        names: Names of the ROIs (U,).
        where: File and series, in notes and errors.
        notes: What was left out and guessed; lines are added.

    Raises RecordingError when more than MOST_UNITS of the ROIs can not be used.
    """
    finite: BoolArray = np.isfinite(values if neuropil is None else values + neuropil)
    lost: BoolArray = np.asarray(~finite.any(axis=0))
    if lost.any() and not lost.all():
        notes.append(f"{where}: {int(lost.sum())} frames are not finite in any ROI: taken as not recorded")
        values, neuropil = _filled(values, lost), None if neuropil is None else _filled(neuropil, lost)
        finite = np.asarray(finite | lost)
    else:
        lost = np.zeros(values.shape[1], dtype=bool)
    spans = np.ptp(np.where(finite, values, 0), axis=1)
    bad = [(~finite.all(axis=1), "have values that are not finite"), (spans == 0, "never change")]
    if raw:
        with np.errstate(invalid="ignore"):
            floor = baseline(np.where(finite, values, 1), frame_rate).min(axis=1)
        bad.append((floor <= 0, "have no baseline fluorescence above 0"))
    else:
        bad.append(
            (np.abs(np.where(finite, values, 0)).max(axis=1) > HUGE, f"reach more than {HUGE:g} times their baseline")
        )
    keep = np.ones(len(values), dtype=bool)
    for which, why in bad:
        found = which & keep
        keep &= keep_good(
            found,
            what=f"{where}: {{}} ROIs",
            why=why,
            first=f"ROI {names[np.flatnonzero(found)[0]]}" if found.any() else "",
            remedy="the traces are no camera counts above 0 of cells: save F before any correction"
            if raw
            else "write dF/F of cells, and leave the others out of the table of ROIs",
            notes=notes,
            most=MOST_UNITS,
        )
    traces = values[keep]
    if raw:
        traces = delta_f_over_f(traces, None if neuropil is None else neuropil[keep], frame_rate, where=where)
    return Screened(np.where(lost, np.float32(0), traces), keep, lost)


def _filled(values: Float32Array, lost: BoolArray) -> Float32Array:
    """Values with the lost frames at the median of their ROI, which moves no baseline."""
    middle = np.nanmedian(np.where(np.isfinite(values), values, np.nan)[:, ~lost], axis=1, keepdims=True)
    return np.where(lost, middle, values).astype(np.float32)
