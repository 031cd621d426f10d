"""The three lines of a rig: publishing never blocks, iterating survives the daemon, asking has a time-out."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from nuclr_stream import wire
from nuclr_stream.client import Publisher, Query, Subscription, publisher, subscribe
from nuclr_stream.client import subscriber as client
from nuclr_stream.commands import demo
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.errors import ConfigError, DaemonGoneError, EndpointError, WireError
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.stream.units import Units
from tests.nuclr_stream.conftest import running, until, where

RunDaemon = Callable[..., Daemon]
NOWHERE = "tcp://127.0.0.1:9"


@contextmanager
def inbox() -> Iterator[tuple[str, Callable[[], Any]]]:
    """A PULL socket that decodes: where it is, and how to take the next message."""
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.setsockopt(zmq.RCVTIMEO, 5_000)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    try:
        yield f"tcp://127.0.0.1:{port}", lambda: wire.decode(socket.recv_multipart())
    finally:
        context.destroy(linger=0)


def publish(rig: Publisher, recording: Recording, index: np.ndarray, *, seconds: int) -> None:
    """Send the next seconds of a recording in blocks of half a second."""
    for _ in range(2 * seconds):
        stop = rig.watermark + 15_000
        first, last = np.searchsorted(recording.spike_samples, [rig.watermark, stop])
        rig.spikes(recording.spike_samples[first:last], index[recording.spike_units[first:last]], stop=stop)


# -- publishing -------------------------------------------------------------------------------------------------------


def test_publishing_without_a_daemon_returns_at_once_and_counts() -> None:
    with Publisher(NOWHERE, stream="rig", sample_rate=30_000, connect_s=0.0) as rig:
        index = rig.units(["a", "b"])
        assert rig.spikes([5], index[:1], stop=600) is False
        assert rig.heartbeat() is False
        assert rig.mask(0, 5) is False
        assert rig.end() is False
    assert rig.unsent == 8, "every call but the last tried the table again, which was never sent"


def test_everything_that_a_rig_says_arrives_as_said() -> None:
    with (
        inbox() as (endpoint, take),
        Publisher(endpoint, stream="rig", sample_rate=29_999.96, origin=7, epoch=3) as rig,
    ):
        index = rig.units(["a", "b"], depth_um=[10, 20.5], shank=[0, 1], channel=[3, 4], x_um=[1, 2])
        assert rig.spikes(np.array([9, 8]), index, stop=600)
        assert rig.heartbeat()
        assert rig.heartbeat(700)
        rig.skip(900)
        assert rig.mask(905, 950, cause="stimulation")
        assert rig.spikes([], [], stop=1000)
        assert rig.end()
        table, spikes, alive, silent, mask, more, end = (take() for _ in range(7))
    assert [m.seq for m in (table, spikes, alive, silent, mask, more, end)] == list(range(7))
    assert {(m.stream, m.epoch, m.origin, str(m.sample_rate)) for m in (table, spikes, end)} == {
        ("rig", 3, 7, "749999/25")
    }
    assert (table.unit_ids, table.full, table.version, table.added.tolist()) == (("a", "b"), True, 0, [7, 7])
    assert [table.depth_um.tolist(), table.shank.tolist(), table.channel.tolist()] == [[10, 20.5], [0, 1], [3, 4]]
    assert (spikes.start, spikes.stop, spikes.samples.tolist(), spikes.units.tolist()) == (7, 600, [9, 8], [0, 1])
    assert [(alive.start, alive.stop), (silent.start, silent.stop)] == [(600, 600), (600, 700)]
    assert (mask.start, mask.stop, mask.cause) == (905, 950, "stimulation")
    assert (more.start, more.stop, end.sample) == (900, 1000, 1000)


def test_units_keep_their_index_and_never_take_over_another_ones() -> None:
    with inbox() as (endpoint, take), Publisher(endpoint, stream="rig", sample_rate=30_000) as rig:
        assert rig.units(["a", "b", "c"], continues=True).tolist() == [0, 1, 2]
        assert rig.units(["c", "d", "a"]).tolist() == [2, 3, 0]
        assert rig.units(["b", "c"]).tolist() == [4, 2], "b was retired: it comes back as another unit"
        tables = [take() for _ in range(3)]
    assert [table.version for table in tables] == [0, 1, 2]
    assert [table.continues for table in tables] == [True, False, False]


def test_merging_renaming_and_resetting_reach_the_daemon_and_the_next_whole_table_agrees() -> None:
    with inbox() as (endpoint, take), Publisher(endpoint, stream="rig", sample_rate=30_000) as rig:
        rig.units(["a", "b", "c"])
        assert rig.merge("b", "a") and rig.rename("c", "z") and rig.reset("a")
        assert rig.units(["a", "z"]).tolist() == [0, 2], "indices stay"
        messages = [take() for _ in range(5)]
    units, operations = Units(10), []
    for message in messages:
        operations += units.apply(message, np.zeros(len(message.index), dtype=np.int64), None, Counter())
    assert [(op.kind, op.source, op.target) for op in operations if op.kind != "keep"] == [
        ("merge", 1, 0),
        ("forget", 0, -1),
    ]
    assert (units.ids, units.version) == (("a", "z"), 4)
    assert units.rows(np.array([0, 1, 2])).tolist() == [0, 0, 1], "spikes of b are now a's"


def test_changes_of_units_that_are_not_there_are_rejected_by_name() -> None:
    with inbox() as (endpoint, _), Publisher(endpoint, stream="rig", sample_rate=30_000) as rig:
        rig.units(["a", "b"])
        for wrong in (lambda: rig.merge("x", "a"), lambda: rig.merge("a", "x"), lambda: rig.reset("x")):
            with pytest.raises(ConfigError, match="no unit 'x'"):
                wrong()
        with pytest.raises(ConfigError, match="'b' is taken"):
            rig.rename("a", "b")
        with pytest.raises(ConfigError, match="'a' is taken"):
            rig.merge("a", "a")


def test_the_table_is_sent_again_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(publisher.time, "monotonic", lambda: now[0])
    with inbox() as (endpoint, take), Publisher(endpoint, stream="rig", sample_rate=30_000) as rig:
        rig.units(["a"])
        kinds = []
        for now[0] in (100.5, 100.9, 101.0, 101.5, 102.1):
            rig.heartbeat()
        while len(kinds) < 8:
            kinds.append(type(take()).__name__)
    assert kinds == [
        "UnitTable",
        "Heartbeat",
        "Heartbeat",
        "UnitTable",
        "Heartbeat",
        "Heartbeat",
        "UnitTable",
        "Heartbeat",
    ]


def test_what_the_protocol_forbids_is_rejected_where_it_is_said() -> None:
    with inbox() as (endpoint, _), Publisher(endpoint, stream="rig", sample_rate=30_000) as rig:
        with pytest.raises(WireError, match="size"):
            rig.spikes([1, 2], [0], stop=10)
        with pytest.raises(ConfigError, match="sample_rate of stream 'rig'"):
            Publisher(endpoint, stream="rig", sample_rate=0)
    with pytest.raises(EndpointError, match="nonsense"):
        Publisher("nonsense", stream="rig", sample_rate=30_000)


def test_a_publisher_finds_a_daemon_that_was_restarted_and_says_its_units_again(
    tiny_model: Model, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "TABLE_EVERY_S", 0.0)
    with running(tiny_model) as first:
        ports = {f"{name}_endpoint": first.endpoints[name] for name in ("data", "results", "query")}
        rig = Publisher(first.endpoints["data"], stream="rig", sample_rate=30_000, start=0, wait_s=5.0)
        index = rig.units(recording.unit_ids)
        publish(rig, recording, index, seconds=2)
    with (
        rig,
        running(tiny_model, **ports) as second,
        Subscription("rig", **where(second, "results", "query")) as subscription,
    ):
        while subscription.state is None:
            publish(rig, replace(recording, num_samples=2**40), index, seconds=1)
            subscription.receive(0.1)
        assert until(subscription, lambda m: isinstance(m, wire.StreamState) and m.units > 0).units == 20


# -- iterating --------------------------------------------------------------------------------------------------------


def test_iterating_yields_each_prediction_once(run_daemon: RunDaemon, recording: Recording) -> None:
    daemon = run_daemon()
    with (
        subscribe("rig", **where(daemon, "results", "query")) as predictions,
        Publisher(daemon.endpoints["data"], stream="rig", sample_rate=30_000, start=0) as rig,
        Publisher(daemon.endpoints["data"], stream="rig2", sample_rate=30_000, start=0) as other,
    ):
        for each in (rig, other):
            index = each.units(recording.unit_ids)
            publish(each, recording, index, seconds=10)
        seen = []
        for second in range(1, 5):
            seen.append(next(predictions))
            assert seen[-1].end_sample == (9 + second) * 30_000
            publish(rig, recording, index, seconds=1)
            publish(other, recording, index, seconds=1)
        assert iter(predictions) is predictions
    assert [one.seq for one in seen] == [1, 2, 3, 4]
    assert {one.stream for one in seen} == {"rig"}, "rig2 begins with the same letters"
    assert predictions.lost == predictions.malformed == 0


def test_a_daemon_that_was_killed_is_gone_within_a_second_and_comes_back_by_itself(
    tiny_bundle: Path, tiny_model: Model, recording: Recording
) -> None:
    with demo.daemon_process(str(tiny_bundle)) as endpoints:
        with Query(endpoints["query"]) as query:
            pid = query.status()["pid"]
        predictions = Subscription("rig", results=endpoints["results"], query=endpoints["query"])
        until(predictions, lambda message: isinstance(message, wire.DaemonState))
        subprocess.run(["kill", "-9", str(pid)], check=True)
        with pytest.raises(DaemonGoneError, match="silent for 1 s"):
            next(predictions)
        with pytest.raises(DaemonGoneError, match="iterate on"):
            next(predictions)
    ports = {f"{name}_endpoint": endpoints[name] for name in ("data", "results", "query")}
    with running(tiny_model, **ports) as again, predictions:
        with Publisher(again.endpoints["data"], stream="rig", sample_rate=30_000, start=0) as rig:
            publish(rig, recording, rig.units(recording.unit_ids), seconds=10)
            while True:
                try:
                    found = next(predictions)
                    break
                except DaemonGoneError:
                    continue
        assert (found.instance, found.step) == (again.instance, 0)


def test_a_daemon_that_says_bye_is_gone_at_once(run_daemon: RunDaemon) -> None:
    daemon = run_daemon()
    with Subscription("rig", **where(daemon, "results", "query")) as predictions:
        until(predictions, lambda message: isinstance(message, wire.DaemonState))
        daemon.stop()
        with pytest.raises(DaemonGoneError, match="bye"):
            next(predictions)


class Stub:
    """A daemon of which only the sockets are real: it publishes what it is stated and answers every snapshot alike."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.results = self.context.socket(zmq.XPUB)
        self.query = self.context.socket(zmq.ROUTER)
        self.where = {
            "results": f"tcp://127.0.0.1:{self.results.bind_to_random_port('tcp://127.0.0.1')}",
            "query": f"tcp://127.0.0.1:{self.query.bind_to_random_port('tcp://127.0.0.1')}",
        }
        self.snapshot: tuple[wire.Predictions, ...] = ()
        self.answered = threading.Event()
        self.thread = threading.Thread(target=self._answer)
        self.thread.start()

    def _answer(self) -> None:
        while True:
            identity, *frames = self.query.recv_multipart()
            if frames == [b"stop"]:
                return
            request = wire.decode(frames)
            reply = wire.SnapshotReply(request_id=request.request_id, messages=self.snapshot)
            self.query.send_multipart([identity, *wire.encode(reply)])

    def publish(self, *messages: wire.Output | list[bytes]) -> None:
        for message in messages:
            self.results.send_multipart(message if isinstance(message, list) else wire.encode(message))

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *exception: object) -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.connect(self.where["query"])
            dealer.send(b"stop")
            self.thread.join(5)
        self.context.destroy(linger=0)


def prediction(seq: int, *, instance: int = 1) -> wire.Predictions:
    """Predictions of no units at all."""
    nothing = np.zeros(0, dtype=np.float32)
    return wire.Predictions(
        stream="rig",
        epoch=1,
        step=seq,
        seq=seq,
        instance=instance,
        end_sample=seq,
        sample_rate=Fraction(30_000),
        origin=0,
        closed_ns=0,
        state="ready",
        missing=0.0,
        active_units=0,
        skipped_steps=0,
        bundle="stub",
        hop_s=1.0,
        window_s=10.0,
        unit_index=nothing.astype(np.uint32),
        unit_ids=(),
        windows=nothing.astype(np.uint32),
        exposure=nothing,
        ood_score=nothing,
        flags=nothing.astype(np.uint8),
        tasks=(),
    )


def test_what_the_snapshot_held_is_not_repeated_and_what_is_lost_is_counted() -> None:
    with Stub() as daemon, Subscription("rig", **daemon.where) as predictions:
        daemon.snapshot = (prediction(4),)
        while daemon.results.recv()[1:] != b"daemon/":
            pass  # all subscriptions have arrived
        daemon.publish(prediction(3), prediction(4), prediction(5), [b"predictions/rig", b"junk"], prediction(9))
        daemon.publish(prediction(9), prediction(10))
        assert [next(predictions).seq for _ in range(4)] == [4, 5, 9, 10]
        assert (predictions.lost, predictions.malformed) == (3, 1)
        daemon.snapshot = (prediction(2, instance=2),)
        daemon.publish(prediction(1, instance=2), prediction(2, instance=2), prediction(3, instance=2))
        found = [next(predictions) for _ in range(2)]
    assert [(one.instance, one.seq) for one in found] == [(2, 2), (2, 3)], "a new daemon counts from one again"
    assert predictions.lost == 3


def window(step: int, seq: int, *, instance: int = 1, epoch: int = 1, skipped: int = 0) -> wire.Predictions:
    """The predictions of one window a second, as message `seq` of a daemon."""
    made = prediction(seq, instance=instance)
    return replace(made, step=step, end_sample=30_000 * (10 + step), epoch=epoch, skipped_steps=skipped)


def received(*published: wire.Predictions) -> tuple[list[int], int]:
    """The steps that a client gets of what is published, and how many it counts as lost."""
    with Stub() as daemon, Subscription("rig", **daemon.where) as predictions:
        while daemon.results.recv()[1:] != b"daemon/":
            pass
        daemon.publish(*published, replace(prediction(1, instance=99), epoch=99))
        steps = []
        while (one := next(predictions)).instance != 99:
            steps.append(one.step)
        return steps, predictions.lost


def test_what_a_daemon_publishes_again_after_a_crash_is_passed_over() -> None:
    before = [window(step, step + 1) for step in range(5)]
    after = [window(step, step + 1, instance=2) for step in range(3, 8)]
    assert received(*before, *after) == ([0, 1, 2, 3, 4, 5, 6, 7], 0)


def test_other_predictions_about_a_window_are_not_taken_for_the_same() -> None:
    other = replace(window(3, 1, instance=2), unit_index=np.zeros(1, np.uint32), unit_ids=("u",))
    column = {"ood_score": np.zeros(1, np.float32), "flags": np.zeros(1, np.uint8), "windows": np.ones(1, np.uint32)}
    other = replace(other, **column, exposure=np.ones(1, np.float32))
    assert received(window(3, 4), other) == ([3, 3], 0)


@pytest.mark.parametrize(
    ("first", "lost"),
    [
        (window(8, 1, instance=2), 3),
        (window(8, 1, instance=2, skipped=2), 1),
        (window(5, 1, instance=2), 0),
        (window(0, 1, instance=2, epoch=2), 0),
    ],
    ids=["killed", "overtaken", "nothing", "another epoch"],
)
def test_what_a_killed_daemon_cost_is_counted(first: wire.Predictions, lost: int) -> None:
    steps, counted = received(window(4, 5), first)
    assert (steps, counted) == ([4, first.step], lost)


def test_predictions_of_another_release_are_an_error_and_not_silence() -> None:
    frames = wire.encode(prediction(1))
    frames[1] = msgpack.packb(msgpack.unpackb(frames[1]) | {"v": 2})
    with Stub() as daemon, Subscription("rig", **daemon.where) as predictions:
        while daemon.results.recv()[1:] != b"daemon/":
            pass  # all subscriptions have arrived
        daemon.publish(frames, prediction(2))
        with pytest.raises(WireError, match="predictions of version 2; this side has version 1"):
            next(predictions)
        assert (next(predictions).seq, predictions.malformed) == (2, 0), "whoever goes on hears what can be read"


def test_a_daemon_that_gives_no_snapshot_is_followed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stub() as daemon:
        monkeypatch.setattr(client, "GONE_AFTER_S", 0.05)
        with Subscription("rig", results=daemon.where["results"], query=NOWHERE) as predictions:
            while daemon.results.recv()[1:] != b"daemon/":
                pass
            asked = []
            monkeypatch.setattr(
                Query, "snapshot", lambda *_: asked.append(1) or (_ for _ in ()).throw(DaemonGoneError())
            )
            daemon.publish(*(prediction(seq) for seq in range(1, 31)))
            assert [next(predictions).seq for _ in range(30)] == list(range(1, 31))
            assert len(asked) == 1, "asking for each message again would cost a time-out each"


# -- asking -----------------------------------------------------------------------------------------------------------


def test_nobody_there_to_ask() -> None:
    with Query(NOWHERE, timeout_s=0.05) as query, pytest.raises(DaemonGoneError, match="serve running"):
        query.status()


def test_somebody_there_who_does_not_answer_and_then_answers_too_late() -> None:
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    with Query(f"tcp://127.0.0.1:{port}", timeout_s=0.5) as query:
        with pytest.raises(DaemonGoneError, match=r"no answer .* within 0\.5 s"):
            query.status()
        identity = router.recv_multipart()[0]
        for request_id, status in ((1, '{"late": 1}'), (2, '{"now": 2}')):
            router.send_multipart([identity, *wire.encode(wire.StatusReply(request_id=request_id, status=status))])
        assert query.status() == {"now": 2}
    context.destroy(linger=0)


def test_the_client_needs_neither_torch_nor_a_model() -> None:
    code = "import sys, nuclr_stream.client.subscriber; print(sorted({'torch', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
