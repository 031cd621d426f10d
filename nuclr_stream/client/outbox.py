"""What a source sent in the last seconds, so that it can be sent again after the daemon crashed or the line broke."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

MAX_BYTES = 2**26
"""Most that is kept, however little time it spans."""


class _Kept(NamedTuple):
    seq: int
    frames: list[bytes]
    made_s: float
    size: int
    is_table: bool


class Outbox:
    """Messages of one epoch by ascending number: those that left are kept for `keep_s`, the others wait to be sent.

    `lost` counts messages that became too old, or too many, before they could be sent.
    """

    def __init__(self, keep_s: float) -> None:
        self.keep_s = keep_s
        self.lost = 0
        self._kept: deque[_Kept] = deque()
        self._next = 0  # the number of the message to be sent next
        self._bytes = 0

    @property
    def waiting(self) -> int:
        """How many messages are still to be sent."""
        return self._kept[-1].seq + 1 - self._next if self._kept else 0

    def add(self, seq: int, frames: list[bytes], *, now_s: float, is_table: bool) -> None:
        """Take message `seq`, one more than the last; `is_table` says that it is a whole unit table."""
        size = sum(map(len, frames))
        self._kept.append(_Kept(seq, frames, now_s, size, is_table))
        self._bytes += size
        while self._kept and (self._kept[0].made_s < now_s - self.keep_s or self._bytes > MAX_BYTES):
            gone = self._kept.popleft()
            self._bytes -= gone.size
            if gone.seq >= self._next:
                self.lost += 1
                self._next = gone.seq + 1

    def head(self) -> list[bytes] | None:
        """Return the frames of the message to be sent next, or None."""
        return self._kept[self._next - self._kept[0].seq].frames if self.waiting else None

    def sent(self) -> None:
        """Go on to the next message: the one at the head has left."""
        self._next += 1

    def rewind(self, seq: int) -> None:
        """Send everything from message `seq` on again, or from the oldest that is kept; nothing is skipped."""
        if self._kept:
            self._next = min(self._next, max(seq, self._kept[0].seq))

    def rewind_all(self) -> None:
        """Send everything again that a daemon can use that knows nothing: from the first whole unit table on."""
        first = next((kept.seq for kept in self._kept if kept.is_table), None)
        self.rewind(0 if first is None else first)
