"""The web server of the page: static files, one websocket a viewer, and the threads that feed them."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from nuclr_stream.client.subscriber import Query, Subscription
from nuclr_stream.config import QUERY_ENDPOINT, RESULTS_ENDPOINT
from nuclr_stream.dashboard.access import LOOPBACK, Access
from nuclr_stream.dashboard.board import Board
from nuclr_stream.dashboard.contacts import Contacts
from nuclr_stream.dashboard.feed import Asker, Feed, Refresher
from nuclr_stream.dashboard.viewer import Viewer
from nuclr_stream.errors import EndpointError, NuclrStreamError
from nuclr_stream.placement.trajectory import Planned

STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """What the page's server runs with.

    Args:
        results: endpoint where the daemon publishes.
        query: endpoint where it answers.
        host: address to serve on; beyond loopback every viewer needs the token.
        port: 0 picks a free one.
        token: what viewers must know; empty makes one up where one is needed.
        plans: planned trajectories by stream.
        contacts: contacts of the probe by stream.
        notes: file that notes of viewers are appended to; None takes none.
    """

    results: str = RESULTS_ENDPOINT
    query: str = QUERY_ENDPOINT
    host: str = "127.0.0.1"
    port: int = 0
    token: str = ""
    plans: Mapping[str, Sequence[Planned]] = field(default_factory=dict)
    contacts: Mapping[str, Contacts] = field(default_factory=dict)
    notes: Path | None = None


class Page:
    """The page's server: bound on creation, serves in `run`, ends after `stop`. `url` is what to open.

    Raises EndpointError when the address cannot be bound or an endpoint is none, NuclrStreamError for a file of notes
    that cannot be written.
    """

    def __init__(self, settings: PageSettings) -> None:
        self.settings = settings
        self._loopback = settings.host in LOOPBACK
        self.token = settings.token or ("" if self._loopback else secrets.token_urlsafe(16))
        if settings.notes is not None:
            try:
                settings.notes.open("a", encoding="utf-8").close()
            except OSError as error:
                raise NuclrStreamError(f"--notes {settings.notes}: {error.strerror}; choose another file") from error
        # what cannot be connected to must be said now, not by a server that is up already
        Query(settings.query).close()
        self._subscription = Subscription("", results=settings.results, query=settings.query)
        try:
            self._socket = _bound(settings.host, settings.port)
        except EndpointError:
            self._subscription.close()
            raise
        self._viewers: set[Viewer] = set()
        config = uvicorn.Config(
            self.app(),
            ws="websockets-sansio",
            ws_per_message_deflate=False,  # time spent packing is time that a frame is late; frames are small
            ws_max_size=2**16,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)

    @property
    def url(self) -> str:
        """The address to open, with the token if there is one."""
        port = self._socket.getsockname()[1]
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        host = socket.gethostname() if host in ("0.0.0.0", "[::]") else host
        return f"http://{host}:{port}/" + (f"?token={self.token}" if self.token else "")

    def app(self) -> ASGIApp:
        """Return the application, without a server around it."""
        routes = [WebSocketRoute("/live", self._live), Mount("/", StaticFiles(directory=STATIC, html=True))]
        return Access(Starlette(routes=routes, lifespan=self._feeding), token=self.token, loopback=self._loopback)

    def run(self) -> None:
        """Serve until `stop` or a signal."""
        with suppress(KeyboardInterrupt):
            asyncio.run(self._server.serve(sockets=[self._socket]))

    def stop(self) -> None:
        """Ask `run` to end; from any thread or signal handler."""
        self._server.should_exit = True

    def close(self) -> None:
        """Free everything without ever having run."""
        self._socket.close()
        self._subscription.close()

    @asynccontextmanager
    async def _feeding(self, _app: Starlette) -> AsyncIterator[None]:
        self._board = Board(self.settings.results, contacts=self.settings.contacts)
        self._asker = Asker(self.settings.query)
        feed = Feed(self._board, self._subscription)
        refresher = Refresher(self._board, self._asker, plans=dict(self.settings.plans))
        refresher.watched = lambda: {viewer.watched for viewer in self._viewers}
        refreshing = asyncio.create_task(refresher.run())
        try:
            yield
        finally:
            refreshing.cancel()
            await feed.close()
            await self._asker.close()

    async def _live(self, websocket: WebSocket) -> None:
        await websocket.accept()
        note = self._note if self.settings.notes is not None else None
        viewer = Viewer(self._board, websocket.send_bytes, ask=self._asker.ask, note=note)
        self._viewers.add(viewer)
        sending = asyncio.create_task(viewer.run())
        # a viewer that is gone ends its own sending; any other error in it must be seen
        sending.add_done_callback(_raise_unless_gone)
        try:
            while True:
                viewer.take(await websocket.receive_text())
        except (WebSocketDisconnect, KeyError):  # KeyError: bytes, which no page of ours sends
            pass
        finally:
            self._viewers.discard(viewer)
            sending.cancel()

    def _note(self, stream: str, text: str) -> str:
        """Keep a viewer's note; returns what became of it, in words."""
        assert self.settings.notes is not None
        probe = self._board.probes.get(stream)
        sample = None if probe is None or probe.predictions is None else probe.predictions.end_sample
        line = {"unix_s": time.time(), "stream": stream, "end_sample": sample, "note": text}
        try:
            with self.settings.notes.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            return f"the note was not kept: {self.settings.notes}: {error.strerror}"
        time_s = None if probe is None or probe.predictions is None else probe.time_s
        self._board.add(stream=stream, kind="note", detail=text, sample_s=time_s)
        return f"noted in {self.settings.notes}"


def _raise_unless_gone(task: asyncio.Task[None]) -> None:
    if task.cancelled() or isinstance(task.exception(), (WebSocketDisconnect, RuntimeError)):
        return
    error = task.exception()
    if error is not None:
        task.get_loop().call_exception_handler({"message": "a viewer failed", "exception": error})


def _bound(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        remedy = "stop whatever holds it, or choose another with --port"
        raise EndpointError(f"--host {host} --port {port} cannot be bound ({error}); {remedy}") from error
