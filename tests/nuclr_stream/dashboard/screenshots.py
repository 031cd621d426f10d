"""Pictures of the page in every state: `python -m tests.nuclr_stream.dashboard.screenshots [NAME...]`.

They go to docs/figures/dashboard/. Predictions are made up by the stand-in, and the pages that show them say so.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

from nuclr_stream.dashboard.server import Page, PageSettings
from nuclr_stream.placement.trajectory import Planned
from tests.nuclr_stream.dashboard.browser import ARGUMENTS, CHROMIUM, DRAWN
from tests.nuclr_stream.dashboard.stand_in import FakeProbe, StandIn

FOLDER = Path(__file__).parents[3] / "docs" / "figures" / "dashboard"
STEPS = 60
"""Steps that are published before the picture, so that histories have something to show."""


@dataclass
class Shot:
    """One picture: what is published, how large, and what the viewer did."""

    probes: Callable[[], list[FakeProbe]]
    width: int = 1280
    height: int = 800
    theme: str = "dark"
    select: str = ""
    keys: str = ""
    filter: str = ""
    gone: bool = False
    plan: tuple[Planned, ...] = ()
    steps: int = STEPS
    events: list[tuple[str, str, str]] = field(default_factory=lambda: [("probeA", "units_changed", "180 units")])


PLAN = (Planned("CTX", 2300, 3600), Planned("HPF", 1050, 2300), Planned("TH", 0, 1050))
SHOTS = {
    "overview": Shot(
        lambda: [FakeProbe("probeA", units=246, shanks=1), FakeProbe("probeB", units=180, shanks=4)],
        width=1920,
        height=1080,
        select="called",
    ),
    "light": Shot(lambda: [FakeProbe("probeA", units=180)], theme="light", select="called", plan=PLAN),
    "thirty_units": Shot(lambda: [FakeProbe("probeA", units=30)], select="called"),
    "thousand_units": Shot(
        lambda: [FakeProbe(f"probe{k}", units=1000, shanks=4) for k in "ABCD"],
        width=1920,
        height=1080,
        theme="light",
        select="called",
        filter="depth>1200 p>0.7",
    ),
    "warming_up": Shot(lambda: [FakeProbe("probeA", units=180, table_only=True, progress=0.63)], steps=1),
    "abstaining": Shot(
        lambda: [FakeProbe("probeA", units=9, state="degraded", reasons=("population_below_minimum",))], select="any"
    ),
    "undecided": Shot(lambda: [FakeProbe("probeA", units=180, abstain=0.8)], select="undecided"),
    "out_of_distribution": Shot(lambda: [FakeProbe("probeA", units=180, strange=0.55)], select="strange"),
    "degraded": Shot(
        lambda: [
            FakeProbe(
                "probeA",
                units=180,
                state="degraded",
                reasons=("gap",),
                missing=0.14,
                counters={"samples_missing": 42_000, "spikes_late": 1_730, "messages_gap": 12, "skipped_steps": 3},
            )
        ],
        select="called",
        events=[("probeA", "gap", "42000 samples missing")],
    ),
    "source_rejected": Shot(
        lambda: [
            FakeProbe(
                "probeA",
                units=180,
                state="degraded",
                reasons=("rejected_stale_epoch",),
                counters={"rejected_stale_epoch": 214},
            ),
            FakeProbe("probeB", units=120),
        ],
        select="called",
    ),
    "disconnected": Shot(lambda: [FakeProbe("probeA", units=180)], select="called", gone=True),
    "no_depth": Shot(lambda: [FakeProbe("tetrodes", units=40, depths=False, shanks=0)], select="called"),
    "no_source": Shot(list, steps=0, events=[]),
}


@contextmanager
def serving(settings: PageSettings) -> Any:
    """A page's server in a thread, stopped on leaving."""
    page = Page(settings)
    thread = threading.Thread(target=page.run)
    thread.start()
    try:
        yield page
    finally:
        page.stop()
        thread.join(10)


def take(tab: Tab, shot: Shot, path: Path) -> None:
    """Write one picture."""
    daemon = StandIn(*shot.probes())
    try:
        plans = {stream: shot.plan for stream in daemon.probes if shot.plan}
        where = PageSettings(results=daemon.endpoints["results"], query=daemon.endpoints["query"], plans=plans)
        with serving(where) as page:
            tab.set_viewport_size({"width": shot.width, "height": shot.height})
            tab.emulate_media(color_scheme="light" if shot.theme == "light" else "dark")
            tab.goto(page.url)
            tab.wait_for_selector(DRAWN, state="attached")
            for _ in range(shot.steps):
                daemon.publish()
                tab.wait_for_timeout(20)
            for event in shot.events:
                daemon.event(*event)
            if shot.filter:
                tab.fill("#filter", shot.filter)
            if shot.select:
                tab.wait_for_selector("#legend button")
                tab.wait_for_selector("#table .rows .row:not([hidden])")
                tab.evaluate(CHOOSE, shot.select)
            tab.wait_for_timeout(2500)
            daemon.publish()
            tab.wait_for_timeout(1500)
            if shot.gone:
                daemon.close()
                tab.wait_for_selector("#link:text('no daemon')")
                tab.wait_for_timeout(1500)
            path.parent.mkdir(parents=True, exist_ok=True)
            tab.screenshot(path=path)
    finally:
        if not shot.gone:
            daemon.close()


CHOOSE = """(kind) => {
  const shape = { called: ':not(.ring):not(.cross)', undecided: '.ring', strange: '.cross', any: '' }[kind];
  const rows = [...document.querySelectorAll('#table .rows .row')].filter((row) => !row.hidden);
  const row = rows.find((row, k) => k > 2 && row.querySelector(`.task .swatch${shape}`)) ?? rows[0];
  row.click();
}"""


def main(names: list[str]) -> None:
    """Take the pictures that are named, or all."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for name in names or SHOTS:
            tab = browser.new_page()
            tab.on("pageerror", lambda error: print("error:", error))
            take(tab, SHOTS[name], FOLDER / f"{name}.png")
            tab.close()
            print(name)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
