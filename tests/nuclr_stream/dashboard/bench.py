"""Measures the page in Chromium: `python -m tests.nuclr_stream.dashboard.bench --seconds 60 --out results/dashboard`.

A stand-in publishes 8 probes of 1,000 units ten times a second; the page's server runs in a process of its own, as it
does on a rig. What is written is what the page counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

from tests.nuclr_stream.dashboard.browser import ARGUMENTS, CHROMIUM, DRAWN
from tests.nuclr_stream.dashboard.stand_in import FakeProbe, StandIn

COUNT = """() => {
  const root = document.documentElement.dataset;
  window.lates = [];
  let last = root.drawn;
  new MutationObserver(() => {
    if (root.drawn !== last) { last = root.drawn; window.lates.push(Number(root.lateMs)); }
  }).observe(document.documentElement, { attributes: true });
}"""
READ = """() => ({ ...document.documentElement.dataset, lates: window.lates.splice(0) })"""


def measure(tab: Tab, seconds: float, *, server: int) -> dict[str, Any]:
    """Return what the page counted over so many seconds, and what it and process `server` spent."""
    tab.evaluate(COUNT)
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # time that the thread ran, not that it waited
    before, heap_before, spent_before = tab.evaluate(READ), _heap(session), _spent_s(session, server)
    start = time.monotonic()
    tab.wait_for_timeout(seconds * 1000)
    after, wall_s, spent_after = tab.evaluate(READ), time.monotonic() - start, _spent_s(session, server)
    heap_after = _heap(session)
    page_s, server_s = (b - a for a, b in zip(spent_before, spent_after, strict=True))
    lates = np.array(after["lates"])
    drawn, received = (int(after[name]) - int(before[name]) for name in ("drawn", "received"))
    return {
        "seconds": round(wall_s, 1),
        "received_hz": round(received / wall_s, 2),
        "drawn_hz": round(drawn / wall_s, 2),
        "skipped": int(after["skipped"]) - int(before["skipped"]),
        "server_to_drawn_ms": {f"p{q}": round(float(np.percentile(lates, q)), 1) for q in (50, 95, 99)},
        "mb_per_s": round((int(after["bytes"]) - int(before["bytes"])) / wall_s / 1e6, 3),
        "page_cpu_ms_per_frame": round(1000 * page_s / max(drawn, 1), 2),
        "server_cpu_ms_per_frame": round(1000 * server_s / max(received, 1), 2),
        "heap_growth_mb": round((heap_after - heap_before) / 1e6, 2),
    }


def _heap(session: Any) -> float:
    session.send("HeapProfiler.collectGarbage")
    return float(session.send("Runtime.getHeapUsage")["usedSize"])


def _spent_s(session: Any, server: int) -> tuple[float, float]:
    """Return the CPU time of the page's main thread and of the server's process."""
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    fields = Path(f"/proc/{server}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return float(metrics["TaskDuration"]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def reconnect(tab: Tab, daemon: StandIn, probes: list[FakeProbe]) -> float:
    """Return after how many seconds the page shows the units of a daemon that came back."""
    daemon.close()
    tab.wait_for_selector("#link:text('no daemon')")
    # as many units as never before: what is shown can only be of the new daemon
    with StandIn(*probes[1:], FakeProbe(probes[0].stream, units=7), endpoints=daemon.endpoints) as again:
        start = time.monotonic()
        again.publish()
        tab.wait_for_selector("#shown:text('7 of 7 shown')")
        return time.monotonic() - start


def main() -> None:
    """Measure and write one JSON file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--probes", type=int, default=8)
    parser.add_argument("--units", type=int, default=1000)
    parser.add_argument("--hz", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("results/dashboard"))
    given = parser.parse_args()
    probes = [FakeProbe(f"probe{k}", units=given.units, hop_s=1 / given.hz, repeat=8) for k in range(given.probes)]
    with StandIn(*probes, hop_s=1 / given.hz) as daemon, sync_playwright() as play:
        command = [sys.executable, "-m", "nuclr_stream", "dashboard", "--port", "0"]
        command += ["--from", daemon.endpoints["results"], "--query-endpoint", daemon.endpoints["query"]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                url = json.loads(server.stdout.readline())["url"]
                browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
                tab = browser.new_page(viewport={"width": 1280, "height": 800})
                tab.goto(url)
                tab.wait_for_selector(DRAWN, state="attached")
                tab.wait_for_timeout(5000)
                found = measure(tab, given.seconds, server=server.pid)
                found["back_after_s"] = round(reconnect(tab, daemon, probes), 2)
                browser.close()
            finally:
                server.terminate()
    load = os.getloadavg()[0]
    found |= {"probes": given.probes, "units": given.units, "hz": given.hz, "load_average": round(load, 1)}
    found |= {"cpus": os.cpu_count(), "machine": platform.machine(), "rendering": "software"}
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"page_{given.probes}x{given.units}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
