"""How the commands that run until somebody ends them are ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def end_on_signals(stop: Callable[[], None]) -> None:
    """Have the first SIGTERM or SIGINT call `stop`, which ends the process in order; the second ends it at once."""

    def end(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
        signal.signal(signal.SIGINT, lambda *_: os._exit(1))
        stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
