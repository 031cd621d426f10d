"""A source as a child process of `nuclr-stream serve`: what breaks in it never reaches the daemon's loop."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from nuclr_stream.commands.source_running import PARENT

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""How long after it died a source is started again: longer each time, unless it ran for a while."""
REJECTED = 2
"""The exit code for options that cannot be: starting again would not help."""

log = logging.getLogger(__name__)


class SourceChild:
    """Runs `nuclr-stream source ARGUMENTS...` until `stop`, and again when it dies; a source that has ended is over."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep_running, name="source", daemon=True)
        self._thread.start()

    def _keep_running(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._stopping.is_set():
            started = time.monotonic()
            code = self._run_once()
            if self._stopping.is_set():
                return
            if code in (0, REJECTED):
                log.log(logging.INFO if code == 0 else logging.ERROR, "source %s ended with %s", self.arguments, code)
                return
            if time.monotonic() - started > LONGEST_WAIT_S:
                wait_s = FIRST_WAIT_S
            log.warning("source %s died with %s; it is started again in %g s", self.arguments, code, wait_s)
            self._stopping.wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _run_once(self) -> int:
        command = [sys.executable, "-m", "nuclr_stream", "source", *self.arguments]
        with self._lock:
            if self._stopping.is_set():
                return 0
            # its report would stand in the daemon's own JSON; its notes go to the daemon's stderr
            nothing, env = subprocess.DEVNULL, os.environ | {PARENT: str(os.getpid())}
            self._process = subprocess.Popen(command, stdin=nothing, stdout=nothing, env=env)
            self.starts += 1
        return self._process.wait()

    def stop(self, *, timeout_s: float = 3.0) -> None:
        """End it in order, or at once when that takes too long."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(timeout_s)
