"""Messages off a socket that anybody may reach: no more frames of one than a message can have, and from whom it is."""

from __future__ import annotations

from dataclasses import dataclass

import zmq

from nuclr_stream.sockets import Socket

SKIP_FRAMES = 256
"""Frames that are thrown away in one call: one message of a million empty ones must not hold up the loop."""
NO_CONNECTION = -1


@dataclass(frozen=True, slots=True)
class Received:
    """A whole message. `connection` is the number of the connection that it came over, `key` the peer's public key.

    The number is that of the open file, so that what a connection costs can be charged to it. The key is empty where
    the socket has no CURVE.
    """

    frames: list[bytes]
    connection: int
    key: str


class Receiver:
    """Takes messages from `socket`; `oversized` counts those with more than `max_frames` frames, thrown away.

    `routed` says that the first frame is a route that libzmq put there, `keyed` that peers come with a key. `visits`
    goes up whenever every connection has had its turn, and `delivered` holds how many messages each has delivered.
    """

    def __init__(self, socket: Socket, *, max_frames: int, routed: bool = False, keyed: bool = False) -> None:
        self.socket = socket
        self.oversized = 0
        self.exhausted = True
        self.visits = 0
        self.delivered: dict[int, int] = {}
        self._max_frames = max_frames
        self.keyed = keyed
        self._routed = routed
        self._skipping = False
        self._since_visit = 0

    def take(self) -> Received | None:
        """Return the next message; None when there is none (`exhausted`), or when the time went into throwing away."""
        self.exhausted = False
        if self._skipping and not self._skip():
            return None
        frames: list[bytes] = []
        connection, key = NO_CONNECTION, ""
        try:
            first = self.socket.recv(zmq.NOBLOCK, copy=False)
            if self._routed and first.more:
                frames.append(first.bytes)
                first = self.socket.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            self.exhausted = True
            self._note_visit()
            return None
        connection, key = self._peer(first)
        frames.append(first.bytes)
        more = first.more
        while more:
            if len(frames) == self._max_frames + self._routed:
                self.oversized += 1
                self._skipping = True
                self._note(connection)
                self._skip()
                return None
            frames.append(self.socket.recv(zmq.NOBLOCK))
            more = bool(self.socket.getsockopt(zmq.RCVMORE))
        self._note(connection)
        return Received(frames, connection, key)

    def _skip(self) -> bool:
        """Throw away frames of an oversized message; returns whether it is over."""
        for _ in range(SKIP_FRAMES):
            self.socket.recv(zmq.NOBLOCK)
            if not self.socket.getsockopt(zmq.RCVMORE):
                self._skipping = False
                return True
        return False

    def _peer(self, frame: zmq.Frame) -> tuple[int, str]:
        """Return the connection and the key that libzmq notes on every frame from a network."""
        try:
            connection = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:  # inproc: there is no connection
            connection = NO_CONNECTION
        try:
            return connection, str(frame.get("User-Id")) if self.keyed else ""
        except zmq.ZMQError:  # libzmq's own note that a subscriber is gone
            return connection, ""

    def _note(self, connection: int) -> None:
        self.delivered[connection] = self.delivered.get(connection, 0) + 1
        # libzmq takes one message of every connection by turns: after as many as there are, all have had theirs
        self._since_visit += 1
        if self._since_visit > len(self.delivered):
            self._note_visit()

    def _note_visit(self) -> None:
        self._since_visit = 0
        self.visits += 1
