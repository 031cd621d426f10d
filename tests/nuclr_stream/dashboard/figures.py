"""The table of docs/dashboard.md from results/dashboard/: `python -m tests.nuclr_stream.dashboard.figures`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
PAGE, RESULTS = ROOT / "docs" / "dashboard.md", ROOT / "results" / "dashboard"
BEGIN, END = "<!-- made from results/dashboard -->\n", "<!-- end -->\n"

Result = dict[str, Any]
ROWS: tuple[tuple[str, str, Callable[[Result], str]], ...] = (
    ("frames drawn a second", "at least 9.9", lambda r: f"{r['drawn_hz']:.2f} of {r['received_hz']:.2f} received"),
    (
        "server to drawn, p50 / p95 / p99",
        "p95 at most 50 ms",
        lambda r: " / ".join(f"{r['server_to_drawn_ms'][q]:g}" for q in ("p50", "p95", "p99")) + " ms",
    ),
    ("bytes to one viewer", "at most 0.5 MB/s", lambda r: f"{r['mb_per_s']:.2f} MB/s"),
    (
        "growth of the page's heap",
        "at most 20 MB in 10 min",
        lambda r: f"{r['heap_growth_mb']:.1f} MB in {r['seconds']:.0f} s",
    ),
    (
        "CPU time a frame, page / server",
        "",
        lambda r: f"{r['page_cpu_ms_per_frame']:g} / {r['server_cpu_ms_per_frame']:g} ms",
    ),
    ("full state after the daemon is back", "at most 2 s", lambda r: f"{r['back_after_s']:g} s"),
    ("load of the machine (1 min average)", "", lambda r: f"{r['load_average']:g} on {r['cpus']} cores"),
)


def table() -> str:
    """Return the table in Markdown, a column per file."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("page_*.json"))]
    if not results:
        return "There is no measurement of a quiet machine yet.\n"
    heads = [f"{r['probes']} probes x {r['units']:,} units at {r['hz']:g} Hz" for r in results]
    lines = [["", "goal", *heads], ["---"] * (2 + len(heads))]
    lines += [[name, goal, *(value(result) for result in results)] for name, goal, value in ROWS]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def written(page: str) -> str:
    """Return the text of the page with the table of now in it."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
