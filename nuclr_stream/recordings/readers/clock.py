"""Which clock spike times are on, decided before anything is allocated: their order, their unit, and where time begins.

A file in seconds counts them from wherever its maker chose: the beginning of the recording, an event, or 1970. Some
hold milliseconds or sample numbers although their format says seconds. What a file means follows from what neurons can
do: of a sorted population some unit fires faster than SLOW_HZ, and in seconds no recording has only whole spike times.
Shape letters: N spikes, U units.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.left_out import MOST_SPIKES, keep_good
from nuclr_stream.windows.binning import BoolArray, Int64Array

MAX_LEAD_S = 3600.0
"""Time that begins later than this, or before zero, is counted from the first observed second instead."""

MAX_SPAN_S = 30 * 24 * 3600.0
MAX_BIN_BYTES = 16 * 2**30
"""Bound of the counts of a recording, float32 in bins of 20 ms."""

SLOW_HZ, LONG_S, MIN_SPIKES = 0.2, 7200.0, 50
"""If no unit fires at SLOW_HZ over more than LONG_S, times are in a smaller unit than seconds."""

USUAL_HZ, SLOWEST_HZ, FASTEST_HZ = 3.0, 0.03, 100.0
"""Median rates of sorted populations: the usual one, and the plausible range."""

TOO_FAST_HZ = 1000.0
"""No neuron fires faster, and a population far less."""

REFRACTORY_TICKS = 5
"""Whole times of one unit that are often closer than this are no sample numbers: neurons rest for a millisecond."""

ABSURD = 1e25
"""No time, in whatever unit."""

FARTHEST = 2.0**62
"""Sample numbers end here, so that they are whole numbers; what lies there is left out as not observed."""

EPOCH_S = (4e8, 4e9)
"""Seconds since 1970 from 1982 to 2096."""

Float64Array = npt.NDArray[np.float64]
UNITS_OF_TIME = {"milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}


@dataclass(frozen=True)
class Clock:
    """How the times of a file become sample numbers: times `scale` to the second, counted from `origin_s`."""

    rate: Fraction
    scale: float = 1.0
    origin_s: float = 0.0

    def samples(self, times: npt.ArrayLike) -> Int64Array:
        """Nearest sample number of every time of the file, same shape."""
        seconds = np.asarray(times, dtype=np.float64) * self.scale - self.origin_s
        return np.rint(np.clip(seconds * float(self.rate), -FARTHEST, FARTHEST)).astype(np.int64)


def finite_times(times: npt.NDArray[Any], *, field: str, notes: list[str]) -> BoolArray:
    """Which times (N,) are numbers of one recording: not NaN or infinite, and not absurdly far from all others.

    Raises RecordingError where more than a few are not.
    """
    remedy = "write the file again with the times that the sorter gave"
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(times) < ABSURD)
    keep = keep_good(
        bad, what=f"{field}: {{}} spikes", why="have no finite time", first=times, remedy=remedy, notes=notes
    )
    if keep.sum() < MIN_SPIKES:
        return keep
    low, high = np.quantile(times[keep], [0.05, 0.95])
    far = 10 * max(float(high - low), 1.0)
    absurd = keep & ((times < low - far) | (times > high + far))
    why = f"lie far from all others, which are at about {low:.9g} to {high:.9g}"
    return keep & keep_good(
        absurd, what=f"{field}: {{}} spikes", why=why, first=times, remedy=remedy, notes=notes, most=0.01
    )


def check_order(times: npt.NDArray[Any], rows: npt.NDArray[np.integer], *, field: str, notes: list[str]) -> None:
    """Refuse times (N,) that start over within most units `rows` (N,); others need only be sorted by the caller.

    Sorting times that start over would lay trials, or recordings, on top of one another. Raises RecordingError.
    """
    order = np.argsort(rows, kind="stable")
    steps, same = np.diff(times[order]), np.diff(rows[order]) == 0
    back = same & (steps < 0)
    if not back.any():
        return
    span = float(times.max() - times.min())
    far = np.flatnonzero(back & (steps < -0.02 * span))
    fired = len(np.unique(rows))
    overturned = len(np.unique(rows[order][far]))
    row = int(order[np.flatnonzero(back)[0] + 1])
    if overturned > fired / 4:
        row = int(order[far[0] + 1])
        raise RecordingError(
            f"{field}: row {row} ({times[row]:.9g}) is earlier than the spike of the same unit before it, and so it is "
            f"{len(far)} times in {overturned} of {fired} units: times start over, as they do when they are counted "
            f"from "
            "the beginning of every trial, or of several recordings after one another; write them on one clock for the "
            "whole session (sorting them would lay one trial over another)"
        )
    unordered = len(np.unique(rows[order][np.flatnonzero(back)]))
    notes.append(
        f"{field}: spikes of {unordered} of {fired} units are not in the order of time, the first is row {row} "
        f"({times[row]:.9g}): sorted, every spike with its unit"
    )


def clock_of(
    times: Float64Array,
    rows: npt.NDArray[np.integer],
    *,
    rate: Fraction,
    rate_known: bool,
    begins: float | None,
    field: str,
    notes: list[str],
) -> Clock:
    """The clock that times (N,) of units `rows` (N,) are on, which the format says are seconds.

    `begins` is the first observed time if the file declares one, `rate_known` whether it declares its sample rate.
    Raises RecordingError naming the likely unit of time where it is not certain enough to go on.
    """
    if not len(times):
        return Clock(rate)
    scale = _scale(times, rows, rate=rate, rate_known=rate_known, field=field, notes=notes)
    first = float(times.min()) * scale
    declared = None if begins is None else begins * scale
    start = declared if declared is not None and first - MAX_LEAD_S <= declared <= first + 1 else first
    early = float((times < 0).mean())
    if 0 <= start <= MAX_LEAD_S or (start < 0 and declared is None and early <= MOST_SPIKES):
        return Clock(rate, scale)
    origin = float(np.floor(start))
    notes.append(f"{field}: {_begin(origin, early, declared)}; here time counts from {origin:.12g} s")
    return Clock(rate, scale, origin)


def bound_span(span_s: float, units: int, *, where: str) -> None:
    """Raise RecordingError for a recording too long, or too large when it is binned, to be one."""
    size = span_s * 50 * 4 * units
    if span_s > MAX_SPAN_S or size > MAX_BIN_BYTES:
        raise RecordingError(
            f"{where}: spikes of {units} units over {span_s:.6g} s ({span_s / 3600:.4g} h) would need "
            f"{size / 2**30:.3g} GiB of counts; if the times are not in seconds write them in seconds, else split the "
            "recording"
        )


def rates_of(times: npt.NDArray[Any], rows: npt.NDArray[np.integer]) -> Float64Array:
    """Rates of the units that fired, per unit of time, over the span of all spikes."""
    counts = np.bincount(rows)
    span = max(float(times.max() - times.min()), 1e-9)
    return counts[counts > 0] / span


def _scale(
    times: Float64Array,
    rows: npt.NDArray[np.integer],
    *,
    rate: Fraction,
    rate_known: bool,
    field: str,
    notes: list[str],
) -> float:
    """Seconds that one unit of the times lasts."""
    rates, span = rates_of(times, rows), float(times.max() - times.min())
    whole = len(times) >= MIN_SPIKES and bool((times == np.rint(times)).all())
    slow = len(times) >= MIN_SPIKES and span > LONG_S and float(rates.max()) < SLOW_HZ
    if len(times) >= MIN_SPIKES and float(np.median(rates)) > TOO_FAST_HZ:
        raise RecordingError(
            f"{field}: as seconds, {len(times)} spikes would lie within {span:.3g} s and the median unit would fire at "
            f"{np.median(rates):.3g} Hz; the times are in a longer unit than seconds, or were divided by the sample "
            f"rate "
            "twice: write them in seconds"
        )
    if not slow and not whole:
        return 1.0
    found = (
        f"{field}: as seconds, {len(times)} spikes would last {span / 3600:.4g} h and the busiest unit would fire at "
        f"{rates.max():.3g} Hz" + (", and all times are whole numbers" if whole else "")
    )
    candidates = dict(UNITS_OF_TIME)
    if whole and _closest(times, rows) >= REFRACTORY_TICKS:
        candidates["sample numbers"] = 1 / float(rate)
    median = float(np.median(rates))
    fitting = {name: s for name, s in candidates.items() if SLOWEST_HZ <= median / s <= FASTEST_HZ}
    if not fitting:
        raise RecordingError(f"{found}; these are no seconds: write the spike times in seconds")
    name = min(fitting, key=lambda each: abs(np.log(median / fitting[each] / USUAL_HZ)))
    if name == "sample numbers" and not rate_known:
        raise RecordingError(
            f"{found}; they look like sample numbers (at {float(rate):g} Hz the units would fire at "
            f"{median * float(rate):.3g} Hz): divide them by the sample rate of the device, which the file does not say"
        )
    notes.append(f"{found}; taken as {name}, with which the median rate is {median / fitting[name]:.3g} Hz")
    return fitting[name]


def _closest(times: Float64Array, rows: npt.NDArray[np.integer]) -> float:
    """The first percentile of the steps between the spikes of a unit."""
    order = np.lexsort((times, rows))
    steps = np.diff(times[order])[np.diff(rows[order]) == 0]
    return float(np.quantile(steps, 0.01)) if steps.size else 0.0


def _begin(origin: float, early: float, declared: float | None) -> str:
    """Where time begins, in words."""
    whence = "the first observed second" if declared is not None else "the second of the first spike"
    if EPOCH_S[0] < origin < EPOCH_S[1]:
        return f"times are seconds since 1970 ({datetime.fromtimestamp(origin, UTC):%Y-%m-%d %H:%M:%S} UTC, {whence})"
    if early:
        return f"{early:.1%} of the spikes lie before zero, for zero is an event within the recording"
    return f"times begin {origin / 3600:.3g} h after zero ({whence})"
