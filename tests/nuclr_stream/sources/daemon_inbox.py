"""The daemon's side of a source: everything that it sends, decoded, without a daemon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import zmq

from nuclr_stream import wire
from nuclr_stream.wire import End, Input, SpikeBatch, UnitTable

M = TypeVar("M", bound=Input)


class Inbox:
    """What has come, in order."""

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        self._socket, self.endpoint = socket, endpoint
        self.messages: list[Input] = []

    def take(self, until: int = 0, *, ends: int = 0) -> list[Input]:
        """Take messages until so many are there, or so many epochs have ended."""
        while len(self.messages) < until or len(self.of(End)) < ends:
            message = wire.decode(self._socket.recv_multipart())
            assert isinstance(message, Input)
            self.messages.append(message)
        return self.messages

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def epochs(self) -> list[int]:
        """Epochs in order of appearance."""
        return list(dict.fromkeys(message.epoch for message in self.messages))

    def spikes(self, epoch: int | None = None) -> Counter[tuple[str, int]]:
        """(unit id, sample) of every spike, by the table that was there when it came."""
        found: Counter[tuple[str, int]] = Counter()
        ids: dict[int, str] = {}
        for message in self.messages:
            if isinstance(message, UnitTable):
                ids = dict(zip(message.index.tolist(), message.unit_ids, strict=True))
            if isinstance(message, SpikeBatch) and epoch in (None, message.epoch):
                pairs = zip(message.units.tolist(), message.samples.tolist(), strict=True)
                assert all(message.start <= sample < message.stop for sample in message.samples.tolist())
                found.update((ids[unit], sample) for unit, sample in pairs)
        return found

    def observed(self, epoch: int) -> list[tuple[int, int]]:
        """The stretches [start, stop) of an epoch that batches cover, those that touch as one."""
        stretches: list[tuple[int, int]] = []
        for batch in self.of(SpikeBatch):
            if batch.epoch != epoch:
                continue
            if stretches and stretches[-1][1] == batch.start:
                stretches[-1] = stretches[-1][0], batch.stop
            else:
                stretches.append((batch.start, batch.stop))
        return stretches


@contextmanager
def daemon_inbox() -> Iterator[Inbox]:
    """A PULL socket in the place of a daemon's."""
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.RCVTIMEO, 60_000)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    try:
        yield Inbox(socket, f"tcp://127.0.0.1:{port}")
    finally:
        context.destroy(linger=0)
