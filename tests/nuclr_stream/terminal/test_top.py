"""The terminal view on a real daemon, driven by textual's pilot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from textual.widgets import DataTable, Static
from typer.testing import CliRunner

from nuclr_stream.client.replay import replay
from nuclr_stream.commands.cli import app
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.inference.model import Model
from nuclr_stream.terminal.app import TopApp
from nuclr_stream.terminal.feed import Feed, Seen
from nuclr_stream.terminal.lines import health, probe_row, region_lines, unit_rows
from nuclr_stream.wire import Abstained, DaemonState, StreamState
from tests.nuclr_stream.conftest import make_recording, predicted_in_process, where

RunDaemon = Callable[..., Daemon]


async def shown(pilot: Any, found: Callable[[], bool]) -> None:
    """Draw until something is shown; fails after 200 times."""
    for _ in range(200):
        pilot.app.show()
        await pilot.pause(0.05)
        if found():
            return
    raise AssertionError("it is not shown")


def text_of(view: TopApp, name: str) -> str:
    return str(view.query_one(name, Static).content)


def test_probes_units_regions_and_health_of_a_real_daemon(run_daemon: RunDaemon) -> None:
    daemon = run_daemon(abstain={"cell_type": 0.0, "brain_region": 0.0})
    for seed in (0, 1):
        for _ in replay(make_recording(seed=seed), **where(daemon)):
            pass

    async def drive() -> None:
        feed = Feed(**where(daemon, "results", "query"))
        feed.start()
        view = TopApp(feed)
        try:
            async with view.run_test(size=(150, 50)) as pilot:
                units = view.query_one("#units", DataTable)
                await shown(pilot, lambda: units.row_count == 20 and "um from the tip" in text_of(view, "#depth"))
                probes = view.query_one("#probes", DataTable)
                assert [probes.get_row_at(row)[0] for row in range(2)] == ["▶ random_0", "random_1"]
                assert probes.get_row_at(0)[1:4] == ["ended", "20.0 s", "20"]
                assert text_of(view, "#daemon").startswith(f"{daemon.model.bundle_id} on cpu, up ")
                assert units.border_title == "random_0: all 20 units, by confidence in cell type"
                sure = [float(units.get_row_at(row)[2].split()[1]) for row in range(20)]
                assert sure == sorted(sure, reverse=True)
                await pilot.press("right_square_bracket", "o")
                assert (view.chosen, view.order) == ("random_1", "depth")
                await shown(pilot, lambda: units.get_row_at(0)[1] == "3000")
                await pilot.press("space", "left_square_bracket")
                assert "random_1" in str(units.border_title), "frozen"
                await pilot.press("space")
                assert "random_0" in str(units.border_title)
                daemon.stop()
                await shown(pilot, lambda: "gone" in text_of(view, "#daemon"))
                assert view.query_one("#daemon").has_class("gone")
        finally:
            feed.close()

    asyncio.run(drive())


def test_before_anything_came_it_says_what_it_waits_for() -> None:
    assert health(Seen()) == "waiting for the daemon"
    assert region_lines(None, height=20)[0].startswith("no regions")
    warming = StreamState(
        stream="a",
        epoch=1,
        state="warming_up",
        progress=0.4,
        units=7,
        step=-1,
        end_sample=0,
        watermark=0,
        skipped_steps=0,
    )
    row = probe_row(Seen(states={"a": warming}), "a", 0.0)
    assert row == ("a", "warming up", "", "7", "", "", "", "", "40 % of the first window")


def test_everything_that_was_lost_is_named_and_reasons_stand_beside_the_probe(tiny_model: Model) -> None:
    one = replace(predicted_in_process(make_recording(), tiny_model)[-1], reasons=("too_much_missing",))
    state = DaemonState(instance=1, uptime_s=5.0, provider="cpu", bundle="b", streams=("offline",), counters={"bad": 2})
    seen = Seen(daemon=state, predictions={"offline": one}, received={"offline": time.monotonic()}, lost=3)
    assert health(seen) == "b on cpu, up 5 s; bad 2, lost by this view 3"
    assert probe_row(seen, "offline", time.monotonic())[-1] == "too much missing"


def test_called_units_come_first_and_others_say_why(tiny_model: Model) -> None:
    one = predicted_in_process(make_recording(), tiny_model)[-1]
    task = one.tasks[0]
    why = task.why.copy()
    why[:] = 0
    why[4] = Abstained.OUT_OF_DISTRIBUTION
    rows = unit_rows(replace(one, tasks=(replace(task, why=why),)), None, order="confidence")
    assert rows[-1][0] == one.unit_ids[4] and rows[-1][2].endswith("?) out of distribution")
    assert len(rows) == 20


def test_a_region_takes_as_many_lines_as_it_is_long(tiny_model: Model) -> None:
    shank: dict[str, Any] = {"shank": -1, "reason": "", "segments": [], "boundaries": []}
    edges = [("TH", 0.0, 3000.0), ("CTX", 3000.0, 4000.0)]
    shank["segments"] = [{"region": r, "from_um": a, "to_um": b, "probability": 0.9} for r, a, b in edges]
    shank["boundaries"] = [{"depth_um": 3000.0, "low_um": 2900.0, "high_um": 3100.0}]
    lines = region_lines({"shanks": [shank], "reason": ""}, height=42)
    place = {name: next(n for n, line in enumerate(lines) if name in line) for name in ("CTX", "TH", "90 %: 2900")}
    assert place["CTX"] < place["90 %: 2900"] < place["TH"], "the tip is below"
    assert (place["90 %: 2900"] - place["CTX"], len(lines) - place["TH"]) == (10, 30)


def test_without_a_terminal_it_points_to_watch() -> None:
    with pytest.raises(NuclrStreamError, match="nuclr-stream watch"):
        CliRunner().invoke(app, ["top"], catch_exceptions=False)
