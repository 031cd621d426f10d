"""Reading without a few bad rows: what is left out is counted and named, files with too many are rejected."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.windows.binning import BoolArray

MOST_SPIKES = 0.05
"""Share of spikes that may be left out: Kilosort writes some at the edges; more mean that the clock is another."""

MOST_UNITS = 0.25
"""Share of units, ROIs or rows of a table that may be left out."""


def keep_good(
    bad: BoolArray,
    *,
    what: str,
    why: str,
    first: Any,
    remedy: str,
    notes: list[str],
    most: float = MOST_SPIKES,
) -> BoolArray:
    """Return which rows (N,) are good, and add to `notes` how many are not.

    Args:
        bad: The rows (N,) that cannot be used.
        what: Where they stand and what they are, such as "kilosort4/spike_times.npy: {} spikes".
        why: What is wrong with them, such as "lie before sample 0".
        first: The first bad one in words, or the values (N,) of all rows.
        remedy: What to do when there are too many.
        notes: What was left out and guessed so far; a line is added.
        most: Share of the rows that may be bad.

    Raises RecordingError when more than `most` of the rows are bad.
    """
    keep: BoolArray = ~bad
    count = int(bad.sum())
    if not count:
        return keep
    row = int(np.flatnonzero(bad)[0])
    named = first if isinstance(first, str) else f"row {row} ({shown(np.asarray(first)[row])})"
    found = f"{what.format(f'{count} of {len(bad)}')} {why}, the first is {named}"
    if count > most * len(bad):
        raise RecordingError(f"{found}; {remedy}")
    notes.append(f"{found}: left out")
    return keep


def shown(value: npt.NDArray[Any] | np.generic) -> str:
    """A value as people write it."""
    plain = value.item() if value.ndim == 0 else value.tolist()
    return f"{plain:.9g}" if isinstance(plain, float) else str(plain)
