"""In front of the model: the newest windows win, nothing is skipped silently, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from nuclr_stream.daemon.ingest import Ingest
from nuclr_stream.daemon.worker import BURST_WINDOWS, AskDone, LabelDone, Worker
from nuclr_stream.sockets import open_socket


class FakeWindow(SimpleNamespace):
    """A window that remembers which ones it took over, and of which no snapshot is wanted."""

    checkpoint = None

    def superseding(self, older: FakeWindow) -> FakeWindow:
        return FakeWindow(number=self.number, over=[*older.over, older.number, *self.over])


class SlowStream:
    """A stream whose labeler waits until it is let go, and tells what it was given."""

    def __init__(self, name: str = "a") -> None:
        self.name, self.in_work, self.failed = name, 0, 0
        self.go = threading.Semaphore(0)
        self.labeler = SimpleNamespace(label=self._label)

    def note_failed(self, now_ns: int) -> None:
        self.failed += 1

    def _label(self, window: FakeWindow) -> Any:
        assert self.go.acquire(timeout=10)
        if window.number < 0:
            raise RuntimeError("a bug in the model")
        return window


def windows(*numbers: int) -> list[Any]:
    return [FakeWindow(number=number, over=[]) for number in numbers]


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(lambda: None, embed_queue=2)
    yield made
    made.close()


def finish(worker: Worker, stream: Any) -> Any:
    """Let one window through and return it."""
    stream.go.release()
    done = worker.done(10)
    assert isinstance(done, LabelDone)
    return done.labelled


def test_the_newest_window_takes_over_the_one_that_waits(worker: Worker) -> None:
    stream: Any = SlowStream()
    assert [worker.label(stream, windows(number)) for number in (1, 2, 3, 4)] == [0, 0, 1, 1]
    assert stream.in_work == 2
    assert finish(worker, stream).number == 1
    last = finish(worker, stream)
    assert (last.number, last.over, stream.in_work) == (4, [2, 3], 0)
    assert worker.done() is None


def test_a_message_that_closes_no_window_changes_nothing(worker: Worker) -> None:
    stream: Any = SlowStream()
    worker.label(stream, windows(1))
    worker.label(stream, windows(2))
    assert worker.label(stream, iter([])) == 0
    assert [finish(worker, stream).number for _ in range(2)] == [1, 2]


def test_windows_that_close_at_once_are_all_labelled_unless_overtaken(worker: Worker) -> None:
    stream: Any = SlowStream()
    assert worker.label(stream, windows(1, 2, 3, 4)) == 0
    assert [finish(worker, stream).number for _ in range(2)] == [1, 2]
    assert worker.label(stream, windows(5, 6)) == 1
    found = [finish(worker, stream) for _ in range(3)]
    assert [(one.number, one.over) for one in found] == [(3, []), (5, [4]), (6, [])]


def test_a_burst_is_bounded_and_the_oldest_give_way(worker: Worker) -> None:
    stream: Any = SlowStream()
    worker.label(stream, windows(0))
    assert worker.label(stream, windows(*range(1, BURST_WINDOWS + 4))) == 3
    assert stream.in_work == BURST_WINDOWS + 1
    found = [finish(worker, stream) for _ in range(BURST_WINDOWS + 1)]
    assert [(one.number, one.over) for one in found[:3]] == [(0, []), (4, [1, 2, 3]), (5, [])]


def test_streams_take_turns(worker: Worker) -> None:
    a: Any = SlowStream("a")
    b: Any = SlowStream("b")
    worker.label(a, windows(1, 2, 3))
    worker.label(b, windows(10, 11))
    a.go.release(5)
    b.go.release(5)
    order = [worker.done(10).labelled.number for _ in range(5)]  # type: ignore[union-attr]
    assert order == [1, 2, 10, 3, 11]


def test_clients_windows_take_turns_with_those_of_streams_and_are_bounded(worker: Worker) -> None:
    stream: Any = SlowStream()
    reply: Any = object()
    worker.label(stream, windows(1, 2, 3))
    assert [worker.answer(b"client", lambda: reply) for _ in range(3)] == [True, True, False]
    stream.go.release(3)
    kinds = [type(worker.done(10)) for _ in range(5)]
    assert kinds == [LabelDone, AskDone, LabelDone, AskDone, LabelDone]


def test_an_error_comes_out_where_the_result_would_and_work_goes_on(worker: Worker) -> None:
    stream: Any = SlowStream()
    worker.label(stream, windows(-1, 2))
    stream.go.release(2)
    with pytest.raises(RuntimeError, match="a bug in the model"):
        worker.done(10)
    assert worker.done(10).labelled.number == 2  # type: ignore[union-attr]
    assert stream.in_work == 0


def test_stopping_leaves_only_what_runs(worker: Worker) -> None:
    stream: Any = SlowStream()
    worker.label(stream, windows(1, 2, 3))
    worker.answer(b"client", lambda: pytest.fail("must not run"))
    worker.stop()
    assert finish(worker, stream).number == 1
    assert (worker.done(), stream.in_work) == (None, 0)


def test_a_step_that_takes_too_long_is_given_up_on(worker: Worker) -> None:
    stream: Any = SlowStream()
    worker.label(stream, windows(1))
    with pytest.raises(TimeoutError):
        worker.done(0.01)
    assert finish(worker, stream).number == 1


def test_input_beyond_the_bound_is_dropped_and_counted() -> None:
    with zmq.Context() as context:
        pull = open_socket(context, zmq.PULL, max_bytes=2**20, options={zmq.RCVHWM: 0})
        push = open_socket(context, zmq.PUSH, max_bytes=2**20, options={zmq.SNDHWM: 0})
        pull.bind("inproc://data")
        push.connect("inproc://data")
        ingest = Ingest(pull, max_bytes=5_000)
        for number in range(10):
            push.send(bytes([number]) * 1_000)
        ingest.drain(42)
        assert (len(ingest), ingest.queued_bytes, ingest.dropped["queue_full"]) == (4, 4_800, 6)
        assert ingest.next() == ([b"\0" * 1_000], 42)
        push.send(b"x")
        ingest.drain(43)
        assert [ingest.next()[1] for _ in range(4)] == [42, 42, 42, 43]
        assert (len(ingest), ingest.queued_bytes) == (0, 0)
        push.close()
        pull.close()
