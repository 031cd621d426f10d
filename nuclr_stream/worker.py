"""The one inference thread. In front of it the newest window of every stream waits, and a few requests of clients."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from nuclr_stream.labeler import Labelled
from nuclr_stream.population import Window
from nuclr_stream.streams import Stream
from nuclr_stream.wire import EmbedWindowReply, ErrorReply

Embed: TypeAlias = Callable[[], EmbedWindowReply | ErrorReply]


@dataclass(frozen=True)
class LabelDone:
    """A window of `stream` was labelled in `label_s` seconds."""

    stream: Stream
    labelled: Labelled
    label_s: float


@dataclass(frozen=True)
class EmbedDone:
    """The window of client `identity` was embedded."""

    identity: bytes
    reply: EmbedWindowReply | ErrorReply


@dataclass(frozen=True)
class _LabelJob:
    stream: Stream
    window: Window

    def run(self) -> LabelDone:
        start = time.perf_counter()
        labelled = self.stream.labeler.label(self.window)
        return LabelDone(self.stream, labelled, time.perf_counter() - start)


@dataclass(frozen=True)
class _EmbedJob:
    identity: bytes
    embed: Embed

    def run(self) -> EmbedDone:
        return EmbedDone(self.identity, self.embed())


class Worker:
    """Runs one job at a time in its own thread; everything else here belongs to the thread that calls.

    `wake` is called, from the inference thread, whenever a job is done.
    """

    def __init__(self, wake: Callable[[], None], *, embed_queue: int) -> None:
        self._wake = wake
        self._embed_queue = embed_queue
        self._windows: dict[str, _LabelJob] = {}
        self._embeds: deque[_EmbedJob] = deque()
        self._running: tuple[_LabelJob | _EmbedJob, Future[LabelDone | EmbedDone]] | None = None
        self._embed_next = False
        self._executor = ThreadPoolExecutor(1, "inference")

    def label(self, stream: Stream, window: Window) -> int:
        """Have a window labelled; it takes the place of one that still waits. Returns how many steps were skipped."""
        waiting = self._windows.get(stream.name)
        if waiting is not None:
            window = window.superseding(waiting.window)
        else:
            stream.in_work += 1
        self._windows[stream.name] = _LabelJob(stream, window)
        self._start()
        return 0 if waiting is None else 1

    def embed(self, identity: bytes, embed: Embed) -> bool:
        """Have a client's window embedded; False when too many wait already."""
        if len(self._embeds) >= self._embed_queue:
            return False
        self._embeds.append(_EmbedJob(identity, embed))
        self._start()
        return True

    def done(self, timeout_s: float = 0.0) -> LabelDone | EmbedDone | None:
        """Return the next finished job, or None. Raises what the job raised."""
        if self._running is None:
            return None
        job, future = self._running
        if timeout_s:
            future.exception(timeout_s)
        elif not future.done():
            return None
        self._running = None
        if isinstance(job, _LabelJob):
            job.stream.in_work -= 1
        self._start()
        return future.result()

    def stop(self) -> None:
        """Start nothing more; what runs is left to finish."""
        self._windows.clear()
        self._embeds.clear()

    def close(self) -> None:
        """Let the thread go; does not wait for it."""
        self.stop()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        if self._running is not None or not (self._windows or self._embeds):
            return
        job: _LabelJob | _EmbedJob
        if self._embeds and (self._embed_next or not self._windows):
            job = self._embeds.popleft()
        else:
            job = self._windows.pop(next(iter(self._windows)))
        self._embed_next = not isinstance(job, _EmbedJob)  # by turns: neither keeps the other waiting for ever
        future: Future[LabelDone | EmbedDone] = self._executor.submit(job.run)
        self._running = job, future
        future.add_done_callback(lambda _: self._wake())
