"""One stream of the daemon: what its state says while its source's messages are not taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from nuclr_stream.config import Settings
from nuclr_stream.daemon.streams import Stream, Streams
from nuclr_stream.inference.model import Model
from nuclr_stream.stream.admission import SILENT_NS
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


def at_another_time_with_every_message() -> list[Input]:
    source, day = follow_up(), 86_400_000
    return [source.busy(start, start + 1000) for start in (4 * day, 9 * day, 3 * day)]


def of_the_far_future() -> list[Input]:
    source = Source(epoch=2**53)
    return [source.units(), source.heartbeat(0, 0), source.heartbeat(0, 0)]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (started_again, "duplicate"),
        (before_the_clock_was_set_back, "rejected_stale_epoch"),
        (at_another_rate, "rejected_grid_changed"),
        (at_another_time_with_every_message, "rejected_jump"),
        (of_the_far_future, "rejected_epoch"),
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


def test_one_message_of_a_far_epoch_does_not_make_a_stream_deaf(stream: Stream) -> None:
    take(stream, of_the_far_future()[:1])
    take(stream, [follow_up().busy(10_000, 11_000)])
    counters = stream.state.counters
    assert (counters["rejected_epoch"], counters["accepted"], stream.state.epoch) == (1, 12, 100)


def test_a_smaller_epoch_takes_over_when_the_one_that_ran_is_silent_and_the_state_says_so(stream: Stream) -> None:
    source = Source(epoch=99)
    take(stream, [source.units(), source.busy(0, 1000)], now_ns=SILENT_NS - 1)
    assert stream.state.epoch == 100, "its clock was set back, or it is left over: nobody knows yet"
    take(stream, [source.units(), source.busy(1000, 2000)], now_ns=SILENT_NS)
    state = stream.state
    assert (state.epoch, state.state, state.reasons) == (99, "warming_up", ("epoch_taken_over",))
    assert state.counters["epochs_taken_over"] == 1
    take(stream, [source.busy(1000 * s, 1000 * (s + 1)) for s in range(2, 11)], now_ns=SILENT_NS)
    assert (stream.state.state, stream.state.reasons) == ("ready", ())


def test_an_epoch_that_was_pushed_aside_comes_back_but_its_messages_of_before_do_not(stream: Stream) -> None:
    running = follow_up()
    take(stream, [Source(epoch=1_000).heartbeat(0, 0)])
    old = [follow_up().busy(10_000, 11_000)]
    old[0] = replace(old[0], seq=10)  # of the last number that was taken: it comes from somewhere else, again
    take(stream, old, now_ns=2 * SILENT_NS)
    assert stream.state.epoch == 1_000
    take(stream, [running.units(), running.busy(10_000, 11_000)], now_ns=2 * SILENT_NS)
    assert stream.state.epoch == 100


@pytest.mark.parametrize("tables", [False, True])
def test_a_jump_that_stays_is_a_gap(stream: Stream, tables: bool) -> None:
    source, start = follow_up(), 4 * 86_400_000
    messages: list[Input] = []
    for second in range(3):
        messages += [source.units()] * tables + [source.busy(start + 1000 * second, start + 1000 * (second + 1))]
    take(stream, messages)
    counters = stream.state.counters
    assert (counters["rejected_jump"], stream.state.watermark) == (2, start + 3000)
    assert counters["samples_missing"] == start + 2000 - 10_000
    assert (stream.state.epoch, stream.state.units) == (100, 12), "the units keep what was gathered"


def test_a_jump_that_stays_must_fit_the_epoch_in_all_else(stream: Stream) -> None:
    source = follow_up(sample_rate=2000)
    source.seq = 2**40
    take(stream, [source.busy(1000 * s, 1000 * (s + 1)) for s in range(20, 24)])
    counters = stream.state.counters
    assert (counters["rejected_jump"], counters["rejected_grid_changed"]) == (3, 1)
    assert stream.state.watermark == 10_000


def test_the_log_says_how_a_stream_does_when_that_changes(stream: Stream, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        for now_ms in (0, 500, 1_000, 2_500, 3_000):
            stream.note_time(now_ms * MS)
        take(stream, [follow_up().busy(10_000, 10_500)], now_ns=3_100 * MS)
        stream.note_time(3_500 * MS)
    assert [record.message for record in caplog.records] == [
        "stream probeA: ready",
        "stream probeA: degraded (source_silent)",
        "stream probeA: ready",
    ]
