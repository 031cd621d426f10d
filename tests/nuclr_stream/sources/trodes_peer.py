"""Trodes' side: the real trodesnetwork package publishes, and a stand-in for Trodes' name server tells where."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import zmq


class TrodesPeer:
    """A name server that repeats where it answers, and the service trodes.info."""

    def __init__(self, rate: float) -> None:
        self.time, self.rate = 0, rate
        self._context = zmq.Context()
        self._told = self._context.socket(zmq.PUB)
        self._asked, self._info = self._context.socket(zmq.REP), self._context.socket(zmq.REP)
        ports = [socket.bind_to_random_port("tcp://127.0.0.1") for socket in (self._told, self._asked, self._info)]
        self.server, self._reply, info = (f"tcp://127.0.0.1:{port}" for port in ports)
        self._names = {"trodes.info": info}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        poller = zmq.Poller()
        for socket in (self._asked, self._info):
            poller.register(socket, zmq.POLLIN)
        while not self._over.is_set():
            self._told.send(msgpack.packb({"replyEndpoint": self._reply}))
            ready = dict(poller.poll(20))
            if self._asked in ready:
                request = msgpack.unpackb(self._asked.recv())
                if request["tag"] == "add":
                    self._names[request["name"]] = request["endpoint"]
                self._asked.send(msgpack.packb(self._names.get(request["name"], "")))
            if self._info in ready:
                item = msgpack.unpackb(self._info.recv())["request"]
                value = {"time": self.time, "timerate": self.rate}[item]
                self._info.send(msgpack.packb(["trodes.info", item, {item: value}]))

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._context.destroy(linger=0)


@contextmanager
def trodes_peer(rate: float = 30_000) -> Iterator[TrodesPeer]:
    """A Trodes network, torn down in the end."""
    peer = TrodesPeer(rate)
    try:
        yield peer
    finally:
        peer.close()


def spike(sample: int, ntrode: int, cluster: int) -> dict[str, Any]:
    """What Trodes publishes for a spike."""
    return {"localTimestamp": sample, "systemTimestamp": 1, "nTrodeId": ntrode, "cluster": cluster}


@contextmanager
def closing_sockets(network: Any) -> Iterator[None]:
    """Close what the package `trodesnetwork.socket` opens meanwhile: it has no way to do it itself."""
    opened = []
    before = network.Socket.__init__

    def opening(self: Any, *args: Any, **options: Any) -> None:
        before(self, *args, **options)
        opened.append(self.socket)

    network.Socket.__init__ = opening
    try:
        yield
    finally:
        network.Socket.__init__ = before
        for socket in opened:
            socket.close(linger=0)


def connected(source: Any, publisher: Any) -> None:
    """Turn until a spike of the publisher arrives, an unsorted one: PUB sends nothing to whom it does not know yet."""
    for _ in range(500):
        publisher.publish(spike(0, 1, 0))
        source.turn(0.02)
        if source.counters["spikes_seen"]:
            source.turn(0.05)
            return
    raise AssertionError("no spike came")
