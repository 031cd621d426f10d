"""Who is connected over tcp, what each connection costs, and the end of those that cost too much.

libzmq gathers all frames of a message before anybody may look at it, and files every subscription away; its own bound
is one of single frames. So a thread of its own watches how many bytes each connection has brought, by the kernel's
count, and shuts down those that go on for longer than any message is, or that subscribe to too much. What was
gathered is freed with them. The kernel counts for tcp on Linux only: elsewhere, and over ipc, whose folder only the
owner may enter, the bounds hold once a message is whole.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import zmq
from zmq.utils.monitor import recv_monitor_message

from nuclr_stream.daemon.receiving import Receiver
from nuclr_stream.sockets import Socket

if sys.platform == "linux":
    import fcntl
    import termios

WATCH_MS = 20
"""Connections are looked at this often. At 1 GB/s a sender brings 20 MB meanwhile."""
REFRESH_MS = 200
_BYTES_RECEIVED = 128
"""Where tcpi_bytes_received stands in struct tcp_info of Linux."""

log = logging.getLogger(__name__)


@dataclass
class Connection:
    """One accepted connection: a duplicate of its file, kept so that the number cannot come to mean another one.

    `mark` is how many bytes it had brought when it was last in order, `delivered` and `visits` are the receiver's
    counts of then; `left` and `filled_ns` are its allowance of bytes, and when that was last filled up.
    """

    file: socket.socket
    mark: int = 0
    delivered: int = 0
    visits: int | None = None
    left: float = 0.0
    filled_ns: int = 0
    shut: bool = False


Rule: TypeAlias = Callable[[int, Connection, int, int], bool]
"""Whether a connection (its number, itself, bytes it has brought, monotonic ns) is over its bound."""


def whole_messages(receiver: Receiver, max_bytes: int, *, look: Callable[[], None]) -> Rule:
    """Return the rule that every `max_bytes` a message must have come out of the socket; `look` has it looked at."""

    def over(number: int, connection: Connection, brought: int, now_ns: int) -> bool:
        delivered = receiver.delivered.get(number, 0)
        if delivered != connection.delivered or brought - connection.mark <= max_bytes:
            if delivered != connection.delivered:
                connection.mark, connection.delivered = brought, delivered
            connection.visits = None
            return False
        # Messages that are whole wait for their turn when the loop is busy. Only when every connection has had a turn
        # since, and nothing came of this one, is what it brought part of a message without end.
        if connection.visits is None:
            connection.visits = receiver.visits
        look()
        return receiver.visits > connection.visits + 1

    return over


def allowance(burst_bytes: int, bytes_per_s: int) -> Rule:
    """Return the rule that a connection brings at most `burst_bytes` at once and `bytes_per_s` for long."""

    def over(_: int, connection: Connection, brought: int, now_ns: int) -> bool:
        earned = bytes_per_s * (now_ns - connection.filled_ns) / 1e9 if connection.filled_ns else burst_bytes
        connection.left = min(connection.left + earned, burst_bytes) - (brought - connection.mark)
        connection.mark, connection.filled_ns = brought, now_ns
        return connection.left < 0

    return over


@dataclass
class _Watched:
    monitor: Socket
    what: str
    rule: Rule
    connections: dict[int, Connection] = field(default_factory=dict)


class Connections:
    """Watches sockets from a thread of its own, from `start` to `close`; `cut_off` counts connections by what for.

    `refresh` is called in that thread a few times a second.
    """

    def __init__(self, *, refresh: Callable[[], None]) -> None:
        self.cut_off: Counter[str] = Counter()
        self._refresh = refresh
        self._refresh_ns = 0
        self._watched: list[_Watched] = []
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="connections", daemon=True)

    def watch(self, bound: Socket, what: str, rule: Rule) -> None:
        """Watch a socket that is to be bound to tcp; call it before `start`, and before the bind."""
        monitor: Socket = bound.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED)
        self._watched.append(_Watched(monitor, what, rule))

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether connections are watched."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread and let go of everything; connections stay as they are."""
        if self._thread.is_alive():
            self._wake_write.send(b"!")
            self._thread.join()
        for watched in self._watched:
            watched.monitor.close(linger=0)
            for connection in watched.connections.values():
                connection.file.close()
        self._wake_read.close()
        self._wake_write.close()

    def cut(self, numbers: Iterable[int], why: str) -> None:
        """Shut connections down, by the number of their file; counted under `why`. From any thread."""
        with self._lock:
            for watched in self._watched:
                for number in set(numbers) & watched.connections.keys():
                    self._shut(watched.connections[number], why)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._wake_read, zmq.POLLIN)
        for watched in self._watched:
            poller.register(watched.monitor, zmq.POLLIN)
        while True:
            busy = any(watched.connections for watched in self._watched)
            ready = dict(poller.poll(WATCH_MS if busy else REFRESH_MS))
            if self._wake_read.fileno() in ready:
                return
            if time.monotonic_ns() >= self._refresh_ns:
                self._refresh_ns = time.monotonic_ns() + REFRESH_MS * 1_000_000
                self._refresh()
            with self._lock:
                for watched in self._watched:
                    while watched.monitor in ready and watched.monitor.poll(0):
                        _note(watched, recv_monitor_message(watched.monitor))
                    self._judge(watched)

    def _judge(self, watched: _Watched) -> None:
        now_ns = time.monotonic_ns()
        for number, connection in watched.connections.items():
            brought = _brought(connection.file)
            if brought and not connection.shut and watched.rule(number, connection, brought, now_ns):
                self._shut(connection, f"cut_off_{watched.what}")

    def _shut(self, connection: Connection, why: str) -> None:
        connection.shut = True
        with suppress(OSError):  # gone already
            connection.file.shutdown(socket.SHUT_RDWR)
        self.cut_off[why] += 1
        log.warning("a connection was shut down: %s", why)


def _note(watched: _Watched, event: Mapping[str, object]) -> None:
    """Follow connections that come and go; their numbers are used again, so the order of events counts."""
    number = event["value"]
    assert isinstance(number, int)
    gone = watched.connections.pop(number, None)
    if gone is not None:
        gone.file.close()
    if event["event"] == zmq.EVENT_ACCEPTED:
        with suppress(OSError):  # it went away before anybody looked
            duplicate = socket.socket(fileno=os.dup(number))
            if duplicate.family in (socket.AF_INET, socket.AF_INET6) and _port(duplicate) == _port_of(event):
                watched.connections[number] = Connection(duplicate)
            else:
                duplicate.close()


def _port(file: socket.socket) -> int:
    port: int = file.getsockname()[1]
    return port


def _port_of(event: Mapping[str, object]) -> int:
    endpoint = event["endpoint"]
    assert isinstance(endpoint, bytes)
    return int(endpoint.rpartition(b":")[2])


def _brought(file: socket.socket) -> int:
    """Return how many bytes of a connection libzmq has taken, 0 where nobody counts them."""
    if sys.platform != "linux":
        return 0
    try:
        info = file.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
        waiting = fcntl.ioctl(file, termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    if len(info) < _BYTES_RECEIVED + 8:
        return 0
    received: int = struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0]
    left: int = struct.unpack("=i", waiting)[0]
    return received - left
