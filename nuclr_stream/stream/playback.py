"""A recording as the messages that a live source would have sent: replay sends them, `label` takes them in process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.recorded import Recorded
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.wire import (
    End,
    Heartbeat,
    Input,
    MaskInterval,
    SpikeBatch,
    TraceBatch,
    UnitAction,
    UnitTable,
)

MAX_SPIKES = 32_768
"""Most spikes of one message; a block with more is cut in time."""
MAX_VALUES = 131_072
"""Most values of one message of traces; it holds all units, and at least one frame."""


def recording_messages(
    recording: Recording | TraceRecording, *, stream: str, block_samples: int, epoch: int = 0, start: int = 0
) -> Iterator[Input]:
    """Yield a recording as messages: unit table, a SpikeBatch or TraceBatch per block of at most `block_samples`, End.

    A mask comes before the data of the block in which it begins. Unit indices are the rows of the recording. Nothing
    is sent for the recording's gaps: they show as missing samples. Any block length gives the same predictions. With
    `start` it begins at that sample, as a source does that joins late.
    """
    header: dict[str, Any] = {"stream": stream, "epoch": epoch, "sample_rate": recording.sample_rate, "origin": 0}
    yield unit_table(recording, header)
    # the first window begins at sample `start`, whatever comes first
    yield Heartbeat(**header, seq=1, start=start, stop=start)
    seq = 2
    masks = deque(sorted(mask for mask in recording.mask_samples.tolist() if mask[1] > start))
    for first, stop in _blocks(recording, block_samples, start):
        while masks and masks[0][0] < stop:
            mask_start, mask_stop = masks.popleft()
            yield MaskInterval(**header, seq=seq, start=mask_start, stop=mask_stop, cause="mask")
            seq += 1
        yield _batch(recording, header | {"seq": seq, "table_version": 0}, first, stop)
        seq += 1
    for mask_start, mask_stop in masks:
        yield MaskInterval(**header, seq=seq, start=mask_start, stop=mask_stop, cause="mask")
        seq += 1
    yield End(**header, seq=seq, sample=recording.num_samples)


def _batch(
    recording: Recording | TraceRecording, header: dict[str, Any], start: int, stop: int
) -> SpikeBatch | TraceBatch:
    if isinstance(recording, TraceRecording):
        units = np.arange(len(recording.unit_ids), dtype=np.uint32)
        return TraceBatch(**header, first_frame=start, units=units, values=recording.traces[:, start:stop])
    first, last = np.searchsorted(recording.spike_samples, [start, stop])
    samples, units = recording.spike_samples[first:last], recording.spike_units[first:last].astype(np.uint32)
    return SpikeBatch(**header, start=start, stop=stop, samples=samples, units=units)


def unit_table(recording: Recorded, header: dict[str, Any]) -> UnitTable:
    """Return the whole unit table of a recording, its units there since sample 0."""
    units = len(recording.unit_ids)
    return UnitTable(
        **header,
        seq=0,
        version=0,
        full=True,
        sample=0,
        action=np.full(units, UnitAction.ADD, dtype=np.uint8),
        index=np.arange(units, dtype=np.uint32),
        into=np.zeros(units, dtype=np.uint32),
        added=np.zeros(units, dtype=np.int64),
        shank=_column(recording, "shank", -1, np.int32),
        x_um=_column(recording, "x_um", np.nan, np.float32),
        depth_um=_column(recording, "depth_um", np.nan, np.float32),
        channel=_column(recording, "channel", -1, np.int32),
        unit_ids=tuple(recording.unit_ids.tolist()),
    )


def _column(recording: Recorded, name: str, unknown: float, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    values = recording.units.get(name, np.full(len(recording.unit_ids), unknown))
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.number):
        raise RecordingError(
            f"{recording.recording_id}: unit_{name} is {values.dtype} {values.shape}, not numbers (U,)"
        )
    return np.where(np.isfinite(values), values, unknown).astype(dtype)


def _blocks(recording: Recording | TraceRecording, block_samples: int, start: int) -> Iterator[tuple[int, int]]:
    """Yield the [start, stop) stretches to send: blocks on multiples of the length, cut at gaps and at much data."""
    for gap_start, gap_stop in [
        *sorted(recording.gap_samples.tolist()),
        [recording.num_samples, recording.num_samples],
    ]:
        while start < gap_start:
            stop = _fitting(recording, start, min(gap_start, (start // block_samples + 1) * block_samples))
            yield start, stop
            start = stop
        start = max(start, gap_stop)


def _fitting(recording: Recording | TraceRecording, start: int, stop: int) -> int:
    """Return how far towards `stop` one message can reach."""
    if isinstance(recording, TraceRecording):
        return min(stop, start + max(1, MAX_VALUES // len(recording.unit_ids)))
    first, last = np.searchsorted(recording.spike_samples, [start, stop])
    return max(int(recording.spike_samples[first + MAX_SPIKES]), start + 1) if last - first > MAX_SPIKES else stop
