"""The one inference thread. In front of it the newest windows of every stream wait; clients get what time is left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Any

from nuclr_stream.daemon.asks import NEVER_NS, Ask, AskDone, Asks
from nuclr_stream.daemon.streams import Stream
from nuclr_stream.stream.labeler import Labelled
from nuclr_stream.stream.window import Window

BURST_WINDOWS = 16
"""How many windows that closed at once may wait: they are large."""


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


def _superseded(older: Window, newer: Window) -> Window:
    return newer.superseding(older)


class Worker:
    """Runs one job at a time in its own thread; everything else here belongs to the thread that calls.

    `wake` is called, from the inference thread, whenever a job is done.
    """

    def __init__(self, wake: Callable[[], None], *, embed_queue: int) -> None:
        self._wake = wake
        self._windows: dict[str, deque[_LabelJob]] = {}
        self._asks = Asks(embed_queue)
        self._expired: deque[AskDone] = deque()
        self._due: dict[str, int] = {}  # when the next window of a stream can be expected, monotonic ns
        self._running: tuple[_LabelJob | Ask, Future[LabelDone | AskDone]] | None = None
        self._started_ns = 0
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
            self._due[stream.name] = time.monotonic_ns() + int(stream.hop_s * 1e9)
            self._windows[stream.name] = deque(_LabelJob(stream, window) for window in queue)
            self._start()
        return skipped

    def answer(self, ask: Ask) -> Ask | None:
        """Have what a client asked for computed when no live step waits; returns the request that has no place now."""
        turned_away = self._asks.add(ask)
        self._start()
        return turned_away

    @property
    def start_ns(self) -> int:
        """When `done` is to be called again for a request that waits for idle time, monotonic ns."""
        if self._running is not None:
            return NEVER_NS
        now_ns = time.monotonic_ns()
        return self._asks.start_ns(now_ns, self._next_due_ns(now_ns))

    def done(self, timeout_s: float = 0.0) -> LabelDone | AskDone | None:
        """Return the next finished job, or None. Raises what the job raised."""
        self._expired += self._asks.expired(time.monotonic_ns())
        if self._expired:
            return self._expired.popleft()
        if self._running is None:
            self._start()
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
        else:
            self._asks.took(job, time.monotonic_ns() - self._started_ns)
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
        if self._running is not None:
            return
        self._started_ns = now_ns = time.monotonic_ns()
        job: _LabelJob | Ask | None
        if self._windows:  # always before requests of clients: those can wait
            name = next(iter(self._windows))
            jobs = self._windows.pop(name)
            job = jobs.popleft()
            if jobs:
                self._windows[name] = jobs  # behind the other streams
        else:
            job = self._asks.next(now_ns, self._next_due_ns(now_ns))
        if job is None:
            return
        future: Future[LabelDone | AskDone] = self._executor.submit(job.run)
        self._running = job, future
        future.add_done_callback(lambda _: self._wake())

    def _next_due_ns(self, now_ns: int) -> int:
        """Return when the next live window can be expected; one that is overdue is not waited for."""
        self._due = {name: due_ns for name, due_ns in self._due.items() if due_ns > now_ns}
        return min(self._due.values(), default=NEVER_NS)
