"""The one inference thread. In front of it the newest windows of every stream wait, and a few requests of clients."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

from nuclr_stream.daemon.streams import Stream
from nuclr_stream.stream.labeler import Labelled
from nuclr_stream.stream.window import Window
from nuclr_stream.wire import EmbedWindowReply, ErrorReply, PlacementReply

BURST_WINDOWS = 16
"""How many windows that closed at once may wait: they are large."""

Answer: TypeAlias = EmbedWindowReply | PlacementReply | ErrorReply
Ask: TypeAlias = Callable[[], Answer]


@dataclass(frozen=True)
class LabelDone:
    """A window of `stream` was labelled in `label_s` seconds.

    Where a snapshot was wanted, `checkpoint` and `model_side` are the two sides of the state after that window.
    """

    stream: Stream
    labelled: Labelled
    label_s: float
    checkpoint: Mapping[str, Any] | None = None
    model_side: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class AskDone:
    """What client `identity` asked for is there."""

    identity: bytes
    reply: Answer


@dataclass(frozen=True)
class _LabelJob:
    stream: Stream
    window: Window

    def run(self) -> LabelDone:
        start = time.perf_counter()
        labelled = self.stream.labeler.label(self.window)
        label_s = time.perf_counter() - start
        checkpoint = self.window.checkpoint
        # here, between two windows: nobody else may read what this thread changes
        model_side = None if checkpoint is None else self.stream.labeler.dump_model_side()
        return LabelDone(self.stream, labelled, label_s, checkpoint, model_side)


@dataclass(frozen=True)
class _AskJob:
    identity: bytes
    ask: Ask

    def run(self) -> AskDone:
        return AskDone(self.identity, self.ask())


def _superseded(older: Window, newer: Window) -> Window:
    return newer.superseding(older)


class Worker:
    """Runs one job at a time in its own thread; everything else here belongs to the thread that calls.

    `wake` is called, from the inference thread, whenever a job is done.
    """

    def __init__(self, wake: Callable[[], None], *, embed_queue: int) -> None:
        self._wake = wake
        self._ask_queue = embed_queue
        self._windows: dict[str, deque[_LabelJob]] = {}
        self._asks: deque[_AskJob] = deque()
        self._running: tuple[_LabelJob | _AskJob, Future[LabelDone | AskDone]] | None = None
        self._ask_next = False
        self._executor = ThreadPoolExecutor(1, "inference")

    def label(self, stream: Stream, windows: Iterable[Window]) -> int:
        """Have the windows that one message closed labelled, in order. Returns how many steps are skipped for it.

        Windows of earlier messages that still wait are overtaken: the newest win. Several windows close at once only
        behind a gap; all of them are labelled, up to BURST_WINDOWS, unless the next message overtakes them too.
        """
        # The newest win because a queue would grow for as long as a machine is too slow, and every prediction would be
        # later than the one before. What is overtaken is not lost to the units: its changes of the unit table and its
        # intervals go into the window that takes its place (Window.superseding).
        waiting = self._windows.get(stream.name, deque())
        overtaken = [job.window for job in waiting]
        queue: deque[Window] = deque()
        skipped = 0
        for window in windows:
            if len(queue) == BURST_WINDOWS:
                oldest = queue.popleft()
                queue[0] = queue[0].superseding(oldest)
                skipped += 1
            queue.append(reduce(_superseded, [*overtaken, window]))
            skipped += len(overtaken)
            overtaken = []
        if queue:
            stream.in_work += len(queue) - len(waiting)
            self._windows[stream.name] = deque(_LabelJob(stream, window) for window in queue)
            self._start()
        return skipped

    def answer(self, identity: bytes, ask: Ask) -> bool:
        """Have what a client asked for computed; False when too many wait already."""
        if len(self._asks) >= self._ask_queue:
            return False
        self._asks.append(_AskJob(identity, ask))
        self._start()
        return True

    def done(self, timeout_s: float = 0.0) -> LabelDone | AskDone | None:
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
            if future.exception() is not None:
                job.stream.note_failed(time.monotonic_ns())
        self._start()
        return future.result()

    def stop(self) -> None:
        """Start nothing more; what runs is left to finish."""
        for jobs in self._windows.values():
            for job in jobs:
                job.stream.in_work -= 1
        self._windows.clear()
        self._asks.clear()

    def close(self) -> None:
        """Let the thread go; does not wait for it."""
        self.stop()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        if self._running is not None or not (self._windows or self._asks):
            return
        job: _LabelJob | _AskJob
        if self._asks and (self._ask_next or not self._windows):
            job = self._asks.popleft()
        else:
            name = next(iter(self._windows))
            jobs = self._windows.pop(name)
            job = jobs.popleft()
            if jobs:
                self._windows[name] = jobs  # behind the other streams
        self._ask_next = not isinstance(job, _AskJob)  # by turns: neither keeps the other waiting for ever
        future: Future[LabelDone | AskDone] = self._executor.submit(job.run)
        self._running = job, future
        future.add_done_callback(lambda _: self._wake())
