"""A TCP proxy that breaks what goes through it: it cuts connections, holds data back, slows them down."""

from __future__ import annotations

import selectors
import socket
import threading
import time

CHUNK = 65_536


class ChaosProxy:
    """Listens on a free port of 127.0.0.1 and forwards to `port`; a context. One thread.

    `cut` drops all connections and refuses new ones until `mend`; `stall` leaves them open and forwards nothing, as a
    cable that was pulled does. `delay_s` holds every chunk back, `bytes_per_s` throttles.
    """

    def __init__(self, port: int, *, delay_s: float = 0.0, bytes_per_s: float = 0.0) -> None:
        self._target = port
        self.delay_s, self.bytes_per_s = delay_s, bytes_per_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peer: dict[socket.socket, socket.socket] = {}
        self._cut = self._stalled = self._over = False
        self.forwarded = 0
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> ChaosProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        for side in [*self._peer, self._listener]:
            side.close()
        self._selector.close()

    def cut(self) -> None:
        """Drop every connection, and each that is made from now on."""
        self._cut = True

    def stall(self) -> None:
        """Forward nothing, and say nothing of it."""
        self._stalled = True

    def mend(self) -> None:
        """Work again."""
        self._cut = self._stalled = False

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.01):
                side = key.fileobj
                assert isinstance(side, socket.socket)
                if side is self._listener:
                    self._accept()
                elif side in self._peer and not self._stalled:
                    self._forward(side)
            if self._cut:
                for side in list(self._peer):
                    self._drop(side)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=1)
        except OSError:
            client.close()
            return
        for side, peer in ((client, server), (server, client)):
            side.settimeout(5)
            self._peer[side] = peer
            self._selector.register(side, selectors.EVENT_READ)

    def _forward(self, side: socket.socket) -> None:
        try:
            data = side.recv(CHUNK)
            if self.delay_s:
                time.sleep(self.delay_s)
            if self.bytes_per_s:
                time.sleep(len(data) / self.bytes_per_s)
            if data:
                self._peer[side].sendall(data)
                self.forwarded += len(data)
                return
        except OSError:
            pass
        self._drop(side)

    def _drop(self, side: socket.socket) -> None:
        if side not in self._peer:
            return  # it went with its peer
        for end in (side, self._peer.pop(side, None)):
            if end is not None:
                self._peer.pop(end, None)
                self._selector.unregister(end)
                end.close()
