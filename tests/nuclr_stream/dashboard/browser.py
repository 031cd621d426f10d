"""Debian's headless Chromium for tests, by Python playwright; a test that needs it is skipped where it is missing."""

from __future__ import annotations

import importlib.util
import shutil

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DRAWN = "html[data-drawn]:not([data-drawn='0'])"
"""Matches once the page has drawn a frame. Its policy bars the evaluation that waiting for an expression needs."""


def missing() -> str:
    """Return why no browser can be started, with the remedy, or an empty string."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    if shutil.which("chromium") is None:
        return "no chromium: apt-get install chromium"
    return ""
