"""Closed doors: over the network nobody gets in without an allowed key, and each key does what it may and no more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq

from nuclr_stream import wire
from nuclr_stream.access.allow_list import FILE, Rights, read_allowed, write_allowed
from nuclr_stream.access.curve import as_client
from nuclr_stream.access.keys import DAEMON, KEY_ENV, KeyPair
from nuclr_stream.client.publisher import Publisher
from nuclr_stream.client.subscriber import Query, Subscription, subscribe
from nuclr_stream.config import Settings, private_folder
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.errors import AccessError, DaemonGoneError, EndpointError
from nuclr_stream.inference.model import Model
from nuclr_stream.sockets import Socket, connect, disconnect
from tests.nuclr_stream.conftest import FREE_PORTS, running, until, where
from tests.nuclr_stream.streams import Source

RATE = 1000
SHUT_OUT_S = 0.3


class Keys:
    """A folder of keys: the daemon's own, and one of every name that is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemon = KeyPair.new(DAEMON)
        self.daemon.write(folder)

    def allowed(self, name: str, **rights: object) -> Path:
        """A new key file that may do this much."""
        pair = KeyPair.new(name, daemon=self.daemon.public)
        self.allow(pair, **rights)
        return pair.write(self.folder)

    def allow(self, pair: KeyPair, **rights: object) -> None:
        entry = Rights(pair.name, pair.public, **rights)  # type: ignore[arg-type]
        write_allowed(self.folder, read_allowed(self.folder) | {pair.public: entry})

    def revoke(self, path: Path) -> None:
        public = KeyPair.read(path).public
        write_allowed(self.folder, {key: one for key, one in read_allowed(self.folder).items() if key != public})


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")


@pytest.fixture
def daemon(tiny_model: Model, keys: Keys) -> Iterator[Daemon]:
    """A daemon that asks for keys."""
    with running(tiny_model, keys=str(keys.folder)) as made:
        yield made


@contextmanager
def source(daemon: Daemon, key: Path, stream: str = "probeA") -> Iterator[Publisher]:
    with Publisher(daemon.endpoints["data"], stream=stream, sample_rate=RATE, key=key, connect_s=20, wait_s=20) as made:
        yield made


def counted(daemon: Daemon, owner: Path, reason: str) -> dict[str, int]:
    """What the daemon counts, once it has counted this."""
    with subscribe("", **where(daemon, "results", "query"), key=owner) as subscription:
        found: wire.DaemonState = until(
            subscription, lambda message: isinstance(message, wire.DaemonState) and reason in message.counters
        )
        return dict(found.counters)


def is_served(endpoint: str, kind: int, pair: KeyPair | None, *, within_s: float) -> bool:
    """Whether a peer with this key, or none, gets through a handshake."""
    context: zmq.Context[Socket] = zmq.Context()
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    if pair is not None:
        as_client(socket, pair)
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    socket.connect(endpoint)
    try:
        return bool(monitor.poll(int(within_s * 1000)))
    finally:
        socket.disable_monitor()
        monitor.close()
        context.destroy(linger=0)


def test_an_allowed_key_publishes_reads_and_asks(daemon: Daemon, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = keys.allowed("rig", publish=("probe*",))
    desk = keys.allowed("desk", read=True, query=True)
    monkeypatch.setenv(KEY_ENV, str(desk))
    with Subscription("probeA", **where(daemon, "results", "query")) as subscription, source(daemon, rig) as publisher:
        publisher.units(["u1", "u2"])
        assert until(subscription, lambda message: isinstance(message, wire.StreamState) and message.units == 2)
    with Query(daemon.endpoints["query"], timeout_s=5) as query:
        assert list(query.status()["streams"]) == ["probeA"]


@pytest.mark.parametrize(("socket", "kind"), [("data", zmq.PUSH), ("results", zmq.SUB), ("query", zmq.DEALER)])
def test_whoever_has_no_right_to_a_socket_does_not_get_a_connection(
    daemon: Daemon, keys: Keys, socket: str, kind: int
) -> None:
    rights = {"data": {"publish": ("*",)}, "results": {"read": True}, "query": {"query": True}}
    good = KeyPair.read(keys.allowed("good", **rights[socket]))
    others = KeyPair.read(keys.allowed("others", **{k: v for n in rights if n != socket for k, v in rights[n].items()}))
    stranger = KeyPair.new("stranger", daemon=keys.daemon.public)
    fooled = KeyPair("good", good.public, good.secret, daemon=KeyPair.new("another").public)
    endpoint = daemon.endpoints[socket]
    for name, pair in {"no key": None, "unknown": stranger, "other rights": others, "wrong daemon": fooled}.items():
        assert not is_served(endpoint, kind, pair, within_s=SHUT_OUT_S), name
    assert is_served(endpoint, kind, good, within_s=5)


@pytest.mark.parametrize("tries", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_nobody_gets_in_when_the_authentication_is_dead_and_the_daemon_is_not_ready(
    tiny_model: Model, keys: Keys, tries: int
) -> None:
    good = keys.allowed("good", publish=("*",), read=True, query=True)
    pairs = [None, KeyPair.new("stranger", daemon=keys.daemon.public), KeyPair.read(good)]
    with running(tiny_model, keys=str(keys.folder)) as daemon, ExitStack() as stack:
        early = stack.enter_context(subscribe("", **where(daemon, "results", "query"), key=good))
        until(early, lambda message: isinstance(message, wire.DaemonState))
        authenticator = daemon._doors._authenticator
        assert authenticator is not None
        authenticator.close()
        context: zmq.Context[Socket] = zmq.Context()
        stack.callback(context.destroy, linger=0)
        for first in range(0, tries, 50):
            with ExitStack() as attempts:
                for number in range(first, first + 50):
                    push = attempts.enter_context(context.socket(zmq.PUSH))
                    push.setsockopt(zmq.LINGER, 0)
                    if (pair := pairs[number % 3]) is not None:
                        as_client(push, pair)
                    push.connect(daemon.endpoints["data"])
                    push.send_multipart(wire.encode(Source(stream=f"s{number}").heartbeat(0, 0)), zmq.NOBLOCK)
                state = until(early, lambda message: isinstance(message, wire.DaemonState))
        assert (state.streams, state.counters) == ((), {})
        assert not is_served(daemon.endpoints["query"], zmq.DEALER, pairs[2], within_s=SHUT_OUT_S)
        assert daemon._board.not_ready == (daemon._doors.problem,) != ("",)


def test_a_key_pushes_to_its_own_streams_alone(daemon: Daemon, keys: Keys) -> None:
    owner = keys.allowed("owner", publish=("probeA",), read=True, query=True)
    other = keys.allowed("other", publish=("probe*",))
    with source(daemon, owner) as publisher, subscribe("", **where(daemon, "results", "query"), key=owner) as seen:
        publisher.units(["u1"])
        until(seen, lambda message: isinstance(message, wire.StreamState) and message.units == 1)
        with source(daemon, other) as intruder:
            intruder.units(["evil", "eviler"])
        assert counted(daemon, owner, "denied_owner")["denied_owner"] == 1
        with source(daemon, owner, "probeB") as elsewhere:
            elsewhere.heartbeat(0)
        assert counted(daemon, owner, "denied_stream")["denied_stream"] == 1
        publisher.units(["u1", "u2", "u3"])
        until(seen, lambda message: isinstance(message, wire.StreamState) and message.units == 3)


def test_a_revoked_key_is_served_no_more_though_it_was_connected(daemon: Daemon, keys: Keys) -> None:
    owner = keys.allowed("owner", read=True, query=True, publish=("mine",))
    gone = keys.allowed("gone", read=True, query=True, publish=("probeA",))
    heir = keys.allowed("heir", publish=("probeA",))
    with (
        subscribe("", **where(daemon, "results", "query"), key=gone) as subscription,
        Query(daemon.endpoints["query"], key=gone) as query,
        source(daemon, gone) as publisher,
    ):
        until(subscription, lambda message: isinstance(message, wire.DaemonState))
        assert query.status()["ready"]
        publisher.heartbeat(0)
        until(subscription, lambda message: isinstance(message, wire.StreamState))

        keys.revoke(gone)
        with pytest.raises(DaemonGoneError):
            for _ in range(1000):
                subscription.receive(2.0)
        with pytest.raises(DaemonGoneError):
            query.status()
        publisher.wait_s = 0
        publisher.heartbeat(10)
        assert counted(daemon, owner, "cut_off_revoked")["cut_off_revoked"] >= 1
        with source(daemon, heir) as next_one, subscribe("", **where(daemon, "results", "query"), key=owner) as seen:
            next_one.units(["u1"])
            until(seen, lambda message: isinstance(message, wire.StreamState) and message.units == 1)


def test_nothing_starts_with_keys_that_cannot_be_used(tiny_model: Model, tmp_path: Path, keys: Keys) -> None:
    with pytest.raises(AccessError, match=r"daemon\.key.*keys new"):
        Daemon(Settings(**FREE_PORTS, keys=str(tmp_path / "nothing")), tiny_model)
    (keys.folder / FILE).write_text("{")
    with pytest.raises(AccessError, match="no valid allow-list"):
        Daemon(Settings(**FREE_PORTS, keys=str(keys.folder)), tiny_model)


def test_beyond_this_machine_only_keys_are_served(tiny_model: Model, keys: Keys) -> None:
    everywhere = {f"{name}_endpoint": "tcp://0.0.0.0:0" for name in ("data", "results", "query")}
    with running(tiny_model, **everywhere, keys=str(keys.folder)) as daemon:
        good = KeyPair.read(keys.allowed("good", query=True))
        endpoint = daemon.endpoints["query"].replace("0.0.0.0", "127.0.0.1")
        assert is_served(endpoint, zmq.DEALER, good, within_s=5)
        assert not is_served(endpoint, zmq.DEALER, None, within_s=SHUT_OUT_S)


def test_without_endpoints_a_daemon_serves_its_own_user_in_a_private_folder(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    if len(str(tmp_path)) > 80:
        pytest.skip("the temporary folder's name is too long for an ipc path")
    nowhere = {f"{name}_endpoint": "" for name in ("data", "results", "query")}
    with running(tiny_model, **nowhere) as daemon:
        assert daemon.endpoints["query"] == f"ipc://{tmp_path}/nuclr-stream/query"
        assert private_folder() == tmp_path / "nuclr-stream"
        assert (tmp_path / "nuclr-stream").stat().st_mode & 0o777 == 0o700
        with Query(daemon.endpoints["query"]) as query:
            assert query.status()["ready"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can make another user's folder")
def test_a_folder_that_somebody_else_made_is_not_used(tiny_model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(EndpointError, match=r"no folder of this user.*--data-endpoint"):
        Daemon(Settings(**FREE_PORTS | {"data_endpoint": f"ipc://{folder}/data"}), tiny_model)


def test_a_client_does_not_go_into_another_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 4711)
    with pytest.raises(EndpointError, match="belongs to another user"):
        connect(zmq.DEALER, f"ipc://{tmp_path}/query", "query endpoint", max_bytes=1)
    monkeypatch.undo()
    disconnect(connect(zmq.DEALER, f"ipc://{tmp_path}/query", "query endpoint", max_bytes=1))


def test_loopback_over_ipv6(run_daemon: Callable[..., Daemon]) -> None:
    try:
        daemon = run_daemon(query_endpoint="tcp://[::1]:0")
    except EndpointError as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert daemon.endpoints["query"].startswith("tcp://[::1]:")
    with Query(daemon.endpoints["query"], timeout_s=5) as query:
        assert query.status()["ready"]
