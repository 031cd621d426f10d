"""A source and a daemon that goes away: nothing is sent before it is known what has arrived, and then in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import zmq

from nuclr_stream import wire
from nuclr_stream.client import Publisher, acknowledgement


class Daemon:
    """Of which only the sockets are real: it takes data, and answers what it is told to have received."""

    def __init__(self, context: zmq.Context, *, like: Daemon | None = None, instance: int = 1) -> None:
        self.instance, self.known, self.next_seq = instance, True, 0
        self.data, self.query = context.socket(zmq.PULL), context.socket(zmq.ROUTER)
        for socket in (self.data, self.query):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVTIMEO, 10_000)
        ends = (like.data_at, like.query_at) if like else ("tcp://127.0.0.1:*",) * 2
        self.data.bind(ends[0])
        self.query.bind(ends[1])
        self.data_at = self.data.getsockopt_string(zmq.LAST_ENDPOINT)
        self.query_at = self.query.getsockopt_string(zmq.LAST_ENDPOINT)

    def take(self) -> int:
        """The number of the next message."""
        message = wire.decode(self.data.recv_multipart())
        assert isinstance(message, wire.Input)
        return message.seq

    def answer(self, rig: Publisher) -> None:
        """Let the source go on until it asks, and answer the newest question."""
        while not self.query.poll(10):
            rig.heartbeat()
        identity, *frames = self.query.recv_multipart()
        while self.query.poll(20):
            identity, *frames = self.query.recv_multipart()
        request = wire.decode(frames)
        assert isinstance(request, wire.ReceivedRequest)
        reply = wire.ReceivedReply(
            request_id=request.request_id,
            stream=request.stream,
            instance=self.instance,
            known=self.known,
            epoch=1,
            next_seq=self.next_seq,
            watermark=self.next_seq,
        )
        self.query.send_multipart([identity, *wire.encode(reply)])

    def close(self) -> None:
        self.data.close()
        self.query.close()


Start = Callable[..., Daemon]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts daemons; all of them are closed."""
    with zmq.Context() as context, ExitStack() as stack:

        def started(**options: Any) -> Daemon:
            made = Daemon(context, **options)
            stack.callback(made.close)
            return made

        yield started


@pytest.fixture
def daemon(start: Start) -> Daemon:
    return start()


@pytest.fixture
def rig(daemon: Daemon) -> Iterator[Publisher]:
    with Publisher(daemon.data_at, stream="rig", sample_rate=1000, epoch=1, start=0, query=daemon.query_at) as made:
        yield made
        made._acknowledgement.unsure = False  # type: ignore[union-attr]  # closing does not wait for an answer then


def until(rig: Publisher, wanted: bool) -> None:
    """Go on sending until a call says that everything has left, or has not."""
    for _ in range(2_000):
        if rig.heartbeat() is wanted:
            return
        assert rig._acknowledgement is not None
        rig._acknowledgement.wait(0.005)
    raise AssertionError("it never came to that")


def begin(rig: Publisher, daemon: Daemon) -> None:
    """A table and two messages that arrive, and an answer that says so."""
    rig.units(["a"])
    rig.heartbeat()
    assert [daemon.take(), daemon.take()] == [0, 1]
    daemon.next_seq = 2
    daemon.answer(rig)
    while rig.acknowledged != 2:
        rig.heartbeat()


def test_a_new_daemon_gets_everything_from_where_it_is_on(start: Start, daemon: Daemon, rig: Publisher) -> None:
    begin(rig, daemon)
    daemon.close()
    until(rig, False)
    again = start(like=daemon, instance=2)
    again.next_seq = 1
    again.answer(rig)
    until(rig, True)
    assert [again.take() for _ in range(4)] == [1, 2, 3, 4]
    assert rig.unsent == 0


def test_a_daemon_that_knows_nothing_gets_the_unit_table_first(start: Start, daemon: Daemon, rig: Publisher) -> None:
    begin(rig, daemon)
    daemon.close()
    until(rig, False)
    again = start(like=daemon, instance=2)
    again.known = False
    again.answer(rig)
    until(rig, True)
    assert isinstance(wire.decode(again.data.recv_multipart()), wire.UnitTable)


def test_a_daemon_that_was_only_out_of_reach_must_agree_with_itself(
    start: Start, daemon: Daemon, rig: Publisher
) -> None:
    """It may still be decoding what had arrived: what it has then would be sent twice."""
    begin(rig, daemon)
    sent = rig._seq
    daemon.close()
    until(rig, False)
    again = start(like=daemon, instance=1)
    for next_seq in (1, sent, sent):
        assert rig.heartbeat() is False
        again.next_seq = next_seq
        again.answer(rig)
        rig._acknowledgement.wait(1.0)  # type: ignore[union-attr]
        rig.heartbeat()
    until(rig, True)
    assert again.take() == sent


def test_a_daemon_that_takes_data_but_never_answers_is_sent_what_waits(
    start: Start, daemon: Daemon, rig: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acknowledgement, "GIVE_UP_S", 0.05)
    begin(rig, daemon)
    daemon.close()
    until(rig, False)
    again = start(like=daemon, instance=2)
    until(rig, True)
    assert again.take() > 0


def test_without_a_place_to_ask_nothing_is_kept(daemon: Daemon) -> None:
    with Publisher(daemon.data_at, stream="rig", sample_rate=1000, epoch=1) as rig:
        assert rig.heartbeat()
        assert rig.acknowledged is None
        assert daemon.take() == 0
