"""What outlives the process: the record of predictions and the snapshots of streams, where settings ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from nuclr_stream.config import Settings
from nuclr_stream.daemon.recording import RecordThread
from nuclr_stream.daemon.saving import Saver, taken
from nuclr_stream.daemon.streams import Stream, Streams
from nuclr_stream.daemon.worker import LabelDone

TROUBLES = {
    "not_recorded": "predictions are not recorded: see the log",
    "not_saved": "snapshots are not written: see the log",
}
"""What can go wrong with it, as a reason of every stream's state and in words for /readyz."""


class Keeping:
    """Owned by the main loop, which it never holds up; `stack` closes it.

    Raises NuclrStreamError when the record file or the folder of snapshots cannot be used.
    """

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._record = self._saver = None
        if settings.record:
            self._record = RecordThread(Path(settings.record))
            stack.callback(self._record.close)
        if settings.snapshots:
            self._saver = Saver(Path(settings.snapshots), every_s=settings.snapshot_s)
            stack.callback(self._saver.close)

    def restore(self, streams: Streams, now_ns: int) -> None:
        """Bring back the streams that were saved."""
        if self._saver is not None:
            self._saver.restore(streams, now_ns)

    def prepare(self, stream: Stream, now_ns: int) -> None:
        """Decide whether the windows that a stream is about to cut carry its state, to be saved."""
        stream.saving = self._saver is not None and self._saver.wants(stream.name, now_ns)

    def published(self, done: LabelDone, frames: Sequence[bytes], now_ns: int) -> None:
        """Record predictions, and save the state behind them if they carry it."""
        if self._record is not None:
            self._record.write(frames)
        if self._saver is not None and done.checkpoint is not None and done.model_side is not None:
            self._saver.save(done.stream.name, taken(done.stream, done.checkpoint, done.model_side), now_ns)

    def forget(self, streams: Streams) -> None:
        """Delete the snapshots of streams that gave up their place."""
        while streams.forgotten:
            name = streams.forgotten.pop()
            if self._saver is not None:
                self._saver.forget(name)

    def save_last(self, streams: Streams, now_ns: int) -> None:
        """Save every stream as it is now, where nothing of it is still to be labelled; else its last state stands."""
        for stream in streams:
            if self._saver is not None and not stream.in_work:
                state = taken(stream, stream.labeler.population.dump(), stream.labeler.dump_model_side())
                self._saver.save(stream.name, state, now_ns)

    def troubles(self, now_ns: int) -> tuple[str, ...]:
        """Return which of TROUBLES there are now."""
        found = []
        if self._record is not None and self._record.failing(now_ns):
            found.append("not_recorded")
        if self._saver is not None and self._saver.failing(now_ns):
            found.append("not_saved")
        return tuple(found)

    @property
    def not_recorded(self) -> int:
        """How many predictions the record lacks."""
        return 0 if self._record is None else self._record.lost

    @property
    def snapshot_figures(self) -> dict[str, float]:
        """How saving goes, by the names of the metrics."""
        return {} if self._saver is None else self._saver.figures.by_name
