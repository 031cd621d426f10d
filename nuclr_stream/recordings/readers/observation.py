"""When units were observed: stretches of a file's own times on its clock, and what to do with spikes outside of them.

Shape letters: N spikes, U units, M stretches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nuclr_stream.recordings.left_out import MOST_SPIKES, MOST_UNITS, keep_good, shown
from nuclr_stream.recordings.readers.clock import Clock
from nuclr_stream.windows.binning import BoolArray, Int64Array
from nuclr_stream.windows.interval_set import Stretches


def good_intervals(intervals: npt.NDArray[np.float64], *, field: str, notes: list[str]) -> BoolArray:
    """Which intervals (M, 2) are finite and end after they begin. Raises RecordingError when many do not."""
    bad = ~np.isfinite(intervals).all(axis=1) | (intervals[:, 0] >= intervals[:, 1])
    return keep_good(
        bad,
        what=f"{field}: {{}} intervals",
        why="do not end after they begin",
        first=intervals,
        remedy="write the start and the stop of each",
        notes=notes,
        most=MOST_UNITS,
    )


def stretches_on(clock: Clock, intervals: npt.NDArray[np.float64], spikes: Int64Array) -> Int64Array:
    """Sample stretches (M, 2) [start, stop) of intervals [start, end]; a spike at the very end is inside."""
    stretches = np.maximum(clock.samples(intervals), 0)
    stretches[:, 1] += np.isin(stretches[:, 1], spikes)
    return stretches[stretches[:, 0] < stretches[:, 1]]


def clock_of_intervals(clock: Clock, intervals: npt.NDArray[np.float64], last_time: float) -> Clock:
    """The clock of the intervals of a file whose spike times are not in seconds: intervals often still are."""
    if clock.scale == 1 or float(intervals.max()) > last_time / 10:
        return clock
    return Clock(clock.rate, 1.0, clock.origin_s)


def outside(samples: Int64Array, rows: npt.NDArray[np.integer], observed: Sequence[Int64Array]) -> BoolArray:
    """Which spikes (N,) lie outside of what was observed of their unit, a (M, 2) each."""
    order = np.argsort(rows, kind="stable")
    edges = np.searchsorted(rows[order], np.arange(len(observed) + 1))
    found = np.zeros(len(samples), dtype=bool)
    for unit, stretches in enumerate(observed):
        mine = order[edges[unit] : edges[unit + 1]]
        inside = Stretches()
        for start, stop in stretches.tolist():
            inside.add(start, stop)
        found[mine] = ~inside.holds(samples[mine])
    return found


def heeded(
    samples: Int64Array, rows: npt.NDArray[np.integer], observed: Sequence[Int64Array], *, field: str, notes: list[str]
) -> tuple[BoolArray, bool]:
    """Which spikes (N,) to keep, and whether `observed` of every unit is heeded.

    A few spikes outside of what was observed are left out. Many of them say that it is not what was observed: a stretch
    with spikes was recorded, and `observed` is passed over.
    """
    bad = outside(samples, rows, observed)
    if bad.mean() <= MOST_SPIKES:
        why = "lie outside of what was observed of their unit"
        keep = keep_good(bad, what=f"{field}: {{}} spikes", why=why, first=samples, remedy="", notes=notes)
        return keep, True
    row = int(np.flatnonzero(bad)[0])
    notes.append(
        f"{field}: not heeded, for {int(bad.sum())} of {len(bad)} spikes ({bad.mean():.0%}) lie outside of it, the "
        f"first is "
        f"sample {shown(samples[row])} of unit row {int(rows[row])}: where spikes are, something was recorded"
    )
    return np.ones(len(samples), dtype=bool), False


def partly_observed(observed: Sequence[Int64Array], *, field: str, notes: list[str]) -> None:
    """Add a note where units were observed for less of the time than others: they count as silent there."""
    lengths = []
    everything = Stretches()
    for stretches in observed:
        own = Stretches()
        for start, stop in stretches.tolist():
            own.add(start, stop)
            everything.add(start, stop)
        lengths.append(own.inside(0, 2**53))
    total = everything.inside(0, 2**53)
    part = np.flatnonzero(np.array(lengths) < 0.99 * total)
    if part.size:
        share = float(np.mean([lengths[unit] / total for unit in part]))
        notes.append(
            f"{field}: {part.size} of {len(lengths)} units were observed for only part of the recording ({share:.0%} "
            f"of it "
            f"on average, the first is unit row {part[0]}); outside of it they look silent without being so: label "
            f"such "
            "stretches apart, or leave these units out"
        )
