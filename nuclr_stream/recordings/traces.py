"""TraceRecording: one population of imaged cells in one session, as traces and a unit table; and its .npz layout.

The file holds `recording_id`, `subject_id`, `session_date`, `frame_rate_hz` (or the exact `frame_rate_ratio`, two
integers), `traces` float32 (U, T) such as dF/F, finite, `unit_ids`, and any number of columns `unit_<name>`, one row a
unit. `mask_samples` and `gap_samples` (M, 2) int64 are optional [start, stop) stretches of frames: artefact, and frames
that were not recorded. `notes` are lines of text: what a reader left out and guessed. Nothing is ever unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.left_out import MOST_UNITS, keep_good
from nuclr_stream.recordings.npz import Arrays, rate_of, ratio, read_arrays, write_arrays
from nuclr_stream.recordings.recorded import NO_STRETCHES, check_table, shared_arrays, shared_fields
from nuclr_stream.windows.binning import BoolArray, Float32Array, Grid, InputKind, Int64Array


@dataclass(frozen=True, kw_only=True)
class TraceRecording:
    """Traces (U, T) float32 of U units on a frame clock of `frame_rate` frames per second; frame 0 is bin 0.

    `units` holds columns of the unit table by name, like those of a Recording. Frames within `gap_samples` count as not
    recorded whatever stands there. Raises RecordingError on inconsistent content.
    """

    input_kind: ClassVar[InputKind] = "traces"
    recording_id: str
    subject_id: str
    session_date: str = ""
    frame_rate: Fraction
    traces: Float32Array
    unit_ids: npt.NDArray[np.str_]
    units: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    mask_samples: Int64Array = field(default_factory=lambda: NO_STRETCHES)
    gap_samples: Int64Array = field(default_factory=lambda: NO_STRETCHES)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = self.recording_id or "recording"
        check_table(self, where)
        shape, units = self.traces.shape, len(self.unit_ids)
        if len(shape) != 2 or shape[0] != units or not shape[1] or self.traces.dtype != np.float32:
            raise RecordingError(
                f"{where}: traces is {self.traces.dtype} {shape}; float32 ({units} units, frames) is needed"
            )
        bad = np.argwhere(~np.isfinite(self.traces))
        if len(bad):
            unit, frame = bad[0].tolist()
            raise RecordingError(
                f"{where}: traces: {len(bad)} values are not finite, the first at unit {str(self.unit_ids[unit])!r}, "
                f"frame {frame}; leave the unit out, or set the frames to 0 and name them in gap_samples"
            )

    @property
    def sample_rate(self) -> Fraction:
        """The frame rate: a sample is a frame."""
        return self.frame_rate

    @property
    def num_samples(self) -> int:
        """Frames."""
        return int(self.traces.shape[1])

    @property
    def duration_s(self) -> float:
        """Length in seconds on the frame clock."""
        return float(self.num_samples / self.frame_rate)

    @property
    def observed(self) -> BoolArray:
        """Which frames (T,) were recorded and are not masked."""
        usable = np.ones(self.num_samples, dtype=bool)
        for start, stop in np.concatenate([self.gap_samples, self.mask_samples]).tolist():
            usable[max(start, 0) : max(stop, 0)] = False
        return usable

    def counts(self, grid: Grid) -> Float32Array:
        """Values (U, T), one frame a bin, zero in the gaps. Raises RecordingError for any other grid."""
        if grid.sample_rate != grid.bins_per_second or grid.origin:
            raise RecordingError(f"{self.recording_id}: a frame is a bin; {grid} would mix frames")
        if not len(self.gap_samples):
            return self.traces
        values = self.traces.copy()
        for start, stop in self.gap_samples.tolist():
            values[:, max(start, 0) : max(stop, 0)] = 0
        return values

    def spikes(self, start: int, stop: int) -> tuple[Int64Array, Int64Array]:
        """No spikes, whatever the stretch: traces have none."""
        none: Int64Array = np.zeros(0, dtype=np.int64)
        return none, none

    def percentile(self, quantile: float) -> float:
        """The exact quantile over all units and observed frames: the published normaliser, which knows the future.

        Raises RecordingError when it is not above 0: nothing could be divided by it.
        """
        values = self.traces[:, self.observed]
        found = float(np.quantile(values, quantile)) if values.size else 0.0
        if not found > 0:
            raise RecordingError(
                f"{self.recording_id}: the {quantile:g} quantile of traces is {found:g}; dF/F with transients above 0 "
                "is needed"
            )
        return found

    def save(self, path: Path) -> None:
        """Write the recording as .npz; the file appears whole or not at all."""
        own = {"frame_rate_ratio": ratio(self.frame_rate), "traces": self.traces}
        write_arrays(path, shared_arrays(self) | own)

    @classmethod
    def load(cls, path: Path) -> TraceRecording:
        """Read a .npz in the layout of this module. Raises RecordingError naming file, field, row and remedy."""
        return _trace_recording(read_arrays(path), path)


def _trace_recording(arrays: Arrays, path: Path) -> TraceRecording:
    missing = [name for name in ("recording_id", "subject_id", "traces", "unit_ids") if name not in arrays]
    if missing or not {"frame_rate_hz", "frame_rate_ratio"} & set(arrays):
        raise RecordingError(f"{path.name}: field {', '.join(missing) or 'frame_rate_hz'} is missing")
    if not np.issubdtype(arrays["traces"].dtype, np.floating):
        raise RecordingError(f"{path.name}: field traces has type {arrays['traces'].dtype}; float32 dF/F is needed")
    shared, rate = shared_fields(arrays, path), rate_of(arrays, "frame_rate", path)
    traces, ids, columns = arrays["traces"].astype(np.float32), shared["unit_ids"], shared["units"]
    notes: list[str] = []
    # Units can be left out only where there is a row of everything for each; the check of TraceRecording says what is
    # wrong with any other table.
    rows = (c for c in columns.values() if c.ndim)
    if traces.ndim == 2 and traces.shape[:1] == ids.shape and all(len(c) == len(ids) for c in rows):
        finite: BoolArray = np.isfinite(traces)
        bad = np.argwhere(~finite)
        first = f"unit {str(ids[bad[0, 0]])!r} at frame {bad[0, 1]}" if len(bad) else ""
        keep = keep_good(
            np.asarray(~finite.all(axis=1)),
            what=f"{path.name}: field traces: {{}} units",
            why="have values that are not finite",
            first=first,
            remedy="leave these units out, or set the frames to 0 and name them in gap_samples",
            notes=notes,
            most=MOST_UNITS,
        )
        traces, ids, columns = traces[keep], ids[keep], {name: c[keep] for name, c in columns.items() if c.ndim}
    usable = {"unit_ids": ids, "units": columns, "notes": (*shared["notes"], *notes)}
    try:
        return TraceRecording(**shared | usable, frame_rate=rate, traces=traces)
    except RecordingError as error:
        raise RecordingError(f"{path.name}: {error}") from None
