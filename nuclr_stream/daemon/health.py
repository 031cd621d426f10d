"""/metrics, /livez, /readyz and /status on 127.0.0.1, from a thread of its own that only reads finished snapshots."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from nuclr_stream.config import option
from nuclr_stream.errors import EndpointError

LIVE_WITHIN_S = 1.0


@dataclass
class Board:
    """What the main loop pins up for others to read: every value is replaced as a whole, never changed.

    `tick_ns` is the monotonic time of the last turn of the loop, `not_ready` says why predictions cannot be expected
    (empty when they can), `status` is the JSON document of /status.
    """

    tick_ns: int = 0
    not_ready: tuple[str, ...] = ("starting",)
    status: Mapping[str, Any] = field(default_factory=dict)

    def silent_s(self) -> float:
        """Return how long ago the main loop last turned."""
        return (time.monotonic_ns() - self.tick_ns) / 1e9


class HealthServer:
    """Serves a board and the metrics. Raises EndpointError when the port is taken."""

    def __init__(self, port: int, board: Board, metrics_text: Callable[[], bytes]) -> None:
        try:
            self._server = _Server(("127.0.0.1", port), _Handler)
        except OSError as error:
            remedy = f"choose another with {option('http_port')}, 0 for a free one"
            raise EndpointError(f"http_port {port} cannot be bound ({error.strerror}); {remedy}") from error
        self._server.board, self._server.metrics_text = board, metrics_text
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    board: Board
    metrics_text: Callable[[], bytes]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 5

    def do_GET(self) -> None:
        """Answer one of the four addresses."""
        board = self.server.board
        if self.path == "/metrics":
            self._answer(200, self.server.metrics_text(), "text/plain; version=0.0.4; charset=utf-8")
        elif self.path == "/livez":
            self._judge(_silence(board))
        elif self.path == "/readyz":
            # what a loop that hangs has pinned up is of the past
            self._judge(board.not_ready + (_silence(board) if board.tick_ns else ()))
        elif self.path == "/status":
            self._answer(200, json.dumps(board.status).encode(), "application/json")
        else:
            self._answer(404, b"/metrics /livez /readyz /status\n", "text/plain")

    def _judge(self, reasons: tuple[str, ...]) -> None:
        self._answer(503 if reasons else 200, ("\n".join(reasons) or "ok").encode() + b"\n", "text/plain")

    def _answer(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


def _silence(board: Board) -> tuple[str, ...]:
    silent_s = board.silent_s()
    return () if silent_s < LIVE_WITHIN_S else (f"main loop silent for {silent_s:.1f} s",)
