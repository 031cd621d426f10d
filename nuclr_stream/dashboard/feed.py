"""The two threads that know the daemon: one receives what it publishes, the other asks it. Neither knows viewers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from nuclr_stream.client.subscriber import Query, QueryError, Subscription
from nuclr_stream.dashboard.board import Board
from nuclr_stream.dashboard.probe import Probe
from nuclr_stream.errors import DaemonGoneError, NuclrStreamError, WireError
from nuclr_stream.placement.trajectory import Planned
from nuclr_stream.wire import Output

POLL_S = 0.25
LOOK_S = 0.1
"""How often the refresher looks for something to ask."""
AGAIN_S = 0.2
"""Geometry that has changed, or could not be had, is asked for after so long."""
GEOMETRY_EVERY_S = 5.0
PLACEMENT_EVERY_S = 5.0
ACTIVITY_EVERY_S = 1.0
STATUS_EVERY_S = 2.0
TASK = "brain_region"

T = TypeVar("T")


class Feed:
    """Hands everything that a daemon publishes to a board, from a thread of its own, for as long as it is open."""

    def __init__(self, board: Board, subscription: Subscription) -> None:
        self._board, self._subscription = board, subscription
        self._loop = asyncio.get_running_loop()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """End the thread and close the socket."""
        self._closing.set()
        await asyncio.to_thread(self._thread.join, 2 * POLL_S + 2.0)

    def _run(self) -> None:
        with self._subscription as subscription:
            while not self._closing.is_set():
                try:
                    message = subscription.receive(POLL_S)
                except DaemonGoneError:
                    self._post(self._board.gone)
                    continue
                except WireError as error:
                    self._post(self._board.gone, f"It is of another release: {error}. ")
                    continue
                if message is not None:
                    self._post(self._take, message, subscription.lost)

    def _take(self, message: Output, lost: int) -> None:
        self._board.missed(lost)
        self._board.take(message)

    def _post(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop has ended: the page is closing
            self._closing.set()


class Asker:
    """Asks the daemon, one question at a time, in a thread of its own."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._query: Query | None = None
        self._thread = ThreadPoolExecutor(1, "asker")

    async def ask(self, question: Callable[[Query], T]) -> T | None:
        """Return the answer, None when the daemon is gone or says that there is none yet."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, question)

    async def close(self) -> None:
        """Close the socket and let the thread go."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _ask(self, question: Callable[[Query], T]) -> T | None:
        try:
            self._query = self._query or Query(self._endpoint, timeout_s=2.0)
            return question(self._query)
        except QueryError:
            return None
        except NuclrStreamError:
            self._close()  # an answer that comes too late must not be taken for that of another question
            return None

    def _close(self) -> None:
        if self._query is not None:
            self._query.close()
            self._query = None


class Refresher:
    """Asks for what is not published: geometry, activity of the probes that are watched, regions, status."""

    def __init__(self, board: Board, asker: Asker, *, plans: dict[str, Sequence[Planned]] | None = None) -> None:
        self._board, self._asker = board, asker
        self._plans = plans or {}
        self._asked_at: dict[tuple[str, str], float] = {}
        self._placed: dict[str, tuple[int, int]] = {}
        self.watched: Callable[[], set[str]] = set

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._board.connected:
                self._asked_at.clear()
                continue
            if self._is_due("", "status", STATUS_EVERY_S):
                self._board.status = await self._asker.ask(lambda query: query.status()) or self._board.status
            watched = self.watched()
            for probe in list(self._board.probes.values()):
                await self._refresh(probe, watched=probe.stream in watched)

    async def _refresh(self, probe: Probe, *, watched: bool) -> None:
        name = probe.stream
        if self._is_due(name, "geometry", AGAIN_S if probe.geometry_is_due else GEOMETRY_EVERY_S):
            await self._take(lambda query: query.activity(name), probe.take_units)
        last = probe.predictions
        if last is None:
            return
        step = (last.epoch, last.step)
        have = None if probe.activity is None else (probe.activity.epoch, probe.activity.end_sample)
        if watched and have != (last.epoch, last.end_sample) and self._is_due(name, "activity", ACTIVITY_EVERY_S):
            probe.activity = await self._asker.ask(lambda query: query.activity(name, counts=True)) or probe.activity
            self._board.changed()
        has_regions = any(task.name == TASK for task in last.tasks)
        if has_regions and self._placed.get(name) != step and self._is_due(name, "placement", PLACEMENT_EVERY_S):
            self._placed[name] = step
            plan = [(one.region, one.from_um, one.to_um) for one in self._plans.get(name, ())]
            found = await self._asker.ask(lambda query: query.placement(name, plan=plan))
            if found is None:
                return  # what was found before stays; the page says that the daemon is gone
            planned = [{"region": region, "from_um": low, "to_um": high} for region, low, high in plan]
            probe.placement = found | ({"planned": planned} if planned else {})
            self._board.changed()

    async def _take(self, question: Callable[[Query], T], take: Callable[[T], None]) -> None:
        found = await self._asker.ask(question)
        if found is not None:
            take(found)
            self._board.changed()

    def _is_due(self, name: str, what: str, every_s: float) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._asked_at.get((name, what), -1e9) < every_s:
            return False
        self._asked_at[name, what] = now
        return True
