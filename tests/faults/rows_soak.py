"""The soak: a day of steps with units that come and go, in a process of its own, and memory that must stay flat."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.rig import ROOT
from tests.faults.row import Outcome, Row, Size

MB_PER_HOUR = 1.0
"""Bar on the growth of resident memory over 3,600 steps of a second."""
LEAK_BYTES = 4_096
"""What the planted leak keeps of every step: 14 MB in 3,600."""


def soak(seed: int, size: Size, folder: Path) -> Outcome:
    """Step through so many windows; fit resident memory over the second half of them."""
    steps = {"test": 0, "ci": 3_600, "long": 86_400}[size]
    found = _soaked(seed, steps, leak=0)
    leaky = _soaked(seed, min(steps, 7_200), leak=LEAK_BYTES)
    return Outcome(
        held=found["mb_per_3600_steps"] < MB_PER_HOUR and found["descriptors_more"] == found["threads_more"] == 0,
        caught=leaky["mb_per_3600_steps"] >= MB_PER_HOUR,
        figures={"steps": steps, **found, "planted": leaky},
    )


def _soaked(seed: int, steps: int, *, leak: int) -> dict[str, Any]:
    options = ["--seed", str(seed), "--steps", str(steps), "--leak", str(leak)]
    command = [sys.executable, "-m", "tests.faults.soak", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    half = samples[len(samples) // 2 :]
    return {
        "mb_per_3600_steps": round(slope([one["step"] for one in half], [one["rss_mb"] for one in half]) * 3_600, 2),
        "rss_mb_first": samples[0]["rss_mb"],
        "rss_mb_last": samples[-1]["rss_mb"],
        "descriptors_more": samples[-1]["descriptors"] - half[0]["descriptors"],
        "threads_more": samples[-1]["threads"] - half[0]["threads"],
        "step_ms_p99_first": half[0]["step_ms_p99"],
        "step_ms_p99_last": half[-1]["step_ms_p99"],
    }


def slope(steps: Sequence[float], values: Sequence[float]) -> float:
    """The median slope over all pairs (Theil-Sen): one step of the allocator is no trend."""
    x, y = np.array(steps, dtype=float), np.array(values, dtype=float)
    rows, columns = np.triu_indices(len(x), 1)
    return float(np.median((y[columns] - y[rows]) / (x[columns] - x[rows])))


ROWS = (
    Row(
        id="R21",
        promise="memory, descriptors and threads stay flat over a day of steps with units that come and go",
        bar="< 1 MB per 3,600 steps of a second, in the second half; no descriptor or thread more",
        planted=f"a leak of {LEAK_BYTES} bytes a step",
        run=soak,
        sizes=("ci", "long"),
    ),
)
