"""What clients want computed, waiting for idle time of the inference thread: fair between clients, within deadlines."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from nuclr_stream.wire import EmbedWindowReply, ErrorReply, PlacementReply

PATIENCE_NS = 10**9
"""A request that fits between no two live steps waits for so long; then it runs right behind one."""
NEVER_NS = 2**63

Answer: TypeAlias = EmbedWindowReply | PlacementReply | ErrorReply


@dataclass(frozen=True)
class Ask:
    """A request of client `identity`: `compute` returns the answer, in the inference thread.

    `units` is how large it is, for an estimate of its time. After `until_ns` (CLOCK_MONOTONIC) nobody waits any more.
    """

    identity: bytes
    request_id: int
    compute: Callable[[], Answer]
    units: int = 0
    asked_ns: int = 0
    until_ns: int = NEVER_NS

    def run(self) -> AskDone:
        """Compute the answer."""
        return AskDone(self.identity, self.compute())


@dataclass(frozen=True)
class AskDone:
    """What client `identity` asked for is there, or why it is not."""

    identity: bytes
    reply: Answer


class Asks:
    """At most `most` requests; the clients that wait have their turn one after the other."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: OrderedDict[bytes, deque[Ask]] = OrderedDict()
        self._ns_per_unit = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def add(self, ask: Ask) -> Ask | None:
        """Keep a request; returns the one that has no place for it: the newest of the client that has most waiting."""
        self._of.setdefault(ask.identity, deque()).append(ask)
        if len(self) <= self._most:
            return None
        # of several clients with as many, the newcomer's: who waits already keeps its place
        most = max(reversed(self._of), key=lambda identity: len(self._of[identity]))
        waiting = self._of[most]
        turned_away = waiting.pop()
        if not waiting:
            del self._of[most]
        return turned_away

    def expired(self, now_ns: int) -> list[AskDone]:
        """Take out what nobody waits for any more, and return the answers that say so."""
        done = []
        for identity, waiting in list(self._of.items()):
            for ask in [ask for ask in waiting if ask.until_ns <= now_ns]:
                waiting.remove(ask)
                late = ErrorReply(request_id=ask.request_id, reason="expired", detail="its time ran out in the queue")
                done.append(AskDone(identity, late))
            if not waiting:
                del self._of[identity]
        return done

    def next(self, now_ns: int, due_ns: int) -> Ask | None:
        """Return the request whose turn it is, if it can be done by `due_ns`, when the next live step is expected."""
        if not self._of or now_ns < self.start_ns(now_ns, due_ns):
            return None
        identity, waiting = self._of.popitem(last=False)
        ask = waiting.popleft()
        if waiting:
            self._of[identity] = waiting  # behind the other clients
        return ask

    def start_ns(self, now_ns: int, due_ns: int) -> int:
        """Return when the next request may start while no live step comes; NEVER_NS where there is none."""
        if not self._of:
            return NEVER_NS
        first = next(iter(self._of.values()))[0]
        fits = now_ns + self._ns_per_unit * first.units <= due_ns
        return now_ns if fits else first.asked_ns + PATIENCE_NS

    def took(self, ask: Ask, spent_ns: int) -> None:
        """Learn how long a request took."""
        if ask.units:
            # the slower of the last ones counts more: an estimate that is too short delays live results
            self._ns_per_unit = max(spent_ns / ask.units, 0.8 * self._ns_per_unit)

    def clear(self) -> None:
        """Forget all."""
        self._of.clear()
