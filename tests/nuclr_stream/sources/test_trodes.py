"""Trodes as a source, against the real trodesnetwork package: publishers, discovery, play, stop and seek."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from nuclr_stream.sources import trodes
from nuclr_stream.sources.trodes import LATENESS_S, TrodesSource
from tests.nuclr_stream.sources.daemon_inbox import Inbox, daemon_inbox
from tests.nuclr_stream.sources.trodes_peer import TrodesPeer, closing_sockets, connected, spike, trodes_peer

network = pytest.importorskip("trodesnetwork.socket", reason="the trodesnetwork package is not installed")
LATE = int(LATENESS_S * 30_000)


@pytest.fixture
def sockets() -> Iterator[None]:
    """Closes what trodesnetwork opens."""
    with closing_sockets(network):
        yield


def until(source: TrodesSource, found: Callable[[], bool]) -> None:
    for _ in range(500):
        if found():
            return
        source.turn(0.02)
    raise AssertionError("it never came")


def session(inbox: Inbox, peer: TrodesPeer) -> tuple[TrodesSource, object, object]:
    source = TrodesSource(peer.server, endpoint=inbox.endpoint)
    spikes = network.SourcePublisher("source.spikes", server_address=peer.server)
    acquisition = network.SourcePublisher("trodes.acquisition", server_address=peer.server)
    connected(source, spikes)
    return source, spikes, acquisition


def test_spikes_come_under_ntrode_and_cluster_and_unsorted_ones_are_counted(sockets: None) -> None:
    with trodes_peer(20_000) as peer, daemon_inbox() as inbox:
        source, spikes, _ = session(inbox, peer)
        unsorted = source.counters["spikes_unsorted"]
        for sample, ntrode, cluster in ((10, 1, 1), (30, 2, 1), (20, 1, 2), (25, 2, 0), (2**60, 1, 1)):
            spikes.publish(spike(sample, ntrode, cluster))  # type: ignore[attr-defined]
        seen = source.counters["spikes_seen"]
        until(source, lambda: source.counters["spikes_out_of_range"] == 1)
        source.close()
        inbox.take(ends=1)
    assert inbox.spikes() == Counter([("1/1", 10), ("2/1", 30), ("1/2", 20)])
    assert str(inbox.messages[0].sample_rate) == "20000"
    assert source.counters["spikes_unsorted"] == unsorted + 1 and seen
    assert source.unsorted["nTrode 2"] == 1


def test_stop_and_seek_are_epochs_and_so_is_a_clock_that_goes_back(sockets: None) -> None:
    with trodes_peer() as peer, daemon_inbox() as inbox:
        source, spikes, acquisition = session(inbox, peer)
        for step, (sample, command) in enumerate(((100_000, "stop"), (200_000, "seek"), (50_000, ""), (10_000, ""))):
            spikes.publish(spike(sample, 1, 1))  # type: ignore[attr-defined]
            assert source.writer is not None
            until(source, lambda step=step: source.writer.counters["spikes_received"] == step + 1)  # type: ignore[misc,union-attr]
            if command:
                acquisition.publish({"command": command, "timestamp": 0})  # type: ignore[attr-defined]
                until(source, lambda command=command: source.counters[f"acquisition_{command}"] == 1)  # type: ignore[misc]
        source.close()
        inbox.take(ends=4)
    assert [sorted(inbox.spikes(epoch)) for epoch in inbox.epochs] == [
        [("1/1", 100_000)],
        [("1/1", 200_000)],
        [("1/1", 50_000)],
        [("1/1", 10_000)],
    ]
    assert inbox.observed(inbox.epochs[1]) == [(200_000 - LATE, 200_001)]


def test_where_no_unit_fires_the_hardwares_time_is_the_watermark(
    sockets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trodes, "IDLE_S", 0.0)
    with trodes_peer() as peer, daemon_inbox() as inbox:
        source, spikes, _ = session(inbox, peer)
        spikes.publish(spike(1_000, 3, 1))  # type: ignore[attr-defined]
        until(source, lambda: bool(source.writer and source.writer.counters["spikes_received"]))
        peer.time = 90_000
        until(source, lambda: bool(source.writer and source.writer.watermark >= 90_000 - LATE))
        source.close()
        inbox.take(ends=1)
    assert inbox.observed(inbox.epochs[0])[-1][1] >= 90_000 - LATE


def test_without_trodes_it_says_what_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trodes, "ASK_S", 0.05)
    source = TrodesSource("tcp://127.0.0.1:9", endpoint="tcp://127.0.0.1:9")
    source.turn(0.0)
    assert source.notes() == ["nothing at tcp://127.0.0.1:9; is Trodes running, with its network on?"]
    source.close()


def test_a_broken_message_is_counted(sockets: None) -> None:
    with trodes_peer() as peer, daemon_inbox() as inbox:
        source, spikes, _ = session(inbox, peer)
        spikes.publish({"nTrodeId": 1})  # type: ignore[attr-defined]
        until(source, lambda: source.counters["malformed"] == 1)
        source.close()
