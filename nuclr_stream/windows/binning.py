"""The one definition of how samples become bins, and bins become windows. Training and daemon both use it.

Shape letters, used everywhere: U units, T bins of a window, P patches of a window, B bins of a patch,
D embedding, C classes. Units come first: counts are (U, T).

All arithmetic is exact. A device clock is a rational number of samples per second and bins per second are rational too,
so bin = (sample - origin) * bins_per_second * denominator // numerator never drifts, however long the recording.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nuclr_stream.windows.normaliser import Normalisation

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
InputKind = Literal["spikes", "traces"]

MAX_SAMPLE = 2**53
"""Largest absolute sample number accepted anywhere: 9,000 years at 30 kHz; exact in a float64 too."""


def rational(value: Fraction | int | float | str) -> Fraction:
    """Return `value` as an exact rational: a float is read as the decimal that it prints as.

    >>> rational(24414.0625), rational("30000"), rational(29999.96)
    (Fraction(390625, 16), Fraction(30000, 1), Fraction(749999, 25))

    Raises ValueError when it is not positive and finite.
    """
    try:
        # A float goes through its shortest decimal: 29999.96 is what the file meant, not the binary number beside it.
        exact = Fraction(repr(value)) if isinstance(value, float) else Fraction(value)
        exact = exact.limit_denominator(10**6)
    except (ValueError, OverflowError, ZeroDivisionError, TypeError) as error:
        raise ValueError(f"{value!r} is not a finite number or a fraction such as '30000/1'") from error
    if exact <= 0 or exact.numerator >= 2**40:
        raise ValueError(f"{value!r} must be above 0 and below 2**40")
    return exact


@dataclass(frozen=True)
class WindowSpec:
    """How a window is cut: `patches` patches of `bins_per_patch` bins, `hop_bins` bins from one window to the next.

    For traces one bin is one frame and `bins_per_second` the frame rate; `normaliser` says what they are divided by,
    None for traces that are used as they come.
    """

    bins_per_second: Fraction
    bins_per_patch: int
    patches: int
    hop_bins: int
    input_kind: InputKind = "spikes"
    normaliser: Normalisation | None = None

    def __post_init__(self) -> None:
        if min(float(self.bins_per_second), self.bins_per_patch, self.patches, self.hop_bins) <= 0:
            raise ValueError(f"every length of a window must be positive, got {self}")
        if self.normaliser is not None and self.input_kind != "traces":
            raise ValueError("only traces are normalised: leave normaliser out, or set input_kind to traces")

    @property
    def bins(self) -> int:
        """T, bins of a window."""
        return self.bins_per_patch * self.patches

    @property
    def window_s(self) -> float:
        """Length of a window in seconds."""
        return float(self.bins / self.bins_per_second)

    @property
    def hop_s(self) -> float:
        """Time from one window to the next in seconds."""
        return float(self.hop_bins / self.bins_per_second)

    def with_hop_s(self, hop_s: float) -> WindowSpec:
        """Return this spec with another hop; ValueError unless the hop is a whole number of bins, at least one."""
        hop = rational(hop_s) * self.bins_per_second
        if hop.denominator != 1:
            raise ValueError(f"hop of {hop_s} s is {float(hop):g} bins; it must be a whole number of bins")
        return replace(self, hop_bins=int(hop))


@dataclass(frozen=True)
class Grid:
    """Where bins lie on a device clock: bin 0 begins at sample `origin`, and the grid never restarts in an epoch."""

    sample_rate: Fraction
    bins_per_second: Fraction
    origin: int = 0

    @property
    def _ratio(self) -> Fraction:
        return self.bins_per_second / self.sample_rate

    @property
    def exact(self) -> bool:
        """Whether `bin_of` is exact for every sample number; it is not for a few absurd rates."""
        return self._ratio.numerator * self._ratio.denominator < 2**63

    def bin_of(self, samples: npt.ArrayLike) -> Int64Array:
        """Return the bin of every sample: floor((sample - origin) * bins_per_second / sample_rate), exactly.

        Raises OverflowError when a result would not be exact in int64.
        """
        values = np.asarray(samples, dtype=np.int64)
        n, d = self._ratio.numerator, self._ratio.denominator
        if not values.size:
            return values
        if max(abs(int(values.min())), abs(int(values.max())), abs(self.origin)) > MAX_SAMPLE + 1:
            raise OverflowError(f"sample numbers beyond +-2**53 (origin {self.origin})")
        # The product of most clocks fits int64 as it is; the far ends of absurd ones go through quotient and remainder.
        relative = values - self.origin
        if (max(abs(int(relative.min())), abs(int(relative.max()))) + 1) * n < 2**63:
            small: Int64Array = (relative * n) // d
            return small
        # (q*d + r) * n // d == q*n + r*n // d: the product stays small however far the clock is from zero.
        quotient, remainder = np.divmod(relative, d)
        if d * n >= 2**63 or (int(np.abs(quotient).max()) + 1) * n >= 2**62:
            raise OverflowError(f"{self} cannot bin sample numbers up to {int(np.abs(values).max())} exactly")
        bins: Int64Array = quotient * n + (remainder * n) // d
        return bins

    def bin_from(self, samples: npt.ArrayLike) -> Int64Array:
        """Return the first bin that begins at or after each sample: the first that is whole from there on."""
        return self.bin_of(np.asarray(samples, dtype=np.int64) - 1) + 1

    def first_sample(self, bin_index: int) -> int:
        """Return the first sample of a bin (the smallest sample that `bin_of` puts there or later)."""
        return self.origin - (-bin_index * self._ratio.denominator) // self._ratio.numerator

    def complete_bins(self, watermark: int) -> int:
        """Return the end (exclusive) of the bins that lie wholly before sample `watermark`."""
        return (watermark - self.origin) * self._ratio.numerator // self._ratio.denominator


MAX_FRAME_RATE_ERROR = 0.01
"""How far the frame rate of traces may be from the one that the encoder was trained at, as a fraction of it."""


def rate_fits(sample_rate: Fraction, spec: WindowSpec) -> bool:
    """Return whether windows can be cut on a clock of `sample_rate`: fast enough for spikes, about equal for traces."""
    if spec.input_kind == "traces":
        return abs(float(sample_rate / spec.bins_per_second) - 1) <= MAX_FRAME_RATE_ERROR
    return sample_rate >= spec.bins_per_second


def grid_of(sample_rate: Fraction, spec: WindowSpec, origin: int = 0) -> Grid:
    """Return the grid of bins on a device's clock; for traces every frame is one bin, whatever its exact rate."""
    clock = spec.bins_per_second if spec.input_kind == "traces" else sample_rate
    return Grid(clock, spec.bins_per_second, origin)


def count_into(counts: Float32Array, rows: npt.NDArray[np.integer], bins: npt.NDArray[np.integer]) -> None:
    """Add one spike at every (row, bin) of `counts` (U, T), in place. The caller has checked the ranges."""
    np.add.at(counts, (rows, bins), np.float32(1))


def count(
    samples: npt.ArrayLike, rows: npt.ArrayLike, *, units: int, grid: Grid, first_bin: int, bins: int
) -> Float32Array:
    """Return counts (U, T) float32 of the spikes in bins [first_bin, first_bin + bins); other spikes are left out."""
    rows = np.asarray(rows)
    # Spikes outside are left out, not clipped: a clipped one would be counted in a bin in which it did not happen.
    index = grid.bin_of(samples) - first_bin
    inside = (index >= 0) & (index < bins)
    counts = np.zeros((units, bins), dtype=np.float32)
    count_into(counts, rows[inside], index[inside])
    return counts


def first_window_end(first_bin: int, spec: WindowSpec) -> int:
    """Return the end bin of the first window that holds no bin before `first_bin`; ends are multiples of the hop."""
    # Multiples of the hop, counted from bin 0 and not from the first data: a stream that is joined late, and the same
    # recording from a file, must cut the same windows.
    return -(-(first_bin + spec.bins) // spec.hop_bins) * spec.hop_bins


def active_units(counts: npt.NDArray[Any], input_kind: InputKind) -> BoolArray:
    """Return which units (U,) of a window (U, T) enter the encoder: those that fired; for traces all of them."""
    if input_kind == "traces":
        return np.ones(len(counts), dtype=bool)
    # A unit without a spike in the window has nothing to embed, and in training never entered one either.
    active: BoolArray = np.any(counts != 0, axis=1)
    return active


def silence_bins(spec: WindowSpec) -> int:
    """Return how many bins before a window `touches_silence` looks at as well: one second of them."""
    return math.ceil(spec.bins_per_second)


def touches_silence(totals: npt.ArrayLike, spec: WindowSpec, *, first_bin: int) -> bool:
    """Return whether a whole second of the grid in `totals` holds no spike of any unit of the probe.

    `totals` (silence_bins + T,) are the spikes of all units per bin, from one second before the window to its end, the
    first of them being bin `first_bin`; a bin without data is -1, for missing is not silent. This is the causal form of
    the published rule (silent stretches and one second around them are cut): only seconds that are over at the end of
    the window count, so that live and offline agree. Seconds are counted from the origin of the grid.
    """
    # Traces have values whatever the cells do: zero fluorescence is no sign of a probe that was switched off.
    if spec.input_kind == "traces":
        return False
    values = np.asarray(totals)
    n, d = spec.bins_per_second.numerator, spec.bins_per_second.denominator
    first = -(-first_bin * d // n)
    last = (first_bin + len(values)) * d // n
    edges = [-(-second * n // d) - first_bin for second in range(first, last + 1)]
    return any(b > a and not values[a:b].any() for a, b in pairwise(edges))


@dataclass(frozen=True)
class WindowRules:
    """Which windows and units the encoder was trained on, and therefore may see. Part of every bundle's manifest.

    `min_population` active units are needed for a window to be in distribution; a window with more than `max_missing`
    of its data missing, one that touches a mask interval and, with `cut_silence`, one that touches a silent stretch
    (`touches_silence`) is not embedded. Only active units enter; one hardware probe is one population.
    """

    min_population: int = 11
    max_missing: float = 0.1
    cut_silence: bool = True

    def exclusion(self, *, missing: float, masked: bool, silent: bool) -> Literal["", "gap", "mask", "silence"]:
        """Return why a window is not embedded, or an empty string. `missing` is a fraction of the window."""
        # One reason is enough, the first in this order: a gap explains silence, so "silence" is left for windows that
        # were observed.
        if missing > self.max_missing:
            return "gap"
        if masked:
            return "mask"
        return "silence" if silent and self.cut_silence else ""
