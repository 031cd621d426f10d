"""The page in Chromium: what it counts, what it draws, its keys, both themes, and that it comes back by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.nuclr_stream.dashboard.browser import ARGUMENTS, CHROMIUM, DRAWN, missing
from tests.nuclr_stream.dashboard.conftest import Serve
from tests.nuclr_stream.dashboard.stand_in import FakeProbe, StandIn

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "there is a browser")

Tab = Any
Open = Callable[..., Tab]

PIXEL = """([id, x, y]) => {
  const canvas = document.getElementById(id);
  const scale = canvas.width / canvas.clientWidth;
  return [...canvas.getContext('2d').getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1).data];
}"""
NAMELESS = """() => {
  const name = (element) => element.getAttribute('aria-label') || element.getAttribute('aria-labelledby')
    || element.textContent.trim() || element.title;
  return [...document.querySelectorAll('button, input, textarea, canvas[role], [role=grid], [role=tab], [tabindex]')]
    .filter((element) => !name(element)).map((element) => element.outerHTML);
}"""
TOO_FAINT = """() => {
  const channel = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      const parts = colour.startsWith('rgb') ? parse(colour) : [0, 0, 0, 0];
      if (parts.length === 3 || parts[3] > 0.99) return parts;
      if (parts[3] > 0) return null; // see-through: measured on the palette instead
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest('.hidden-text, dialog')) continue;
    const under = ground(element);
    if (!under) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(under)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(`${element.outerHTML.slice(0, 120)} ${(a + 0.05) / (b + 0.05)}`);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of the file."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, serve: Serve) -> Iterator[Open]:
    """Open the page of a stand-in; in the end nothing may have failed in it, nor anything been asked for elsewhere."""
    tabs, errors, requests = [], [], []

    def begin(daemon: StandIn, *, theme: str = "dark", **settings: Any) -> Tab:
        tab = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=theme)
        tab.set_default_timeout(15_000)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("request", lambda request: requests.append(request.url))
        page = serve(daemon, **settings)
        tab.goto(page.url)
        tab.wait_for_selector(DRAWN, state="attached")
        tabs.append((tab, page.url))
        return tab

    yield begin
    for tab, _ in tabs:
        tab.close()
    assert errors == []
    own = (*(url.replace("http", scheme, 1) for _, url in tabs for scheme in ("http", "ws")), "blob:", "data:")
    assert [url for url in requests if not url.startswith(own)] == []


def shown(tab: Tab, text: str) -> None:
    tab.wait_for_selector(f"#shown:text('{text}')")


def test_units_are_counted_filtered_sorted_and_walked_by_keys(daemon: StandIn, visit: Open) -> None:
    daemon.publish()
    tab = visit(daemon)
    shown(tab, "60 of 60 shown")
    tab.keyboard.press("/")
    tab.keyboard.type("depth>1200 p>0.6")
    tab.wait_for_selector("#depth-note:text('60 of 60')")
    fake = daemon.probes["probeA"]
    task = fake.predictions(instance=1).tasks[0]
    expected = int(((fake.depth > 1200) & (task.probabilities.max(axis=1).__mul__(255).round() / 255 > 0.6)).sum())
    shown(tab, f"{expected} of 60 shown")
    tab.keyboard.type(" nosuch>1")
    tab.wait_for_selector("#filter-error:text('no column nosuch')")
    tab.keyboard.press("Escape")
    tab.keyboard.press("Escape")
    shown(tab, "60 of 60 shown")
    tab.click("#table .head button:text('unit')")
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    tab.wait_for_selector("#unit-note:text('u1 ·')")
    tab.keyboard.press("k")
    tab.wait_for_selector("#unit-note:text('u0 ·')")
    tab.wait_for_selector("#unit .evidence th:text('NuCLR embedding')")
    tab.keyboard.press("]")
    shown(tab, "24 of 24 shown")
    tab.keyboard.press("[")
    tab.wait_for_selector("#unit-note:text('u0 ·')")  # the selection of a probe is kept
    tab.keyboard.press("?")
    tab.wait_for_selector("dialog[open] kbd:text('space')")


def test_the_pixel_of_a_unit_has_the_colour_of_its_class_in_both_themes(visit: Open) -> None:
    fake = FakeProbe("probeA", units=2, abstain=0.0, strange=0.0, shanks=1)
    fake.depth[:], fake.x[:] = (500.0, 2500.0), 8.0
    for row in fake.logits["cell_type"]:
        row[:] = (0, 12, 0, 0)  # PV for certain
    with StandIn(fake) as daemon:
        daemon.publish()
        tab = visit(daemon)
        tab.wait_for_selector("#legend button:has-text('PV2')")
        width, height = tab.evaluate(
            "() => { const c = document.getElementById('depth'); return [c.clientWidth, c.clientHeight]; }"
        )
        pad = (2500 - 500) * 0.03
        low, high = -pad / 2, 2500 + pad
        y = (height - 22) - (500 - low) / (high - low) * (height - 22 - 8)
        assert tab.evaluate(PIXEL, ["depth", width / 2, y])[:3] == [0xCC, 0x66, 0x77]
        tab.keyboard.press("t")
        tab.wait_for_selector("html[data-theme=light]", state="attached")
        tab.wait_for_timeout(100)
        near = tab.evaluate(PIXEL, ["depth", width / 2, y])
        assert max(abs(a - b) for a, b in zip(near[:3], (0xCC, 0x66, 0x77), strict=True)) <= 8


def test_the_page_says_when_the_daemon_is_gone_and_comes_back_by_itself(daemon: StandIn, visit: Open) -> None:
    daemon.publish()
    tab = visit(daemon)
    endpoints = daemon.endpoints
    tab.wait_for_selector("#link:text('live')")
    daemon.close()
    tab.wait_for_selector("#link:text('no daemon')")
    tab.wait_for_selector(".alert.error:has-text('What is shown is from before')")
    assert "stale" in tab.locator("body").get_attribute("class")
    with StandIn(FakeProbe("probeA", units=7), endpoints=endpoints) as again:
        again.publish()
        tab.wait_for_selector("#link:text('live')")
        again.publish()
        shown(tab, "7 of 7 shown")
        tab.wait_for_selector("body:not(.stale)")


def test_a_frozen_display_stands_still_and_then_shows_the_newest(daemon: StandIn, visit: Open) -> None:
    daemon.publish()
    tab = visit(daemon)
    tab.wait_for_selector("#table .row[data-k] .windows:text('92')")
    tab.keyboard.press(" ")
    tab.wait_for_selector("#link:text('display frozen')")
    tab.wait_for_timeout(300)
    daemon.publish()
    tab.wait_for_timeout(700)
    assert tab.locator("#table .rows .row .windows").first.inner_text() == "92"
    tab.keyboard.press(" ")
    tab.wait_for_selector("#table .row[data-k] .windows:text('93')")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_everything_has_a_name_and_text_can_be_read(visit: Open, theme: str) -> None:
    troubled = FakeProbe("probeA", units=40, state="degraded", reasons=("gap",), counters={"spikes_late": 2000})
    with StandIn(troubled) as daemon:
        daemon.publish()
        tab = visit(daemon, theme=theme)
        tab.keyboard.press("j")
        tab.wait_for_selector("#unit .evidence")
        tab.wait_for_selector(".alert.warning")
        assert tab.evaluate(NAMELESS) == []
        assert tab.evaluate(TOO_FAINT) == []
        assert tab.locator("#probes [role=tab][aria-selected=true]").count() == 1
        assert tab.locator("[aria-sort=descending]").count() == 1
        assert tab.locator("#borders li").first.inner_text().startswith("Shank 0: TH to HPF at ")


def test_the_table_as_shown_can_be_taken_home(daemon: StandIn, visit: Open) -> None:
    daemon.publish()
    tab = visit(daemon)
    shown(tab, "60 of 60 shown")
    with tab.expect_download() as download:
        tab.keyboard.press("e")
    lines = download.value.path().read_text(encoding="utf-8").splitlines()
    assert len(lines) == 61 and lines[0].startswith("stream,time_s,unit_id,shank,depth_um")
    assert re.match(r"probeA,\d+\.\d+,u\d+,0,\d+", lines[1])
