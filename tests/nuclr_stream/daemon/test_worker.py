"""In front of the model: the newest windows win, nothing is skipped silently, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nuclr_stream.daemon.asks import NEVER_NS, PATIENCE_NS, Ask, AskDone, Asks
from nuclr_stream.daemon.worker import BURST_WINDOWS, LabelDone, Worker
from nuclr_stream.wire import ErrorReply


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
        self.hop_s = 1e-9  # the next window is due at once: requests of clients are not held back for it
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


def asked(identity: bytes = b"client", request_id: int = 1, **more: Any) -> Ask:
    reply = ErrorReply(request_id=request_id, reason=identity.decode())
    return Ask(identity, request_id, lambda: reply, **more)


def test_live_windows_come_before_those_of_clients(worker: Worker) -> None:
    stream: Any = SlowStream()
    worker.label(stream, windows(1, 2, 3))
    assert [worker.answer(asked(request_id=number)) for number in (1, 2)] == [None, None]
    stream.go.release(3)
    kinds = [type(worker.done(10)) for _ in range(5)]
    assert kinds == [LabelDone, LabelDone, LabelDone, AskDone, AskDone]


def test_clients_have_their_turn_one_after_the_other_however_much_one_asks() -> None:
    asks = Asks(4)
    for number in range(4):
        assert asks.add(asked(b"greedy", number)) is None
    assert asks.add(asked(b"greedy", 4)).request_id == 4  # type: ignore[union-attr]
    turned_away = asks.add(asked(b"modest", 5))
    assert turned_away is not None
    assert (turned_away.identity, turned_away.request_id) == (b"greedy", 3), "who has most waiting gives way"
    order = [asks.next(0, NEVER_NS) for _ in range(4)]
    assert [ask and (ask.identity, ask.request_id) for ask in order] == [
        (b"greedy", 0),
        (b"modest", 5),
        (b"greedy", 1),
        (b"greedy", 2),
    ]


def test_what_nobody_waits_for_any_more_is_not_computed(worker: Worker) -> None:
    stream: Any = SlowStream()
    worker.label(stream, windows(1))
    worker.answer(Ask(b"client", 7, lambda: pytest.fail("must not run"), until_ns=1))
    done = worker.done()
    assert isinstance(done, AskDone)
    assert (done.identity, done.reply.request_id, done.reply.reason) == (b"client", 7, "expired")  # type: ignore[union-attr]
    finish(worker, stream)
    assert worker.done() is None


def test_a_request_runs_between_two_steps_if_it_fits_there_and_is_not_put_off_for_ever() -> None:
    asks = Asks(4)
    asks.add(asked(units=100))
    first = asks.next(0, 5)
    assert first is not None, "how long it takes is not known yet"
    asks.took(first, 1_000)  # 10 ns a unit
    asks.add(asked(units=50, asked_ns=10_000))
    assert asks.start_ns(10_000, 10_600) == 10_000
    assert asks.next(10_000, 10_400) is None
    assert asks.start_ns(10_000, 10_400) == 10_000 + PATIENCE_NS
    assert asks.next(10_000 + PATIENCE_NS, 10_000 + PATIENCE_NS + 1) is not None


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
    worker.answer(Ask(b"client", 1, lambda: pytest.fail("must not run")))
    worker.stop()
    assert finish(worker, stream).number == 1
    assert (worker.done(), stream.in_work) == (None, 0)


def test_a_step_that_takes_too_long_is_given_up_on(worker: Worker) -> None:
    stream: Any = SlowStream()
    worker.label(stream, windows(1))
    with pytest.raises(TimeoutError):
        worker.done(0.01)
    assert finish(worker, stream).number == 1
