"""What waits to be decoded: bounded, the oldest gives way, and nobody's flood pushes out what others sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import zmq

from nuclr_stream import wire
from nuclr_stream.daemon.ingest import Ingest
from nuclr_stream.daemon.receiving import SKIP_FRAMES, Received, Receiver
from nuclr_stream.errors import DeniedError
from nuclr_stream.sockets import Socket, open_socket

LONG_NS = 10**10


@pytest.fixture
def pull() -> Iterator[tuple[Receiver, Callable[[], Socket]]]:
    """A receiver over tcp, and a maker of peers that push to it."""
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        socket = stack.enter_context(open_socket(context, zmq.PULL, max_bytes=2**20))
        port = socket.bind_to_random_port("tcp://127.0.0.1")

        def peer() -> Socket:
            made = stack.enter_context(open_socket(context, zmq.PUSH, max_bytes=2**20, options={zmq.LINGER: 1000}))
            made.connect(f"tcp://127.0.0.1:{port}")
            return made

        yield Receiver(socket, max_frames=4), peer


def ingest_of(receiver: Receiver, *, max_bytes: int = 100_000, max_streams: int = 2) -> Ingest:
    def stream_of(received: Received) -> str:
        stream = wire.input_stream(received.frames[0])
        if stream == "foreign":
            raise DeniedError("owner")
        return stream

    return Ingest(receiver, max_bytes=max_bytes, max_streams=max_streams, stream_of=stream_of)


def drained(ingest: Ingest, socket: Socket, count: int) -> None:
    """Drain until `count` messages have been kept or dropped."""
    while len(ingest) + ingest.dropped.total() < count:
        assert socket.poll(5000)
        ingest.drain(LONG_NS)


def test_streams_have_their_turn_one_after_the_other(pull: tuple[Receiver, Callable[[], Socket]]) -> None:
    receiver, peer = pull
    push, ingest = peer(), ingest_of(receiver)
    for number in range(5):
        push.send_multipart([b"spikes/a", bytes([number])])
    push.send_multipart([b"spikes/b", b"\x09"])
    drained(ingest, receiver.socket, 6)
    order = [ingest.next()[0].frames for _ in range(3)]
    assert [(topic[-1:], frame[0]) for topic, frame in order] == [(b"a", 0), (b"b", 9), (b"a", 1)]
    assert len(ingest) == 3


def test_a_full_queue_loses_its_own_oldest_messages_and_counts_them(
    pull: tuple[Receiver, Callable[[], Socket]],
) -> None:
    receiver, peer = pull
    flood, quiet = peer(), peer()
    ingest = ingest_of(receiver, max_bytes=20_000)
    quiet.send_multipart([b"spikes/a", b"the same stream, another connection"])
    drained(ingest, receiver.socket, 1)
    for number in range(10):
        flood.send_multipart([b"spikes/a", bytes([number]) * 2_000])
    drained(ingest, receiver.socket, 11)
    assert (len(ingest), ingest.dropped) == (5, {"queue_full": 6})
    kept = [ingest.next()[0].frames[1][:3] for _ in range(5)]
    assert kept == [b"the", *(bytes([number]) * 3 for number in (6, 7, 8, 9))]
    assert ingest.queued_bytes == 0


def test_a_message_larger_than_the_share_is_kept_while_it_is_the_newest(
    pull: tuple[Receiver, Callable[[], Socket]],
) -> None:
    receiver, peer = pull
    push, ingest = peer(), ingest_of(receiver, max_bytes=2_000)
    push.send_multipart([b"spikes/a", b"x" * 1_500])
    drained(ingest, receiver.socket, 1)
    assert len(ingest.next()[0].frames[1]) == 1_500


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([b"nonsense", b""], "malformed_kind"),
        ([b"predictions/a", b""], "malformed_kind"),
        ([b"spikes/", b""], "malformed_text"),
        ([b"spikes/\xff", b""], "malformed_text"),
        ([b"spikes/" + b"a" * 10_000, b""], "malformed_kind"),
        ([b"spikes/foreign", b""], "denied_owner"),
        ([b"spikes/a"] + [b""] * 4, "malformed_frames"),
        ([b"spikes/a"] + [b""] * (3 * SKIP_FRAMES), "malformed_frames"),
    ],
)
def test_what_must_not_wait_is_dropped_before_it_does(
    pull: tuple[Receiver, Callable[[], Socket]], frames: list[bytes], reason: str
) -> None:
    receiver, peer = pull
    push, ingest = peer(), ingest_of(receiver)
    push.send_multipart(frames)
    push.send_multipart([b"spikes/a", b"good"])
    drained(ingest, receiver.socket, 2)
    assert ingest.dropped == {reason: 1}
    assert ingest.next()[0].frames == [b"spikes/a", b"good"]


def test_a_sender_of_many_names_does_not_make_many_queues(pull: tuple[Receiver, Callable[[], Socket]]) -> None:
    receiver, peer = pull
    push, ingest = peer(), ingest_of(receiver, max_streams=2)
    for number in range(40):
        push.send_multipart([f"spikes/{number}".encode(), b""])
    drained(ingest, receiver.socket, 40)
    assert (len(ingest), ingest.dropped) == (16, {"too_many_streams": 24})


def test_taking_ends_with_its_time(pull: tuple[Receiver, Callable[[], Socket]]) -> None:
    receiver, peer = pull
    push, ingest = peer(), ingest_of(receiver)
    push.send_multipart([b"spikes/a", b""])
    assert receiver.socket.poll(5000)
    ingest.drain(0)
    assert len(ingest) == 0, "what is left waits in the network"
    ingest.drain(LONG_NS)
    assert len(ingest) == 1
