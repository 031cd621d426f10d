"""ZeroMQ sockets with the settings that every end of the protocol needs, and the lock of an ipc path."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import zmq

from nuclr_stream.access.curve import as_client
from nuclr_stream.access.keys import client_key
from nuclr_stream.config import bind_error, option
from nuclr_stream.errors import EndpointError

if sys.platform != "win32":
    import fcntl

Socket: TypeAlias = zmq.Socket[bytes]
Context: TypeAlias = zmq.Context[Socket]

KeyFile: TypeAlias = str | os.PathLike[str] | None
"""A client's key file; None for that of the environment, if any."""

_SOCKET_OPTIONS = {
    zmq.LINGER: 0,
    # Without heartbeats a half-open connection leaves a subscriber without messages for ever.
    zmq.HEARTBEAT_IVL: 250,
    zmq.HEARTBEAT_TIMEOUT: 750,
    zmq.HEARTBEAT_TTL: 1000,
    zmq.HANDSHAKE_IVL: 2000,
    zmq.RECONNECT_IVL: 50,
    zmq.RECONNECT_IVL_MAX: 1000,
}


def open_socket(context: Context, kind: int, *, max_bytes: int, options: Mapping[Any, int] | None = None) -> Socket:
    """Return a socket with heartbeats, bounded frames and no lingering; `options` go on top, before any bind."""
    socket: Socket = context.socket(kind)
    for name, value in (_SOCKET_OPTIONS | {zmq.MAXMSGSIZE: max_bytes} | dict(options or {})).items():
        socket.setsockopt(name, value)
    return socket


def connect(
    kind: int,
    endpoint: str,
    what: str,
    *,
    max_bytes: int,
    options: Mapping[Any, int] | None = None,
    key: KeyFile = None,
) -> Socket:
    """Return a socket in a context of its own, connected whether or not anybody is there yet; `disconnect` ends both.

    Over tcp it uses the key file `key`, or the one that NUCLR_STREAM_KEY names. Raises EndpointError when `endpoint`
    is none, or lies in another user's folder; AccessError for a key file that cannot be used.
    """
    if endpoint.startswith("ipc://"):
        _check_owner(endpoint, what)
    pair = client_key(key) if endpoint.startswith("tcp://") else None
    socket = open_socket(zmq.Context(), kind, max_bytes=max_bytes, options=options)
    try:
        if pair is not None:
            as_client(socket, pair)
        socket.setsockopt(zmq.IPV6, "[" in endpoint)
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        disconnect(socket)
        raise EndpointError(f"{what} {endpoint!r} is no endpoint such as tcp://127.0.0.1:5581 ({error})") from error
    return socket


def connect_source(endpoint: str, *, wait_s: float, key: KeyFile = None) -> Socket:
    """Return a socket that pushes data to a daemon, after waiting up to `wait_s` for one. Errors as `connect`.

    It takes messages only while a daemon is there: nothing is queued for one that may never come.
    """
    options = {zmq.IMMEDIATE: 1, zmq.RECONNECT_IVL_MAX: 200}  # a daemon that is back is to be found at once
    socket = connect(zmq.PUSH, endpoint, "data endpoint", max_bytes=4096, options=options, key=key)
    socket.poll(int(wait_s * 1000), zmq.POLLOUT)
    return socket


def disconnect(socket: Socket, *, linger_s: float = 0.0) -> None:
    """Close a socket of `connect` and its context; what was accepted may still leave for `linger_s`."""
    context = socket.context
    socket.close(linger=int(linger_s * 1000))
    context.term()


def take(socket: Socket) -> list[bytes] | None:
    """Return the next message that has arrived, or None."""
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


def give(socket: Socket, frames: Sequence[bytes], *, wait_s: float = 0.0) -> bool:
    """Send a message if there is room for it within `wait_s`; returns whether it was sent."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            socket.send_multipart(frames, zmq.NOBLOCK)
            return True
        except zmq.Again:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not socket.poll(int(left_s * 1000) + 1, zmq.POLLOUT):
                return False


def bind(socket: Socket, endpoint: str, setting: str) -> str:
    """Bind and return the endpoint that clients connect to, with the port that was picked for port 0.

    Raises EndpointError when `endpoint` is taken, or when anybody could reach it: beyond this machine only a socket
    with CURVE is bound. The error names the option of `setting`.
    """
    reason = bind_error(endpoint, keyed=socket.getsockopt(zmq.MECHANISM) == zmq.CURVE)
    if reason:
        raise EndpointError(f"{setting} = {endpoint!r}: {reason}")
    try:
        socket.setsockopt(zmq.IPV6, "[" in endpoint)
        with _private_files():
            socket.bind(endpoint.removesuffix(":0") + ":*" if endpoint.endswith(":0") else endpoint)
    except zmq.ZMQError as error:
        remedy = f"stop whatever holds it, or choose another with {option(setting)}"
        raise EndpointError(f"{setting} {endpoint} cannot be bound ({error}); {remedy}") from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def lock_ipc(endpoint: str, setting: str) -> IO[bytes] | None:
    """Return the held lock of an ipc endpoint (close it to let go), or None for tcp, whose ports lock themselves.

    A second bind on a live ipc path silently steals it, so the lock file beside it is what keeps a second daemon out.
    The folder is made for the owner alone. Raises EndpointError when another daemon holds the lock or others may enter.
    """
    if not endpoint.startswith("ipc://"):
        return None
    if sys.platform == "win32":
        raise EndpointError(f"{setting} {endpoint}: there is no ipc on Windows; use tcp://127.0.0.1:PORT")
    path = Path(endpoint[6:])
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = path.parent.lstat()
        if folder.st_uid != os.geteuid() or not stat.S_ISDIR(folder.st_mode):
            remedy = f"name one of your own with {option(setting)}"
            raise EndpointError(f"{setting} {endpoint}: {path.parent} is no folder of this user; {remedy}")
        if folder.st_mode & 0o077:
            raise EndpointError(f"{setting} {endpoint}: others may enter {path.parent}; chmod 700 it or use another")
        lock = path.with_name(path.name + ".lock").open("wb")
    except OSError as error:
        raise EndpointError(f"{setting} {endpoint}: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        remedy = f"stop it, or choose another path with {option(setting)}"
        raise EndpointError(f"{setting} {endpoint}: a daemon is running there; {remedy}") from error
    return lock


def is_locked(lock: IO[bytes]) -> bool:
    """Whether a daemon holds the opened lock file of `lock_ipc`."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _check_owner(endpoint: str, what: str) -> None:
    """Raise EndpointError for a folder that somebody else made: whoever it is would get what is sent."""
    folder = Path(endpoint[6:]).parent
    try:
        owner = folder.stat().st_uid
    except OSError:  # not there yet: the socket waits for it, as for a port where nobody listens
        return
    if sys.platform != "win32" and os.geteuid() not in (0, owner):
        raise EndpointError(f"{what} {endpoint}: {folder} belongs to another user, whose daemon serves nobody else")


@contextmanager
def _private_files() -> Iterator[None]:
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
