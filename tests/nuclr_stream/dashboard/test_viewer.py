"""One viewer: the newest frame wins, what is drawn opens the way for the next, and nothing that it sends can hurt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from nuclr_stream.dashboard.board import Board
from nuclr_stream.dashboard.frames import unpack
from nuclr_stream.dashboard.viewer import IN_FLIGHT, SIGN_OF_LIFE_S, Viewer
from tests.nuclr_stream.dashboard.stand_in import FakeProbe


class Page:
    """The other end: collects frames, and waits for one that answers a description."""

    def __init__(self, board: Board, *, note: Callable[[str, str], str] | None = None) -> None:
        self.frames: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._came = asyncio.Condition()
        self.viewer = Viewer(board, self._take, ask=self._evidence, note=note)

    async def _take(self, frame: bytes) -> None:
        async with self._came:
            self.frames.append(unpack(frame))
            self._came.notify_all()

    async def _evidence(self, _question: object) -> dict[str, Any] | None:
        return {"units": []}

    async def until(self, found: Callable[[dict[str, Any]], bool]) -> tuple[dict[str, Any], dict[str, Any]]:
        async with asyncio.timeout(10), self._came:
            while True:
                for header, arrays in self.frames:
                    if found(header):
                        return header, arrays
                await self._came.wait()

    def say(self, **message: object) -> None:
        self.viewer.take(json.dumps(message))


def served(test: Callable[[Page, Board, dict[str, FakeProbe]], Any], **options: Any) -> None:
    """Run `test` against a viewer of two probes."""

    async def run() -> None:
        board, fakes = Board("here"), {name: FakeProbe(name, units=6) for name in ("a", "b")}
        for fake in fakes.values():
            board.take(fake.stream_state(instance=1))
            board.take(fake.predictions(instance=1))
        page = Page(board, **options)
        sending = asyncio.create_task(page.viewer.run())
        try:
            await test(page, board, fakes)
        finally:
            sending.cancel()

    asyncio.run(run())


def test_the_first_frames_hold_the_full_state() -> None:
    async def test(page: Page, _board: Board, _fakes: object) -> None:
        header, arrays = await page.until(lambda header: header["kind"] == "frame")
        kinds = [one["kind"] for one, _ in page.frames]
        assert kinds[0] == "hello" and kinds.count("layout") == 2 and "daemon" in kinds
        assert header["watched"] == "a" and [probe["stream"] for probe in header["probes"]] == ["a", "b"]
        assert {"0.top0", "0.why1", "0.flags", "0.windows", "1.top", "1.p"} <= set(arrays)
        assert "1.top0" not in arrays  # a probe that is not watched is a strip of colours

    served(test)


def test_nothing_is_queued_for_a_viewer_that_does_not_draw() -> None:
    async def test(page: Page, board: Board, fakes: dict[str, FakeProbe]) -> None:
        await page.until(lambda header: header.get("n") == 1)
        for _ in range(30):
            fakes["a"].step += 1
            board.take(fakes["a"].predictions(instance=1))
            await asyncio.sleep(0)
        await page.until(lambda header: header.get("n") == IN_FLIGHT)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await page.until(lambda header: header.get("n") == IN_FLIGHT + 1)
        fakes["a"].step += 1
        board.take(fakes["a"].predictions(instance=1))
        page.say(drawn=IN_FLIGHT)
        header, _ = await page.until(lambda header: header.get("n") == IN_FLIGHT + 1)
        assert header["probes"][0]["step"] == fakes["a"].step  # the newest, none of those between

    served(test)


def test_without_anything_new_there_are_only_signs_of_life() -> None:
    async def test(page: Page, _board: Board, _fakes: object) -> None:
        await page.until(lambda header: header.get("n") == 1)
        begun = asyncio.get_running_loop().time()
        for number in (1, 2, 3):
            page.say(drawn=number)
            await page.until(lambda header, number=number: header.get("n") == number + 1)
        assert asyncio.get_running_loop().time() - begun >= 2 * SIGN_OF_LIFE_S

    served(test)


def test_a_frame_holds_only_the_probes_that_changed() -> None:
    async def test(page: Page, board: Board, fakes: dict[str, FakeProbe]) -> None:
        await page.until(lambda header: header.get("n") == 1)
        page.say(drawn=1)
        fakes["b"].step += 1
        board.take(fakes["b"].predictions(instance=1))
        header, _ = await page.until(lambda header: header.get("n", 0) > 1 and bool(header["probes"]))
        assert [probe["stream"] for probe in header["probes"]] == ["b"]

    served(test)


def test_rows_are_never_sent_before_the_layout_that_says_whose_they_are() -> None:
    async def test(page: Page, board: Board, fakes: dict[str, FakeProbe]) -> None:
        await page.until(lambda header: header.get("n") == 1)
        sending = page.viewer._send_seldom

        async def meanwhile(now: float) -> None:  # units change, and a probe appears, while a frame is being made
            more = FakeProbe("a", units=9)
            more.step = 120
            board.take(more.predictions(instance=1))
            board.take(FakeProbe("c", units=3).predictions(instance=1))
            await sending(now)

        page.viewer._send_seldom = meanwhile  # type: ignore[method-assign]
        page.say(drawn=1, watch="a")
        header, _ = await page.until(lambda header: header.get("n") == 2)
        assert header["probes"] == []
        page.say(drawn=2)
        header, arrays = await page.until(lambda header: header.get("n") == 3)
        layouts = {one["stream"]: one["layout"] for one, _ in page.frames if one["kind"] == "layout"}
        assert {one["stream"]: one["layout"] for one in header["probes"]} == {
            name: layouts[name] for name in ("a", "c")
        }
        assert len(arrays["0.top0"]) == 9

    served(test)


def test_another_probe_and_task_can_be_watched() -> None:
    async def test(page: Page, _board: Board, _fakes: object) -> None:
        page.say(watch="b", task=1)
        header, arrays = await page.until(lambda header: header.get("watched") == "b")
        assert header["task"] == 1
        assert "1.top1" in arrays and "0.top" in arrays

    served(test)


def test_the_unit_that_is_selected_comes_with_its_history_and_evidence() -> None:
    async def test(page: Page, _board: Board, _fakes: object) -> None:
        page.say(unit=["a", "u3"])
        header, arrays = await page.until(lambda header: header["kind"] == "unit")
        assert header["unit_id"] == "u3" and header["evidence"] == {"units": []}
        assert len(arrays["p0"]) == 4 * len(arrays["time_s"])

    served(test)


def test_a_frozen_display_gets_signs_of_life_and_no_predictions() -> None:
    async def test(page: Page, board: Board, fakes: dict[str, FakeProbe]) -> None:
        await page.until(lambda header: header.get("n") == 1)
        page.say(drawn=1, freeze=True)
        fakes["a"].step += 1
        board.take(fakes["a"].predictions(instance=1))
        header, _ = await page.until(lambda header: header.get("n") == 2)
        assert header["probes"] == [] and header["connected"]
        page.say(drawn=2, freeze=False)
        header, _ = await page.until(lambda header: header.get("n", 0) > 2 and bool(header["probes"]))
        assert header["probes"][0]["step"] == fakes["a"].step

    served(test)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "nonsense",
            "[]",
            "7",
            '{"watch": 3}',
            '{"task": -1}',
            '{"task": 99}',
            '{"unit": ["a"]}',
            '{"unit": [1, 2]}',
        ),
        *('{"drawn": 1e9}', '{"drawn": "x"}', '{"note": ["x"]}', '{"freeze": 3}', '{"watch": "no such probe"}'),
    ],
)
def test_what_is_no_message_of_ours_changes_nothing(text: str) -> None:
    async def test(page: Page, _board: Board, _fakes: object) -> None:
        page.viewer.take(text)
        header, _ = await page.until(lambda header: header.get("n") == 1)
        assert (header["watched"], header["task"]) == ("a", 0)

    served(test)


def test_notes_are_taken_only_where_they_are_allowed() -> None:
    taken: list[tuple[str, str]] = []

    def note(stream: str, text: str) -> str:
        taken.append((stream, text))
        return "noted"

    async def test(page: Page, _board: Board, _fakes: object) -> None:
        await page.until(lambda header: header.get("n") == 1)
        page.say(note="  reached the border ", drawn=1)
        header, _ = await page.until(lambda header: "answer" in header)
        page.frames.append(({"kind": "answer", "text": header["answer"]}, {}))

    served(test, note=note)
    assert taken == [("a", "reached the border")]
    served(test)
    assert len(taken) == 1
