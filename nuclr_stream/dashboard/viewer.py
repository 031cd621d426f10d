"""One viewer of the page: what it watches, what it was sent, and when it gets the next frame.

The newest frame wins: nothing is queued. A frame is made when the viewer has drawn all but one of those before it, from
what is known then. So a viewer that stalls costs nothing, and the others never wait for it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from nuclr_stream.client.subscriber import Query
from nuclr_stream.dashboard.board import Board
from nuclr_stream.dashboard.frames import pack
from nuclr_stream.dashboard.probe import Arrays, Probe
from nuclr_stream.dashboard.words import NO_LOSS, words
from nuclr_stream.wire.codes import OOD_FLAGS

FRAME_S = 0.1
"""Frames come no faster than this."""
SIGN_OF_LIFE_S = 1.0
"""A frame comes at least this often, so that the page can tell a silent daemon from a dead server."""
SLOW_S = 1.0
"""What changes slowly, and what is large, is sent no more often than this."""
IN_FLIGHT = 2
"""Frames that may be on their way: one is being drawn while the next travels."""
MAX_NOTE = 1000

Send = Callable[[bytes], Awaitable[None]]
Ask = Callable[[Callable[[Query], dict[str, Any]]], Awaitable[dict[str, Any] | None]]
Note = Callable[[str, str], str]


@dataclass
class _Sent:
    """What a viewer has of one probe: numbers of the newest that it was sent."""

    layout: int = -1
    seq: int = -1
    task: int = -1
    full: bool = False
    placement: str = ""
    activity: tuple[int, int, int] = (-1, -1, -1)
    slow_at: float = 0.0


class Viewer:
    """Serves one websocket: `run` sends, `take` is called with every text that the page sends."""

    def __init__(self, board: Board, send: Send, *, ask: Ask, note: Note | None = None) -> None:
        self.board = board
        self.watched = ""
        self._send, self._ask, self._note = send, ask, note
        self._task = 0
        self._frozen = False
        self._unit: tuple[str, str] | None = None
        self._asked: tuple[str, str, int, int] | None = None
        self._asking: asyncio.Task[dict[str, Any] | None] | None = None
        self._asked_at = self._activity_at = self._daemon_at = 0.0
        self._sent: dict[str, _Sent] = {}
        self._number = self._drawn = self._happened = 0
        self._wake, self._room = asyncio.Event(), asyncio.Event()
        self._answer = ""

    # -- what the page says ------------------------------------------------------------------------------------------

    def take(self, text: str) -> None:
        """Take a message of the page; whatever is no message of ours is ignored, it can change nothing here."""
        try:
            message = json.loads(text)
        except ValueError:
            return
        if not isinstance(message, dict):
            return
        drawn, watch, task, unit, note = (message.get(name) for name in ("drawn", "watch", "task", "unit", "note"))
        if isinstance(drawn, int):
            self._drawn = max(self._drawn, min(drawn, self._number))
            self._room.set()
            if len(message) == 1:
                return  # that a frame was drawn is no reason for another
        if isinstance(watch, str):
            self.watched = watch
        if isinstance(task, int) and 0 <= task < 16:
            self._task = task
        if isinstance(message.get("freeze"), bool):
            self._frozen = message["freeze"]
        if unit is None and "unit" in message:
            self._unit = None
        elif isinstance(unit, list) and len(unit) == 2 and all(isinstance(name, str) for name in unit):
            self._unit, self._asked = (unit[0], unit[1]), None
        if isinstance(note, str) and note.strip():
            where = self.watched
            self._answer = self._note(where, note.strip()[:MAX_NOTE]) if self._note else "notes are off"
        self._wake.set()

    # -- what it is sent ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send frames until cancelled or the connection ends."""
        hello = {"words": words(), "no_loss": sorted(NO_LOSS), "ood_flags": int(OOD_FLAGS)}
        await self._send(pack("hello", hello | {"notes": self._note is not None}))
        self.board.listeners.add(self._wake)
        try:
            await self._send_on()
        finally:
            self.board.listeners.discard(self._wake)
            if self._asking is not None:
                self._asking.cancel()

    async def _send_on(self) -> None:
        due = time.monotonic()
        while True:
            self._wake.clear()
            await self._send_frames()
            # a fixed beat: a frame that is late does not move the ones behind it, unless it is a whole beat late
            due = max(due + FRAME_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), SIGN_OF_LIFE_S)
            while self._number - self._drawn >= IN_FLIGHT:
                self._room.clear()
                await self._room.wait()

    async def _send_frames(self) -> None:
        now = time.monotonic()
        if self.watched not in self.board.probes:
            self.watched = next(iter(self.board.probes), "")
        for probe in [] if self._frozen else list(self.board.probes.values()):
            sent = self._sent.setdefault(probe.stream, _Sent())
            if sent.layout != probe.layout:
                header, arrays = probe.layout_frame()
                await self._send(pack("layout", header, arrays))
                sent.layout, sent.seq = probe.layout, -1
            placement = json.dumps(_shown(probe.placement)) if probe.placement else ""
            if sent.placement != placement:
                await self._send(
                    pack("placement", {"stream": probe.stream, "placement": json.loads(placement or "{}")})
                )
                sent.placement = placement
        for stream in [name for name in self._sent if name not in self.board.probes]:
            del self._sent[stream]
        await self._send_seldom(now)
        self._number += 1
        await self._send(self._frame(now))

    def _frame(self, now: float) -> bytes:
        """Return the frame that every viewer gets at its beat: the probes that changed since its last one."""
        probes: list[dict[str, Any]] = []
        every: Arrays = {}
        for place, probe in enumerate(() if self._frozen else self.board.probes.values()):
            sent, is_watched = self._sent.get(probe.stream), probe.stream == self.watched
            if sent is None or sent.layout != probe.layout:
                continue  # it changed while others were sent: rows that the page does not know yet would be other units
            if sent.seq == probe.seq and sent.full == is_watched and sent.task == self._task:
                continue
            sent.seq, sent.full, sent.task = probe.seq, is_watched, self._task
            summary = probe.summary() | {"place": place}
            arrays = probe.full() if is_watched else probe.brief(self._task)
            if now - sent.slow_at >= SLOW_S or (is_watched and not sent.slow_at):
                sent.slow_at = now
                summary |= probe.slow_summary()
                arrays |= probe.slow() if is_watched else {}
            probes.append(summary)
            every |= {f"{place}.{name}": array for name, array in arrays.items()}
        header = self.board.header() | {
            "n": self._number,
            "watched": self.watched,
            "task": self._task,
            "probes": probes,
        }
        if self._answer:
            header["answer"], self._answer = self._answer, ""
        return pack("frame", header, every)

    async def _send_seldom(self, now: float) -> None:
        """Send what is large or changes slowly: the daemon, events, the raster, the unit that is selected."""
        if now - self._daemon_at >= SLOW_S:
            self._daemon_at = now
            await self._send(pack("daemon", self.board.daemon_header()))
        fresh = [asdict(one) for one in self.board.happenings if one.number > self._happened]
        if fresh:
            self._happened = fresh[-1]["number"]
            await self._send(pack("events", {"events": fresh}))
        probe = self.board.probes.get(self.watched)
        if probe is not None and not self._frozen:
            await self._send_activity(probe, now)
        if self._unit is not None:
            await self._send_unit(*self._unit, now)

    async def _send_activity(self, probe: Probe, now: float) -> None:
        if probe.activity is None or now - self._activity_at < SLOW_S / 2:
            return
        number = (probe.activity.epoch, probe.activity.end_sample, probe.layout)
        sent = self._sent.get(probe.stream)
        found = probe.activity_frame() if sent is not None and sent.activity != number else None
        if sent is not None and found is not None:
            sent.activity, self._activity_at = number, now
            await self._send(pack("activity", *found))

    async def _send_unit(self, stream: str, unit_id: str, now: float) -> None:
        """Have the evidence for a unit asked, once a step and SLOW_S at most; send the unit when it is there.

        Frames do not wait for the answer: a daemon that is busy delays only why a unit is called so.
        """
        probe = self.board.probes.get(stream)
        if probe is None or probe.predictions is None:
            return
        if self._asking is not None and self._asking.done():
            evidence, self._asking = self._asking.result(), None
            if self._asked is not None and self._asked[:2] == (stream, unit_id):
                await self._send(pack("unit", *probe.unit_frame(unit_id, evidence)))
        number = (stream, unit_id, probe.predictions.epoch, probe.predictions.step)
        if self._asking is None and (self._asked is None or (self._asked != number and now - self._asked_at >= SLOW_S)):
            self._asked, self._asked_at = number, now
            self._asking = asyncio.create_task(self._evidence(stream, unit_id))
            self._asking.add_done_callback(lambda _: self._wake.set())

    async def _evidence(self, stream: str, unit_id: str) -> dict[str, Any] | None:
        if not self.board.connected:
            return None
        return await self._ask(lambda query: query.evidence(stream, [unit_id]))


def _shown(placement: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a placement that is shown: neither single units nor the probabilities at every depth."""
    shown = {name: value for name, value in placement.items() if name not in ("units", "epoch", "end_sample")}
    large = ("depth_um", "probabilities")
    shanks = [{k: v for k, v in shank.items() if k not in large} for shank in placement.get("shanks", ())]
    return shown | {"shanks": shanks}
