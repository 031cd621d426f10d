"""Saves the state of every stream while the daemon runs, and brings it back when it starts. A thread of its own writes.

A state is a consistent whole: what the population was right after a window was cut, and what the model's side knew
after that very window. The loop and the inference thread only copy; packing, writing and waiting for the disk happen
here, and a disk that is slow or full costs snapshots, never predictions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuclr_stream.daemon.streams import Stream, Streams
from nuclr_stream.errors import SnapshotError
from nuclr_stream.snapshots.folder import SnapshotFolder

MAX_WRITE_BYTES_PER_S = 8 * 2**20
"""On average no more than this is written: large states are saved less often. Sources replay what came since."""
FAILING_AFTER_NS = 10 * 10**9
"""When nothing could be saved for so long although something was to be, the daemon says so."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SaverFigures:
    """How saving goes: snapshots written, their bytes and seconds in all, how many failed, and why the last one did."""

    written: int = 0
    bytes: int = 0
    seconds: float = 0.0
    failed: int = 0
    error: str = ""

    @property
    def by_name(self) -> dict[str, float]:
        """The figures as metrics name them."""
        return {"s": self.written, "_bytes": self.bytes, "_seconds": self.seconds, "_errors": self.failed}


class Saver:
    """Writes states into a folder, the newest of each stream. `figures` is replaced as a whole, never changed.

    Raises NuclrStreamError when the folder cannot be used.
    """

    def __init__(self, path: Path, *, every_s: float) -> None:
        self._folder = SnapshotFolder(path)
        self._every_ns = int(every_s * 1e9)
        self.figures = SaverFigures()
        self._taken_ns: dict[str, int] = {}
        self._waiting: dict[str, Mapping[str, Any]] = {}
        self._unsaved_since_ns: int | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)

    def restore(self, streams: Streams, now_ns: int) -> None:
        """Bring back the streams that were saved under the same bundle and settings, then begin to write.

        What cannot be used is logged with its reason, and the older generation taken, or nothing.
        """
        kept = sorted(self._folder.read(), key=lambda found: -_saved_ns(found[1]))
        for name, generations in kept:
            for state, why in generations:
                why = why or _load(streams, name, state, now_ns)
                if not why:
                    age_s = (time.time_ns() - state["saved_unix_ns"]) / 1e9
                    log.info("stream %r goes on from its snapshot of %.1f s ago", name, age_s)
                    break
                log.warning("snapshot of stream %r not used: %s", name or "?", why)
            else:
                log.warning("stream %r starts anew: no snapshot of it can be used", name or "?")
        self._thread.start()

    def wants(self, stream: str, now_ns: int) -> bool:
        """Whether the state of a stream should be taken now: it is time, and the one before has been written."""
        if now_ns - self._taken_ns.get(stream, -self._every_ns) < self._every_ns:
            return False
        with self._changed:
            return stream not in self._waiting

    def save(self, stream: str, state: Mapping[str, Any], now_ns: int) -> None:
        """Have a state written in the place of one that still waits."""
        self._taken_ns[stream] = now_ns
        with self._changed:
            self._waiting[stream] = state
            if self._unsaved_since_ns is None:
                self._unsaved_since_ns = now_ns
            self._changed.notify()

    def forget(self, stream: str) -> None:
        """Keep nothing of a stream that gave up its place."""
        self._taken_ns.pop(stream, None)
        with self._changed:
            self._waiting.pop(stream, None)
        self._folder.forget(stream)

    def failing(self, now_ns: int) -> bool:
        """Whether states have been waiting for the disk for too long."""
        since = self._unsaved_since_ns
        return since is not None and now_ns - since > FAILING_AFTER_NS

    def close(self, *, wait_s: float = 0.5) -> None:
        """Write what waits, for so long at most, and let the folder go."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(wait_s)
        self._folder.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                stream = next(iter(self._waiting))
                state = self._waiting[stream]
            start = time.monotonic()
            size = self._write(stream, state)
            with self._changed:
                if self._waiting.get(stream) is state:
                    del self._waiting[stream]  # only now: until then no newer one is taken
                # the average rate: whoever wants to close does not wait for it
                pause_s = size / MAX_WRITE_BYTES_PER_S - (time.monotonic() - start)
                self._changed.wait_for(lambda: self._closing, max(pause_s, 0.0))

    def _write(self, stream: str, state: Mapping[str, Any]) -> int:
        """Write one state; returns its bytes, 0 if it could not be written."""
        start, before = time.monotonic(), self.figures
        try:
            size = self._folder.write(stream, {**state, "saved_unix_ns": time.time_ns()})
        except Exception as error:  # whatever it is, predictions go on
            self.figures = SaverFigures(
                before.written, before.bytes, before.seconds, before.failed + 1, f"{type(error).__name__}: {error}"
            )
            if before.error != self.figures.error:
                log.warning("snapshot of stream %r not written: %s", stream, error)
            with self._changed:
                self._changed.wait_for(lambda: self._closing, self._every_ns / 1e9)
            return 0
        seconds = time.monotonic() - start
        self.figures = SaverFigures(before.written + 1, before.bytes + size, before.seconds + seconds, before.failed)
        if before.error:
            log.warning("snapshots are written again")
        self._unsaved_since_ns = None
        return size


def taken(stream: Stream, checkpoint: Mapping[str, Any], model_side: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole state of a stream after the window that `checkpoint` belongs to."""
    return {
        "fingerprint": stream.labeler.fingerprint,
        "population": checkpoint,
        "model_side": model_side,
        "daemon": stream.dump(),
    }


def _load(streams: Streams, name: str, state: Mapping[str, Any], now_ns: int) -> str:
    """Bring one stream back; returns why that is not possible, or an empty string."""
    try:
        return streams.restore(name, state, now_ns)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, SnapshotError) as error:
        return f"its content is not that of this release ({type(error).__name__}: {error})"


def _saved_ns(generations: list[tuple[Any, str]]) -> int:
    return max((state["saved_unix_ns"] for state, why in generations if not why), default=0)
