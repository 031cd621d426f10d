"""What a connection may cost: messages that never end and subscriptions without end are cut off, nobody else is."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import zmq

from nuclr_stream import wire
from nuclr_stream.client.subscriber import Query, Subscription
from nuclr_stream.daemon.connections import Connection, allowance, whole_messages
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.daemon.doors import SUBSCRIBE_BYTES, SUBSCRIBE_BYTES_PER_S
from nuclr_stream.daemon.receiving import Receiver
from tests.nuclr_stream.conftest import until, where

counted_by_the_kernel = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the bytes of connections")


@contextmanager
def greeted(endpoint: str, kind: bytes) -> Iterator[socket.socket]:
    """A raw tcp connection that has greeted as a ZeroMQ socket of this kind does."""
    host, port = endpoint.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\0" + b"NULL".ljust(20, b"\0") + bytes(32))
        received = b""
        while len(received) < 64:
            received += connection.recv(64 - len(received))
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
        connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
        yield connection


def sent_until_shut(connection: socket.socket, chunk: bytes, *, most: int) -> int:
    """Send over and over until the other end shuts the connection; returns the bytes that it took."""
    sent = 0
    with suppress(OSError):
        while sent < most:
            connection.sendall(chunk)
            sent += len(chunk)
    return sent


@counted_by_the_kernel
@pytest.mark.parametrize(
    ("door", "kind", "chunk"),
    [
        ("data", b"PUSH", b"\x01\0" * 2**15),
        ("query", b"DEALER", b"\x01\0" * 2**15),
        ("data", b"PUSH", b"\x03" + struct.pack(">Q", 2**19) + bytes(2**19)),
    ],
    ids=["empty frames", "empty frames of a client", "large frames"],
)
def test_a_message_that_never_ends_is_cut_off(
    run_daemon: Callable[..., Daemon], door: str, kind: bytes, chunk: bytes
) -> None:
    daemon = run_daemon()
    with (
        Subscription("", **where(daemon, "results", "query")) as subscription,
        greeted(daemon.endpoints[door], kind) as connection,
    ):
        assert sent_until_shut(connection, chunk, most=2**30) < 2**30
        reason = f"cut_off_{door}"
        found = until(subscription, lambda m: isinstance(m, wire.DaemonState) and reason in m.counters)
        assert found.counters == {reason: 1}
    with Query(daemon.endpoints["query"], timeout_s=5) as query:
        assert query.status()["ready"]


@counted_by_the_kernel
def test_a_subscriber_without_end_is_cut_off_and_others_are_served(run_daemon: Callable[..., Daemon]) -> None:
    daemon = run_daemon()
    with (
        Subscription("", **where(daemon, "results", "query")) as subscription,
        greeted(daemon.endpoints["results"], b"SUB") as connection,
    ):
        topics = b"".join(b"\0\xfb\x01" + number.to_bytes(4, "big") + bytes(246) for number in range(100))
        assert sent_until_shut(connection, topics, most=2**26) < 2**26
        found = until(subscription, lambda m: isinstance(m, wire.DaemonState) and m.counters)
        assert found.counters == {"cut_off_results": 1}
    with Subscription("", **where(daemon, "results", "query")) as honest:
        until(honest, lambda message: isinstance(message, wire.DaemonState))


def test_a_topic_longer_than_any_is_not_taken(run_daemon: Callable[..., Daemon]) -> None:
    daemon = run_daemon()
    with greeted(daemon.endpoints["results"], b"SUB") as connection:
        connection.sendall(b"\x02" + struct.pack(">Q", 2001) + b"\x01" + bytes(2000))
        with suppress(ConnectionError):
            while connection.recv(4096):
                pass


@counted_by_the_kernel
def test_an_honest_source_of_large_messages_is_never_cut_off() -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        push.connect(f"tcp://127.0.0.1:{port}")
        receiver, looked = Receiver(pull, max_frames=4), []
        rule = whole_messages(receiver, 1000, look=lambda: looked.append(1))
        with socket.socket() as file:
            connection = Connection(file)
            push.send(b"one")
            assert pull.poll(5000)
            received = receiver.take()
            assert received is not None
            number = received.connection
            assert not rule(number, connection, 900, 0)
            # Whole messages wait while the loop is busy: bytes without a turn of every connection prove nothing.
            assert not any(rule(number, connection, 10_000 + k, 0) for k in range(5))
            assert looked
            push.send(b"two")
            assert pull.poll(5000)
            assert receiver.take() is not None
            assert not rule(number, connection, 20_000, 0)
            assert not rule(number, connection, 21_500, 0)
            assert receiver.take() is None
            assert not rule(number, connection, 21_500, 0), "it may have come in since the turn began"
            assert receiver.take() is None
            assert rule(number, connection, 21_500, 0), "turns of all connections, and nothing came of it"


def test_a_subscriber_may_send_signs_of_life_for_ever() -> None:
    rule = allowance(SUBSCRIBE_BYTES, SUBSCRIBE_BYTES_PER_S)
    with socket.socket() as file:
        connection = Connection(file)
        brought = 1_000
        for second in range(1, 3_000):
            brought += 4 * 40
            assert not rule(0, connection, brought, second * 10**9)
        assert not rule(0, connection, brought + SUBSCRIBE_BYTES - 5_000, 3_000 * 10**9)
        assert rule(0, connection, brought + SUBSCRIBE_BYTES + 5_000, 3_000 * 10**9 + 1)
