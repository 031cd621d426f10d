"""Which messages of a counted stream have been seen: gaps, duplicates, and late arrivals that heal a gap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_REMEMBERED = 4_096
"""How many missing numbers are remembered; one that is older and arrives after all is called a duplicate."""


class SequenceCheck:
    """Follows one counter that begins at `first` and goes up by one a message.

    `gap` counts numbers that were jumped over, `reordered` those of them that came later after all: what was lost for
    good is the difference. `next` is the number that is expected.
    """

    def __init__(self, first: int) -> None:
        self.next = first
        self._missing: dict[int, None] = {}
        self.gap = 0
        self.reordered = 0

    def admit(self, seq: int) -> bool:
        """Note that message `seq` arrived; False when it had been seen before."""
        if seq >= self.next:
            self.gap += seq - self.next
            self._missing |= dict.fromkeys(range(max(self.next, seq - MAX_REMEMBERED), seq))
            while len(self._missing) > MAX_REMEMBERED:
                self._missing.pop(next(iter(self._missing)))
            self.next = seq + 1
            return True
        if seq in self._missing:
            del self._missing[seq]
            self.reordered += 1
            return True
        return False

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything, for `load`."""
        return {"next": self.next, "missing": list(self._missing), "gap": self.gap, "reordered": self.reordered}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        self.next, self.gap, self.reordered = saved["next"], saved["gap"], saved["reordered"]
        self._missing = dict.fromkeys(saved["missing"])
