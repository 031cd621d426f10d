"""The three sockets of a daemon: bound, bounded, and who may send what through them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import zmq

from nuclr_stream import wire
from nuclr_stream.access.allow_list import Rights, WatchedAllowList
from nuclr_stream.access.curve import Authenticator, as_server
from nuclr_stream.access.keys import DAEMON, KeyPair
from nuclr_stream.config import Settings
from nuclr_stream.daemon.connections import Connections, allowance, whole_messages
from nuclr_stream.daemon.receiving import Received, Receiver
from nuclr_stream.errors import DeniedError
from nuclr_stream.sockets import Context, Socket, bind, lock_ipc, open_socket

NAMES: tuple[Literal["data", "results", "query"], ...] = ("data", "results", "query")
WAITING_MESSAGES = 128
"""Messages of one connection that libzmq holds; what is sent beyond that waits in the network and slows its sender."""
SLACK_BYTES = 2**19
"""What a connection may bring beyond its largest message before it is looked at."""
HANDSHAKE_BYTES = 1024
"""The largest frame of a subscriber; no topic is as long, but the handshake of CURVE needs half of it."""
SUBSCRIBE_BYTES, SUBSCRIBE_BYTES_PER_S = 2**16, 4096
"""What a subscriber may send at once, and for long: libzmq keeps topics at fifty times their size."""

log = logging.getLogger(__name__)


class Doors:
    """`data` takes what sources push, `results` publishes, `query` answers; `endpoints` says where they are.

    Args:
        settings: endpoints and the folder of keys.
        window_bytes: of the largest window that a client may have embedded.
        look: has the thread of the sockets call `take` on all receivers; called from another thread.

    Raises EndpointError when an endpoint is taken or open to others, AccessError for keys that cannot be used.
    """

    def __init__(self, settings: Settings, *, window_bytes: int, look: Callable[[], None]) -> None:
        self.endpoints: dict[str, str] = {}
        self.denied: Counter[str] = Counter()
        self._readers: dict[int, str] = {}
        self._allowed: WatchedAllowList | None = None
        self._authenticator: Authenticator | None = None
        self._problem = ""
        with ExitStack() as stack:
            for name in NAMES:
                lock = lock_ipc(settings.endpoint(name), f"{name}_endpoint")
                if lock is not None:
                    stack.enter_context(lock)
            context: Context = stack.enter_context(zmq.Context())
            pair = self._authenticate(settings, context, stack)
            sockets = _open(context, settings.results_queue, window_bytes, stack)
            keyed = {name: pair is not None and settings.endpoint(name).startswith("tcp://") for name in NAMES}
            self.data = Receiver(sockets["data"], max_frames=wire.MAX_INCOMING_FRAMES, keyed=keyed["data"])
            self.results = Receiver(sockets["results"], max_frames=1, keyed=keyed["results"])
            self.query = Receiver(
                sockets["query"], max_frames=wire.MAX_INCOMING_FRAMES, routed=True, keyed=keyed["query"]
            )
            self.connections = Connections(refresh=self._refresh)
            stack.callback(self.connections.close)
            rules = {
                "data": whole_messages(self.data, wire.MAX_MESSAGE_BYTES + SLACK_BYTES, look=look),
                "results": allowance(SUBSCRIBE_BYTES, SUBSCRIBE_BYTES_PER_S),
                "query": whole_messages(self.query, window_bytes + SLACK_BYTES, look=look),
            }
            for name in NAMES:
                if settings.endpoint(name).startswith("tcp://"):
                    self.connections.watch(sockets[name], name, rules[name])
                if keyed[name] and pair is not None:
                    as_server(sockets[name], pair, name)
                self.endpoints[name] = bind(sockets[name], settings.endpoint(name), f"{name}_endpoint")
            self.connections.start()
            self._cleanup = stack.pop_all()

    @property
    def problem(self) -> str:
        """Why nobody new gets in, or an empty string."""
        if self._authenticator is not None and not self._authenticator.alive:
            return "authentication has ended: no connection is accepted; restart the daemon"
        if not self.connections.alive:
            return "connections are watched no more; restart the daemon"
        return self._allowed.problem if self._allowed is not None else ""

    @property
    def dropped(self) -> Counter[str]:
        """Messages that were not let through and connections that were shut down, by reason."""
        oversized = self.query.oversized + self.results.oversized
        return self.denied + self.connections.cut_off + Counter({"malformed_frames": oversized} if oversized else {})

    def may_publish(self, received: Received, stream: str, owner: str | None) -> None:
        """Raise DeniedError unless the sender may push to `stream`, which the key `owner` opened (None: nobody has).

        A stream whose owner was revoked is free again.
        """
        if self._allowed is None or not self.data.keyed:
            return
        rights = self._rights(received)
        if not rights.may_publish(stream):
            raise DeniedError("stream")
        if owner is not None and owner != received.key and owner in self._allowed.current:
            raise DeniedError("owner")

    def may_ask(self, received: Received) -> bool:
        """Whether a request is to be answered; one of a key that was revoked is counted, and its connection shut."""
        if not self.query.keyed:
            return True
        try:
            return self._rights(received).query
        except DeniedError as error:
            self.denied[f"denied_{error.reason}"] += 1
            return False

    def subscribed(self, received: Received) -> bool:
        """Note a subscription or its end; returns whether a new subscriber is there to be greeted."""
        begins = received.frames[0][:1] == b"\x01"
        if begins and self.results.keyed:
            self._readers[received.connection] = received.key
            try:
                self._rights(received)
            except DeniedError as error:
                self.denied[f"denied_{error.reason}"] += 1
                return False
        return begins

    def close(self) -> None:
        """Close everything."""
        self._cleanup.close()

    def _authenticate(self, settings: Settings, context: Context, stack: ExitStack) -> KeyPair | None:
        if not settings.keys:
            return None
        folder = Path(settings.keys).expanduser()
        pair = KeyPair.read(folder / f"{DAEMON}.key")
        self._allowed = WatchedAllowList(folder)
        self._authenticator = Authenticator(context, self._allowed)
        stack.callback(self._authenticator.close)
        return pair

    def _rights(self, received: Received) -> Rights:
        """Return what the sender may do now. A revoked key raises DeniedError, and its connection is shut."""
        assert self._allowed is not None
        rights = self._allowed.current.get(received.key)
        if rights is None:
            self.connections.cut({received.connection}, "cut_off_revoked")
            raise DeniedError("key")
        return rights

    def _refresh(self) -> None:
        """Look at the allow-list, and cut off the subscribers whose rights are not what they were."""
        if self._allowed is None:
            return
        changed = self._allowed.refresh()
        if changed:
            log.info("the allow-list changed for %d keys", len(changed))
            gone = {number for number, key in list(self._readers.items()) if key in changed}
            self.connections.cut(gone, "cut_off_revoked")
        if self._allowed.problem != self._problem:
            self._problem = self._allowed.problem
            if self._problem:
                log.error("nobody is allowed: %s", self._problem)


def _open(context: Context, results_queue: int, window_bytes: int, stack: ExitStack) -> dict[str, Socket]:
    published = {zmq.SNDHWM: results_queue, zmq.XPUB_VERBOSE: 1, zmq.LINGER: 300, zmq.RCVHWM: 64}
    answered = {zmq.ROUTER_MANDATORY: 1, zmq.LINGER: 300, zmq.RCVHWM: 64}
    kinds = {
        "data": (zmq.PULL, wire.MAX_MESSAGE_BYTES, {zmq.RCVHWM: WAITING_MESSAGES}),
        # XPUB instead of PUB: a subscription is seen, so that a new subscriber gets the states at once.
        "results": (zmq.XPUB, HANDSHAKE_BYTES, published),
        "query": (zmq.ROUTER, window_bytes, answered),
    }
    return {
        name: stack.enter_context(open_socket(context, kind, max_bytes=most, options=options))
        for name, (kind, most, options) in kinds.items()
    }
