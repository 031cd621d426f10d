"""CURVE on sockets, and the thread that libzmq asks whether a key is allowed (ZAP, RFC 27).

libzmq lets everybody in who knows the daemon's public key as long as nobody answers these questions. So the domain is
never empty and its enforcement is on: without an answer there is no connection.
"""

from __future__ import annotations

from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from nuclr_stream.access.allow_list import WatchedAllowList
from nuclr_stream.access.keys import KeyPair

SOCKETS = ("data", "results", "query")
_DOMAIN = "nuclr-stream-"


def as_server(socket: zmq.Socket[bytes], pair: KeyPair, name: str) -> None:
    """Have a socket, before its bind, admit allowed keys alone; `name` is one of SOCKETS."""
    socket.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN + name)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt_string(zmq.CURVE_SECRETKEY, pair.secret)


def as_client(socket: zmq.Socket[bytes], pair: KeyPair) -> None:
    """Have a socket, before it connects, talk to the daemon of `pair` alone, as the holder of its key."""
    socket.setsockopt_string(zmq.CURVE_SERVERKEY, pair.daemon)
    socket.setsockopt_string(zmq.CURVE_PUBLICKEY, pair.public)
    socket.setsockopt_string(zmq.CURVE_SECRETKEY, pair.secret)


class Authenticator:
    """Answers, in a thread of its own, whether a key may connect to one of the sockets of `context`; until `close`.

    It must be there before the first bind.
    """

    def __init__(self, context: zmq.Context[Any], allowed: WatchedAllowList) -> None:
        self._zap = ThreadAuthenticator(context)
        for name in SOCKETS:  # a rule for all domains would not hold for named ones
            self._zap.configure_curve_callback(domain=_DOMAIN + name, credentials_provider=_Rights(allowed, name))
        self._zap.start()

    @property
    def alive(self) -> bool:
        """Whether the thread answers; if not, nobody gets in."""
        return self._zap.is_alive()

    def close(self) -> None:
        """End the thread. Nobody gets in from then on."""
        self._zap.stop()


class _Rights:
    """Answers for one socket."""

    def __init__(self, allowed: WatchedAllowList, name: str) -> None:
        self._allowed, self._name = allowed, name

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the holder of `key` (Z85) may connect."""
        rights = self._allowed.current.get(key.decode("ascii"))
        return rights is not None and rights.may(self._name)
