"""What systemd is told: that the daemon is ready, alive, or about to end. Outside of systemd nothing happens."""

from __future__ import annotations

import os
import socket
import time

STUCK_NS = 60 * 10**9
"""A step that takes so long hangs: the watchdog is not fed any more, and systemd starts the daemon again."""


class Supervisor:
    """Feeds the watchdog of the process that started this one (sd_notify), from the main loop only.

    Reads NOTIFY_SOCKET and WATCHDOG_USEC, as systemd sets them.
    """

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._every_ns = int(os.environ.get("WATCHDOG_USEC", "0")) * 1000 // 3
        self._fed_ns = 0

    def ready(self) -> None:
        """Everything is bound, and the model is warm."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """The daemon ends in order."""
        self._tell("STOPPING=1")

    def alive(self, *, waits_ns: int) -> None:
        """Say that the loop turns, in time for the watchdog, unless a window has been waiting for STUCK_NS."""
        now_ns = time.monotonic_ns()
        if self._every_ns and now_ns - self._fed_ns >= self._every_ns and waits_ns < STUCK_NS:
            self._fed_ns = now_ns
            self._tell("WATCHDOG=1")

    def _tell(self, what: str) -> None:
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.setblocking(False)  # whoever does not read must not hold up the loop
            try:
                notify.connect(self._address)
                notify.sendall(what.encode())
            except OSError:
                return  # it is gone or full: there is nobody to tell
