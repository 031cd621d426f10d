"""What a measurement ran on, and how much else ran meanwhile: without these a figure of speed means nothing."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("nuclr-stream", "numpy", "onnxruntime-gpu", "onnxruntime")
CPU_NAMES, CPU_TIMES = Path("/proc/cpuinfo"), Path("/proc/stat")
_IDLE = (3, 4)
"""Columns idle and iowait of the first line of /proc/stat; the first eight columns are the whole time (proc(5))."""


class MachineWatch:
    """Begin one before a measurement and ask for its `facts` after it."""

    def __init__(self) -> None:
        self._busy_s, self._own_s, self._clock_s = _busy_s(), time.process_time(), time.monotonic()

    def facts(self) -> dict[str, Any]:
        """Return CPU, usable cores, system, Python, versions of packages, and `other_work`.

        `other_work` is the share of all the machine's CPU time since the beginning that went to other processes, or to
        other virtual machines as far as this one is stated; None where the system does not say.
        """
        return {
            "cpu": _cpu_name(),
            "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "packages": _versions(),
            "other_work": self._other_work(),
        }

    def _other_work(self) -> float | None:
        busy_s = _busy_s()
        if self._busy_s is None or busy_s is None:
            return None
        others_s = busy_s - self._busy_s - (time.process_time() - self._own_s)
        share = others_s / (time.monotonic() - self._clock_s) / (os.cpu_count() or 1)
        return round(min(max(share, 0.0), 1.0), 3)


def _busy_s() -> float | None:
    """CPU seconds since boot in which any core of the machine was not idle."""
    if not CPU_TIMES.is_file():
        return None
    ticks = [int(column) for column in CPU_TIMES.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - sum(ticks[column] for column in _IDLE)) / os.sysconf("SC_CLK_TCK")


def _cpu_name() -> str:
    if CPU_NAMES.is_file():
        for line in CPU_NAMES.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
