"""Recording: one probe in one session, as spike samples and a unit table; one .npz layout that everybody reads.

The file holds `recording_id`, `subject_id`, `session_date`, `sample_rate_hz` (or the exact `sample_rate_ratio`, two
integers), `num_samples`, `spike_samples` int64 sorted, `spike_units` int32 rows, `unit_ids`, and any number of columns
`unit_<name>`, one row a unit. `mask_samples` and `gap_samples` (M, 2) int64 are optional [start, stop) stretches:
stimulation or artefact, and data that were not recorded. `notes` are lines of text: what a reader left out and guessed.
Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.features.coupling import CouplingCounts
from nuclr_stream.features.isi import Int32Array, Intervals
from nuclr_stream.recordings.left_out import keep_good
from nuclr_stream.recordings.npz import Arrays, integers, rate_of, ratio, read_arrays, write_arrays
from nuclr_stream.recordings.recorded import NO_STRETCHES, Recorded, check_table, shared_arrays, shared_fields
from nuclr_stream.windows.binning import (
    MAX_SAMPLE,
    BoolArray,
    Float32Array,
    Grid,
    InputKind,
    Int64Array,
    WindowRules,
    WindowSpec,
    count,
    first_window_end,
    grid_of,
    rate_fits,
)
from nuclr_stream.windows.cutter import WindowCutter
from nuclr_stream.windows.interval_set import Stretches


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One probe in one session: N spikes of U units on a device clock of `sample_rate` samples per second.

    `units` holds columns of the unit table by name without the file's `unit_` prefix: `brain_region`, `cell_type`,
    `depth_um`, `shank`, ... Bin 0 begins at sample 0. Raises RecordingError on inconsistent content.
    """

    input_kind: ClassVar[InputKind] = "spikes"
    recording_id: str
    subject_id: str
    session_date: str = ""
    sample_rate: Fraction
    num_samples: int
    spike_samples: Int64Array
    spike_units: npt.NDArray[np.int32]
    unit_ids: npt.NDArray[np.str_]
    units: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    mask_samples: Int64Array = field(default_factory=lambda: NO_STRETCHES)
    gap_samples: Int64Array = field(default_factory=lambda: NO_STRETCHES)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self, self.recording_id or "recording")

    @property
    def duration_s(self) -> float:
        """Length in seconds on the device's clock."""
        return float(self.num_samples / self.sample_rate)

    @property
    def spikes_per_unit(self) -> Int64Array:
        """Spikes of every unit (U,) in the whole recording."""
        return np.bincount(self.spike_units, minlength=len(self.unit_ids)).astype(np.int64)

    def spikes(self, start: int, stop: int) -> tuple[Int64Array, Int64Array]:
        """Sample numbers (N,), ascending, and unit rows (N,) of the spikes in [start, stop)."""
        first, last = np.searchsorted(self.spike_samples, [start, stop])
        return self.spike_samples[first:last], self.spike_units[first:last].astype(np.int64)

    def counts(self, grid: Grid) -> Float32Array:
        """Spike counts (U, bins) in every whole bin of `grid` from sample 0 on."""
        return count(
            self.spike_samples,
            self.spike_units,
            units=len(self.unit_ids),
            grid=grid,
            first_bin=0,
            bins=grid.complete_bins(self.num_samples),
        )

    def save(self, path: Path) -> None:
        """Write the recording as .npz; the file appears whole or not at all."""
        own = {
            "sample_rate_ratio": ratio(self.sample_rate),
            "num_samples": np.int64(self.num_samples),
            "spike_samples": self.spike_samples,
            "spike_units": self.spike_units,
        }
        write_arrays(path, shared_arrays(self) | own)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a .npz in the layout of this module, without the few spikes that nothing can be done with.

        Raises RecordingError naming file, field, row and remedy.
        """
        arrays = read_arrays(path)
        _require(arrays, path)
        rate = rate_of(arrays, "sample_rate", path)
        length = int(integers(arrays["num_samples"], "num_samples", path).item())
        shared = shared_fields(arrays, path)
        samples, rows, left_out = _usable_spikes(arrays, path, length)
        try:
            return cls(
                **shared | {"notes": (*shared["notes"], *left_out)},
                sample_rate=rate,
                num_samples=length,
                spike_samples=samples,
                spike_units=rows,
            )
        except RecordingError as error:
            raise RecordingError(f"{path.name}: {error}") from None


@dataclass(frozen=True)
class RecordedWindow:
    """One window of a recording: bins [end_bin - T, end_bin), counts (U, T), active units (U,), the intervals (U, 17)
    that ended since the window before, the couplings (U, 54) counted since then, and the share of the window that is
    missing.

    `exclusion` says why it must not be embedded (see WindowRules.exclusion); empty when it may.
    """

    end_bin: int
    counts: Float32Array
    active: BoolArray
    intervals: Int32Array
    coupling: Int64Array
    missing: float
    exclusion: str


def recorded_windows(recording: Recorded, spec: WindowSpec, rules: WindowRules) -> Iterator[RecordedWindow]:
    """Yield every whole window of a recording in order, as the daemon cuts them: ends on multiples of the hop.

    Raises RecordingError when the windows are those of other input (`require_fit`).
    """
    require_fit(recording, spec)
    grid = grid_of(recording.sample_rate, spec)
    counts = recording.counts(grid)
    cutter = WindowCutter(spec, rules, grid)
    cutter.observed = observed_stretches(recording)
    for start, stop in recording.mask_samples.tolist():
        cutter.masked.add(start, stop)
    # a file lists the units that were there all along: each has existed since before the first bin
    everyone, since_ever = np.arange(len(counts)), np.full(len(counts), -cutter.bins_needed)
    intervals, coupling, taken_to = Intervals(recording.sample_rate), CouplingCounts(grid), 0
    for end in range(first_window_end(0, spec), counts.shape[1] + 1, spec.hop_bins):
        end_sample = grid.first_sample(end)
        spikes = recording.spikes(taken_to, end_sample)
        intervals.add(*spikes)
        coupling.add(*spikes)
        taken_to = end_sample
        window = cutter.cut(_last_bins(counts, end, cutter.bins_needed), end_bin=end, added_bin=since_ever)
        yield RecordedWindow(
            end_bin=end,
            counts=window.counts,
            active=window.active,
            intervals=intervals.take(end_sample, everyone, lambda rows: rows),
            coupling=coupling.take(grid.first_sample(end - spec.bins), end_sample, everyone, lambda rows: rows),
            missing=window.missing,
            exclusion=window.exclusion,
        )


def observed_stretches(recording: Recorded) -> Stretches:
    """Return the samples that were recorded: all of them but for the gaps."""
    observed, start = Stretches(), 0
    for gap_start, gap_stop in sorted(recording.gap_samples.tolist()):
        observed.add(start, min(gap_start, recording.num_samples))
        start = max(start, gap_stop)
    observed.add(start, recording.num_samples)
    return observed


def require_fit(recording: Recorded, spec: WindowSpec) -> None:
    """Raise RecordingError unless `recording` is of the kind and at a rate that windows of `spec` are cut from."""
    if recording.input_kind != spec.input_kind:
        raise RecordingError(
            f"{recording.recording_id}: holds {recording.input_kind}, the encoder takes {spec.input_kind}; "
            "choose a bundle or a config for them"
        )
    if not rate_fits(recording.sample_rate, spec):
        raise RecordingError(
            f"{recording.recording_id}: {float(recording.sample_rate):g} samples a second; the encoder takes "
            f"{spec.input_kind} at {float(spec.bins_per_second):g} bins a second"
        )


def _last_bins(counts: Float32Array, end: int, bins: int) -> Float32Array:
    """Return the `bins` bins (U, bins) before bin `end`, zero where they lie before the first."""
    if end >= bins:
        return counts[:, end - bins : end]
    return np.pad(counts[:, :end], ((0, 0), (bins - end, 0)))


def _require(arrays: Arrays, path: Path) -> None:
    needed = ["recording_id", "subject_id", "num_samples", "spike_samples", "spike_units", "unit_ids"]
    missing = [name for name in needed if name not in arrays]
    if missing or not {"sample_rate_hz", "sample_rate_ratio"} & set(arrays):
        raise RecordingError(f"{path.name}: field {', '.join(missing) or 'sample_rate_hz'} is missing")
    if arrays["num_samples"].size != 1:
        raise RecordingError(f"{path.name}: field num_samples has shape {arrays['num_samples'].shape}, not one number")


def _usable_spikes(
    arrays: Arrays, path: Path, length: int
) -> tuple[Int64Array, npt.NDArray[np.int32], tuple[str, ...]]:
    """Samples and unit rows (N,) of the spikes inside [0, length) that name a unit, and what was left out."""
    samples = integers(arrays["spike_samples"], "spike_samples", path).astype(np.int64)
    rows = integers(arrays["spike_units"], "spike_units", path)
    if samples.ndim != 1 or rows.shape != samples.shape:
        return samples, rows.astype(np.int32), ()  # Recording says what is wrong with them
    notes: list[str] = []
    units = arrays["unit_ids"].size
    keep = keep_good(
        (rows < 0) | (rows >= units),
        what=f"{path.name}: field spike_units: {{}} spikes",
        why=f"name no row of the {units} unit_ids",
        first=rows,
        remedy="write spike_units and unit_ids from one sorting",
        notes=notes,
    )
    samples, rows = samples[keep], rows[keep]
    keep = keep_good(
        (samples < 0) | (samples >= length),
        what=f"{path.name}: field spike_samples: {{}} spikes",
        why=f"lie outside [0, num_samples = {length})",
        first=samples,
        remedy="write samples counted from the first recorded one, and num_samples after the last",
        notes=notes,
    )
    return samples[keep], rows[keep].astype(np.int32), tuple(notes)


def _check(recording: Recording, where: str) -> None:
    samples, rows = recording.spike_samples, recording.spike_units
    if samples.ndim != 1 or rows.shape != samples.shape:
        raise RecordingError(
            f"{where}: spike_samples {samples.shape} and spike_units {rows.shape} must have one length"
        )
    check_table(recording, where)
    _check_spikes(recording, where)


def _check_spikes(recording: Recording, where: str) -> None:
    samples, rows, units = recording.spike_samples, recording.spike_units, len(recording.unit_ids)
    if not 0 < recording.num_samples <= MAX_SAMPLE:
        raise RecordingError(f"{where}: num_samples is {recording.num_samples}; it must be positive and at most 2**53")
    if not samples.size:
        return
    back = np.flatnonzero(np.diff(samples) < 0)
    if back.size:
        row = int(back[0]) + 1
        raise RecordingError(
            f"{where}: spike_samples: row {row} ({samples[row]}) is before row {row - 1}; sort spike_samples and "
            "spike_units by sample together"
        )
    if samples[0] < 0 or samples[-1] >= recording.num_samples:
        row = 0 if samples[0] < 0 else int(np.searchsorted(samples, recording.num_samples))
        raise RecordingError(
            f"{where}: spike_samples: row {row} is {samples[row]}, outside [0, num_samples = {recording.num_samples})"
        )
    for start, stop in recording.gap_samples.tolist():
        first, last = np.searchsorted(samples, [start, stop])
        if last > first:
            raise RecordingError(
                f"{where}: spike_samples: row {first} lies in the gap [{start}, {stop}): remove either"
            )
    outside = np.flatnonzero((rows < 0) | (rows >= units))
    if outside.size:
        row = int(outside[0])
        raise RecordingError(f"{where}: spike_units: row {row} is {rows[row]}, but there are {units} units")
