"""Writes the record in a thread of its own: a disk that is slow or full costs records, never predictions."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from nuclr_stream.daemon.records import RecordWriter

QUEUE_BYTES = 2**26
"""What may wait for the disk; more is lost and counted."""
FAILING_FOR_NS = 10 * 10**9
"""For so long after the last loss the daemon says that it does not record."""

log = logging.getLogger(__name__)


class RecordThread:
    """Takes messages without waiting. `lost` counts those that were not recorded, for a full queue or an error.

    Raises NuclrStreamError if the file is something else, or another daemon writes it.
    """

    def __init__(self, path: Path) -> None:
        self._writer = RecordWriter(path)
        self._queue: deque[Sequence[bytes]] = deque()
        self._queued_bytes = 0
        self.lost = 0
        self._reported_lost = 0
        self._lost_ns: int | None = None
        self._error = ""
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def write(self, frames: Sequence[bytes]) -> None:
        """Have a message appended; it is counted as lost when too much waits already."""
        size = sum(map(len, frames))
        with self._changed:
            if self._queued_bytes + size > QUEUE_BYTES:
                self._lose(1, "the disk is too slow")
                return
            self._queue.append(frames)
            self._queued_bytes += size
            self._changed.notify()

    def failing(self, now_ns: int) -> bool:
        """Whether anything was lost in the last seconds; to be asked regularly."""
        if self.lost != self._reported_lost:
            self._reported_lost, self._lost_ns = self.lost, now_ns
        return self._lost_ns is not None and now_ns - self._lost_ns < FAILING_FOR_NS

    def close(self, *, wait_s: float = 1.0) -> None:
        """Write what waits, for so long at most; the rest is lost, and the log says how much."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(wait_s)
        if self._thread.is_alive():
            with self._changed:
                log.warning("%s predictions not recorded: the disk is too slow", len(self._queue))
                self._queue.clear()
        else:
            self._writer.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                frames = self._queue.popleft()
            error = ""
            try:
                self._writer.write(frames)
            except (OSError, ValueError) as caught:
                error = str(caught)
            with self._changed:
                self._queued_bytes -= sum(map(len, frames))
                if error:
                    self._lose(1, error)
                elif self._error:
                    self._error = ""
                    log.warning("predictions are recorded again; %s were lost", self.lost)

    def _lose(self, messages: int, error: str) -> None:
        self.lost += messages
        if error != self._error:  # once for each cause, not for each message
            self._error = error
            log.warning("predictions are not recorded: %s", error)
