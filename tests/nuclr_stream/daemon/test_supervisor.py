"""What systemd is told, read from a real notify socket."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nuclr_stream.daemon.supervisor import STUCK_NS, Supervisor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no AF_UNIX datagram on Windows")


@pytest.fixture
def notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000")
        yield listening


def heard(notify: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(notify.recv(64))
        except BlockingIOError:
            return found


def test_ready_alive_and_stopping_are_told(notify: socket.socket) -> None:
    supervisor = Supervisor()
    supervisor.ready()
    supervisor.alive(waits_ns=0)
    supervisor.stopping()
    assert heard(notify) == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_the_watchdog_starves_while_a_step_hangs(notify: socket.socket) -> None:
    supervisor = Supervisor()
    supervisor.alive(waits_ns=STUCK_NS)
    assert heard(notify) == []
    supervisor.alive(waits_ns=STUCK_NS - 1)
    assert heard(notify) == [b"WATCHDOG=1"]


def test_the_watchdog_is_fed_no_more_often_than_it_needs(
    notify: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3600000000")
    supervisor = Supervisor()
    for _ in range(100):
        supervisor.alive(waits_ns=0)
    assert len(heard(notify)) <= 1


def test_outside_of_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    supervisor = Supervisor()
    supervisor.ready()
    supervisor.alive(waits_ns=0)


def test_a_listener_that_is_gone_is_no_error(notify: socket.socket, tmp_path: Path) -> None:
    supervisor = Supervisor()
    (tmp_path / "notify").unlink()
    supervisor.ready()
