"""One stream of the daemon: what its state says while its source's messages are not taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nuclr_stream.config import Settings
from nuclr_stream.daemon.streams import Stream, Streams
from nuclr_stream.inference.model import Model
from nuclr_stream.wire import Input
from tests.nuclr_stream.streams import Source

MS = 10**6


@pytest.fixture
def stream(tiny_model: Model) -> Stream:
    """A stream with one window labelled, of a source at 1 kHz in epoch 100."""
    streams, source = Streams(tiny_model, Settings(), instance=1), Source(epoch=100)
    messages = [source.units(), *(source.busy(1000 * s, 1000 * (s + 1)) for s in range(10))]
    made = streams.of(messages[0], 0)
    assert made is not None
    take(made, messages)
    assert made.state.state == "ready"
    return made


def take(stream: Stream, messages: list[Input], *, now_ns: int = 0) -> None:
    for message in messages:
        for window in stream.take(message, now_ns):
            stream.published(stream.labeler.label(window), now_ns)


def follow_up(**header: object) -> Source:
    """The source of the stream, or one that was started wrongly, behind the messages that were sent."""
    source = Source(**({"epoch": 100} | header))
    source.seq, source.version = 10, 0
    return source


def started_again() -> list[Input]:
    source = Source(epoch=100)
    return [source.units(), source.busy(0, 1000), source.busy(1000, 2000)]


def before_the_clock_was_set_back() -> list[Input]:
    source = Source(epoch=99)
    return [source.units(), source.busy(0, 1000), source.busy(1000, 2000)]


def at_another_rate() -> list[Input]:
    source = follow_up(sample_rate=2000)
    return [source.busy(1000 * s, 1000 * (s + 1)) for s in range(20, 23)]


def four_days_ahead() -> list[Input]:
    source, start = follow_up(), 4 * 86_400_000
    return [source.busy(start + 1000 * s, start + 1000 * (s + 1)) for s in range(3)]


def four_days_ahead_with_tables_between() -> list[Input]:
    source, start = follow_up(), 4 * 86_400_000
    return [
        *(source.busy(start, start + 1000), source.units()),
        *(source.heartbeat(start, start), source.units(), source.heartbeat(start, start)),
    ]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (started_again, "duplicate"),
        (before_the_clock_was_set_back, "rejected_stale_epoch"),
        (at_another_rate, "rejected_grid_changed"),
        (four_days_ahead, "rejected_jump"),
        (four_days_ahead_with_tables_between, "rejected_jump"),
    ],
)
def test_a_stream_whose_source_is_rejected_is_degraded_at_once_and_says_why(
    stream: Stream, messages: Callable[[], list[Input]], reason: str
) -> None:
    *before, last = messages()
    take(stream, before, now_ns=100 * MS)
    assert (stream.state.state, stream.state.reasons) == ("ready", ()), "one or two may be an accident"
    take(stream, [last], now_ns=150 * MS)
    assert (stream.state.state, stream.state.reasons) == ("degraded", (reason,))


def test_a_new_epoch_ends_the_rejection(stream: Stream) -> None:
    take(stream, before_the_clock_was_set_back())
    newer = Source(epoch=101)
    take(stream, [newer.units(), *(newer.busy(1000 * s, 1000 * (s + 1)) for s in range(10))], now_ns=1_000 * MS)
    assert (stream.state.state, stream.state.reasons) == ("ready", ())


def test_two_sources_by_turns_do_not_change_the_state_with_every_message(stream: Stream) -> None:
    good = follow_up()
    changes, before = 0, stream.standing
    for turn in range(50):  # 20 ms each: three messages of a source left over, one of the source that is taken
        now_ns = 20 * MS * turn
        take(stream, before_the_clock_was_set_back(), now_ns=now_ns)
        take(stream, [good.heartbeat(10_000 + 10 * turn, 10_010 + 10 * turn)], now_ns=now_ns + 10 * MS)
        changes += stream.standing != before
        before = stream.standing
    assert changes == 1
    assert stream.state.reasons == ("rejected_stale_epoch",)


def test_a_stream_that_ended_says_why_the_next_acquisition_is_not_taken(stream: Stream) -> None:
    take(stream, [follow_up().end(10_000)])
    source = follow_up()
    source.seq = 11
    take(stream, [source.busy(1000 * s, 1000 * (s + 1)) for s in range(10, 13)])
    assert (stream.state.state, stream.state.reasons) == ("ended", ("rejected_after_end",))
