"""The daemon as its peers see it: real sockets on free ports, good sources and bad ones, clients early and late."""

from __future__ import annotations

import json
import os
import socket
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import zmq

from nuclr_stream import wire
from nuclr_stream.client import Publisher, Query, QueryError, Subscription
from nuclr_stream.client.replay import replay
from nuclr_stream.config import Settings
from nuclr_stream.daemon import daemon as daemon_module
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.daemon.records import RecordWriter, read_records
from nuclr_stream.daemon.streams import Stream, Streams
from nuclr_stream.errors import DaemonGoneError, EndpointError, NonFiniteError, NuclrStreamError
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.stream.playback import recording_messages
from tests.nuclr_stream.conftest import FREE_PORTS, ended, running, until, where
from tests.nuclr_stream.streams import Source

HOSTILE = {"data": zmq.PUSH, "query": zmq.DEALER, "results": zmq.XSUB}
RunDaemon = Callable[..., Daemon]


def heartbeat(stream: str, *, epoch: int = 1, seq: int = 0, stop: int = 0) -> wire.Heartbeat:
    return wire.Heartbeat(stream=stream, epoch=epoch, seq=seq, sample_rate=Fraction(30_000), start=stop, stop=stop)


class RawPush:
    """A source without any manners: it sends whatever frames it is given."""

    def __init__(self, endpoint: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PUSH)
        self.socket.connect(endpoint)

    def send(self, *messages: wire.Message | list[bytes]) -> None:
        for message in messages:
            self.socket.send_multipart(message if isinstance(message, list) else wire.encode(message))

    def __enter__(self) -> RawPush:
        return self

    def __exit__(self, *exception: object) -> None:
        self.context.destroy(linger=1000)


def counters(daemon: Daemon) -> dict[str, int]:
    with Query(daemon.endpoints["query"]) as query:
        return query.status()["counters"]


# -- predictions ------------------------------------------------------------------------------------------------------


def test_a_late_joiner_gets_everything_there_is(run_daemon: RunDaemon, recording: Recording) -> None:
    daemon = run_daemon()
    last = [one.predictions for one in replay(recording, **where(daemon))][-1]
    with Subscription("random_0", **where(daemon, "results", "query")) as late:
        found = until(late, lambda message: isinstance(message, wire.Predictions))
        assert (found.seq, found.end_sample, found.instance) == (last.seq, last.end_sample, daemon.instance)
        assert np.array_equal(found.tasks[0].probabilities, last.tasks[0].probabilities)
        assert late.state is not None
        assert late.state.state == "ended"


def test_a_new_subscriber_hears_the_states_without_waiting_for_the_next_report(tiny_model: Model) -> None:
    settings = Settings(**FREE_PORTS).model_copy(update={"state_interval_s": 3600.0})
    daemon = Daemon(settings, tiny_model)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        for _ in range(3):
            with Subscription("rig", **where(daemon, "results", "query")) as late:
                until(late, lambda message: isinstance(message, wire.DaemonState))
    finally:
        daemon.stop()
        thread.join(5)


def test_states_tell_of_warming_up_then_ready_then_ended(run_daemon: RunDaemon, recording: Recording) -> None:
    daemon = run_daemon()
    with (
        Subscription("rig", **where(daemon, "results", "query")) as subscription,
        RawPush(daemon.endpoints["data"]) as rig,
    ):
        until(subscription, lambda message: isinstance(message, wire.DaemonState))
        seen = []
        for message in recording_messages(recording, stream="rig", block_samples=30_000, epoch=7):
            rig.send(message)
        while not seen or not ended(seen[-1]):
            seen.append(until(subscription, lambda message: isinstance(message, wire.StreamState)))
        states = list(dict.fromkeys(state.state for state in seen))
        assert states in (["warming_up", "ready", "ended"], ["warming_up", "ended"])
        assert {state.epoch for state in seen} == {7}
        assert seen[0].progress < 1 == seen[-1].progress
        assert (seen[-1].units, seen[-1].step, seen[-1].watermark) == (20, 10, recording.num_samples)


def test_events_tell_what_happens_to_a_stream(run_daemon: RunDaemon) -> None:
    daemon = run_daemon()
    with (
        Subscription("rig", **where(daemon, "results", "query")) as subscription,
        Publisher(daemon.endpoints["data"], stream="rig", sample_rate=30_000, epoch=5) as rig,
    ):
        until(subscription, lambda message: isinstance(message, wire.DaemonState))
        rig.units(["a", "b"])
        rig.spikes([], [], stop=3_000)
        rig.skip(6_000)
        rig.spikes([6_001], [1], stop=9_000)
        rig.end()
        events = [until(subscription, lambda message: isinstance(message, wire.Event)) for _ in range(4)]
    assert [event.kind for event in events] == ["new_epoch", "units_changed", "gap", "ended"]
    assert [event.detail for event in events] == ["", "2 units", "3000 samples missing", ""]
    assert {(event.stream, event.epoch) for event in events} == {("rig", 5)}


def test_every_prediction_is_recorded_and_read_back(tiny_model: Model, recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "kept.rec"
    for _ in range(2):  # the second daemon carries the file on
        with running(tiny_model, record=str(path)) as daemon:
            received = [one.predictions for one in replay(recording, **where(daemon))]
        kept = list(read_records(path))[-len(received) :]
        assert [one.seq for one in kept] == [one.seq for one in received]
        assert all(
            np.array_equal(a.tasks[1].probabilities, b.tasks[1].probabilities)
            for a, b in zip(kept, received, strict=True)
        )
    assert len(list(read_records(path))) == 22


def test_a_full_disk_costs_records_but_no_predictions(
    run_daemon: RunDaemon, recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RecordWriter, frames: list[bytes]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    daemon = run_daemon(record=str(tmp_path / "kept.rec"))
    assert len(list(replay(recording, **where(daemon)))) == 11
    with Subscription("", **where(daemon, "results", "query")) as late:  # the record has a thread of its own
        until(late, lambda m: isinstance(m, wire.DaemonState) and m.counters.get("not_recorded") == 11)


def test_overload_skips_steps_and_counts_every_one(
    run_daemon: RunDaemon, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()
    embed = Model.embed

    def slow(self: Model, counts: np.ndarray, active: np.ndarray) -> np.ndarray:
        assert let_go.wait(10)
        return embed(self, counts, active)

    monkeypatch.setattr(Model, "embed", slow)
    daemon = run_daemon()
    with (
        Subscription("rig", **where(daemon, "results", "query")) as subscription,
        RawPush(daemon.endpoints["data"]) as rig,
    ):
        for message in recording_messages(recording, stream="rig", block_samples=30_000):
            rig.send(message)
        until(subscription, lambda m: isinstance(m, wire.StreamState) and m.watermark == recording.num_samples)
        let_go.set()
        predicted = [until(subscription, lambda m: isinstance(m, wire.Predictions)) for _ in range(2)]
        state = until(subscription, ended)
    assert [(one.step, one.skipped_steps) for one in predicted] == [(0, 0), (10, 9)]
    assert (state.step, state.skipped_steps) == (10, 9)
    assert "nuclr_stream_skipped_steps_total 9.0" in daemon.metrics.text().decode()


def test_a_last_step_that_hangs_is_given_up_on(
    run_daemon: RunDaemon, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_now, let_go = threading.Event(), threading.Event()

    def hangs(self: Model, counts: np.ndarray, active: np.ndarray) -> np.ndarray:
        running_now.set()
        assert let_go.wait(10)
        raise NonFiniteError("never seen")

    monkeypatch.setattr(Model, "embed", hangs)
    monkeypatch.setattr(daemon_module, "LAST_STEP_S", 0.05)
    daemon = run_daemon()
    with (
        Subscription("rig", **where(daemon, "results", "query")) as subscription,
        RawPush(daemon.endpoints["data"]) as rig,
    ):
        until(subscription, lambda message: isinstance(message, wire.DaemonState))
        for message in recording_messages(recording, stream="rig", block_samples=300_000):
            rig.send(message)
        assert running_now.wait(10)
        daemon.stop()
        with pytest.raises(DaemonGoneError, match="bye"):
            until(subscription, lambda message: False)
        let_go.set()
    assert not daemon._in_time


# -- queries ----------------------------------------------------------------------------------------------------------


def test_embeddings_of_named_units(run_daemon: RunDaemon, recording: Recording) -> None:
    daemon = run_daemon()
    fired = recording.spike_units != 19
    recording = replace(
        recording, spike_samples=recording.spike_samples[fired], spike_units=recording.spike_units[fired]
    )
    with Query(daemon.endpoints["query"]) as query:
        with pytest.raises(QueryError, match="unknown_stream"):
            query.embeddings("random_0")
        list(replay(recording, **where(daemon)))
        every = query.embeddings("random_0")
        some = query.embeddings("random_0", ["u7", "never", "u19", "u3"])
    assert every.unit_ids == tuple(recording.unit_ids[:19]), "a unit without a window is left out"
    assert some.unit_ids == ("u7", "u3")
    assert np.array_equal(some.mean, every.mean[[7, 3]])
    assert np.array_equal(some.last, every.last[[7, 3]])
    assert some.windows.tolist() == [11, 11]
    assert not np.array_equal(every.mean, every.last)


def test_embeddings_that_are_asked_for_again_are_those_of_the_last_step(run_daemon: RunDaemon) -> None:
    daemon = run_daemon()
    source = Source(stream="rig")
    with (
        Subscription("rig", **where(daemon, "results", "query")) as subscription,
        RawPush(daemon.endpoints["data"]) as rig,
        Query(daemon.endpoints["query"], timeout_s=5) as query,
    ):
        until(subscription, lambda message: isinstance(message, wire.DaemonState))
        rig.send(source.units())
        replies = []
        for start, stop in ((0, 10_000), (10_000, 11_000)):
            rig.send(source.busy(start, stop))
            until(subscription, lambda m, stop=stop: isinstance(m, wire.Predictions) and m.end_sample == stop)
            replies += [query.embeddings("rig"), query.embeddings("rig")]
        assert [reply.end_sample for reply in replies] == [10_000, 10_000, 11_000, 11_000]
        assert [int(reply.windows[0]) for reply in replies] == [1, 1, 2, 2]
        assert np.array_equal(replies[2].mean, replies[3].mean)
        assert len({reply.request_id for reply in replies}) == 4


def test_embeddings_while_warming_up_are_rejected(run_daemon: RunDaemon) -> None:
    daemon = run_daemon()
    with (
        Subscription("rig", **where(daemon, "results", "query")) as subscription,
        RawPush(daemon.endpoints["data"]) as rig,
    ):
        rig.send(heartbeat("rig"))
        until(subscription, lambda message: isinstance(message, wire.StreamState))
        with Query(daemon.endpoints["query"]) as query, pytest.raises(QueryError, match="warming_up"):
            query.embeddings("rig")


def test_a_window_that_never_was_in_a_stream_is_embedded(run_daemon: RunDaemon, tiny_model: Model) -> None:
    counts = np.random.default_rng(0).poisson(0.1, (13, 500)).astype(np.float32)
    counts[4] = 0
    active = counts.any(axis=1)
    daemon = run_daemon()
    with Query(daemon.endpoints["query"]) as query:
        reply = query.embed_window(counts)
    assert np.array_equal(reply.embedding[active], tiny_model.embed(counts, active))
    assert not reply.embedding[4].any()


def test_priors_and_half_life_of_the_settings_reach_predictions(run_daemon: RunDaemon, recording: Recording) -> None:
    daemon = run_daemon(priors={"cell_type": {"PV": 3, "E": 1}}, half_life_s=1.0)
    last = [received.predictions for received in replay(recording, **where(daemon))][-1]
    assert not last.tasks[0].probabilities[:, 2:].any() and last.tasks[1].probabilities.all()
    assert last.exposure.max() < 1.1, "with a half-life of one hop all windows together are worth two"


@pytest.mark.parametrize(("shape", "reason"), [((12, 499), "window_shape"), ((257, 500), "too_many_units")])
def test_a_window_of_another_shape_is_rejected(run_daemon: RunDaemon, shape: tuple[int, int], reason: str) -> None:
    daemon = run_daemon()
    with Query(daemon.endpoints["query"]) as query, pytest.raises(QueryError, match=reason):
        query.embed_window(np.zeros(shape, dtype=np.float32))


def test_more_windows_than_may_wait_are_rejected_and_the_others_answered(
    run_daemon: RunDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = run_daemon(embed_queue=1)
    let_go = threading.Event()
    embed = Model.embed

    def slow(self: Model, counts: np.ndarray, active: np.ndarray) -> np.ndarray:
        let_go.wait(10)
        return embed(self, counts, active)

    monkeypatch.setattr(Model, "embed", slow)
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(daemon.endpoints["query"])
    counts = np.ones((12, 500), dtype=np.float32)
    for request_id in (1, 2, 3):
        socket.send_multipart(wire.encode(wire.EmbedWindowRequest(request_id=request_id, counts=counts)))
    try:
        rejected = wire.decode(socket.recv_multipart())
        let_go.set()
        answers = [wire.decode(socket.recv_multipart()) for _ in range(2)]
    finally:
        let_go.set()
        context.destroy(linger=0)
    assert isinstance(rejected, wire.ErrorReply)
    assert (rejected.request_id, rejected.reason) == (3, "busy")
    assert [type(answer) for answer in answers] == [wire.EmbedWindowReply, wire.EmbedWindowReply]
    assert [answer.request_id for answer in answers] == [1, 2]


def test_a_window_that_breaks_the_model_gets_an_answer_too(
    run_daemon: RunDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Model, counts: np.ndarray, active: np.ndarray) -> np.ndarray:
        raise NonFiniteError("encoder.onnx: NaN")

    daemon = run_daemon()
    monkeypatch.setattr(Model, "embed", broken)
    with Query(daemon.endpoints["query"]) as query, pytest.raises(QueryError, match="nonfinite"):
        query.embed_window(np.ones((12, 500), dtype=np.float32))


def test_status_is_the_same_document_over_http(run_daemon: RunDaemon, recording: Recording) -> None:
    daemon = run_daemon()
    list(replay(recording, **where(daemon)))
    with Query(daemon.endpoints["query"]) as query:
        status = query.status()
    with Subscription("random_0", **where(daemon, "results", "query")) as subscription:
        until(subscription, ended)  # a report was made since
        until(subscription, ended)
        with urllib.request.urlopen(daemon.endpoints["http"] + "/status") as answer:
            over_http = json.load(answer)
    assert over_http.pop("uptime_s") > 0 < status.pop("uptime_s")
    assert over_http == status
    assert status["streams"]["random_0"]["state"] == "ended"
    assert (status["window_s"], status["hop_s"], status["ready"]) == (10.0, 1.0, True)


# -- hostile peers ----------------------------------------------------------------------------------------------------


def test_hostile_bytes_on_every_socket_are_counted_and_a_good_rig_is_served(
    run_daemon: RunDaemon, recording: Recording
) -> None:
    rng = np.random.default_rng(3)
    daemon = run_daemon()
    good = wire.encode(next(iter(recording_messages(recording, stream="x", block_samples=30_000))))
    junk: list[list[bytes]] = [[rng.bytes(int(n))] for n in rng.integers(0, 3_000, 30)]
    junk += [[rng.bytes(20), rng.bytes(200), b"", rng.bytes(7)] for _ in range(30)]
    junk += [good[:k] for k in range(1, len(good))]
    junk += [[frame if i != k else rng.bytes(len(frame) or 1) for i, frame in enumerate(good)] for k in (0, 1, 2)]
    junk += [wire.encode(wire.StatusRequest(request_id=1)), [b""] * 5_000]

    for name in ("data", "results", "query"):  # not even ZeroMQ
        host, port = daemon.endpoints[name].removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(rng.bytes(10_000))
    context = zmq.Context()
    peers = {name: context.socket(kind) for name, kind in HOSTILE.items()}
    for name, peer in peers.items():
        peer.connect(daemon.endpoints[name])
        for frames in junk:
            peer.send_multipart(frames)
    with Subscription("random_0", **where(daemon, "results", "query")):
        assert len(list(replay(recording, **where(daemon)))) == 11
    context.destroy(linger=2000)
    found = counters(daemon)
    assert {f"malformed_{reason}" for reason in ("frames", "kind", "header")} <= set(found)
    assert set(found) <= {f"malformed_{reason}" for reason in wire.REASONS} | {"replies_lost"}
    assert found.get("loop_errors", 0) == 0


def test_a_flood_of_malformed_messages_leaves_a_good_stream_its_turn(
    run_daemon: RunDaemon, recording: Recording
) -> None:
    daemon = run_daemon()
    over = threading.Event()
    context = zmq.Context()

    def flood() -> None:
        with context.socket(zmq.PUSH) as push:
            push.setsockopt(zmq.LINGER, 0)
            push.connect(daemon.endpoints["data"])
            while not over.is_set():
                with suppress(zmq.Again):
                    push.send_multipart([b"spikes/random_0", bytes(40), b""], zmq.NOBLOCK)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        with Subscription("", **where(daemon, "results", "query")) as subscription:
            until(
                subscription, lambda m: isinstance(m, wire.DaemonState) and m.counters.get("malformed_header", 0) > 99
            )
            found = [one.predictions for one in replay(recording, **where(daemon))]
    finally:
        over.set()
        thread.join()
        context.destroy(linger=0)
    assert len(found) == 11
    with Query(daemon.endpoints["query"], timeout_s=5) as query:
        counters = query.status()["streams"]["random_0"]["counters"]
    assert counters["received"] == counters["accepted"], "not one message of the good source was pushed out"


def test_messages_of_the_wrong_direction_are_malformed(run_daemon: RunDaemon, recording: Recording) -> None:
    daemon = run_daemon()
    with RawPush(daemon.endpoints["data"]) as rig, Query(daemon.endpoints["query"]) as query:
        rig.send(wire.SnapshotRequest(request_id=1))
        query._socket.send_multipart(wire.encode(heartbeat("x")))
        list(replay(recording, **where(daemon)))
        assert query.status()["counters"]["malformed_kind"] == 2


def test_streams_beyond_the_maximum_are_counted_until_one_has_ended(
    run_daemon: RunDaemon, recording: Recording
) -> None:
    daemon = run_daemon(max_streams=1)
    with (
        Subscription("", **where(daemon, "results", "query")) as subscription,
        RawPush(daemon.endpoints["data"]) as rig,
    ):
        rig.send(heartbeat("first"), heartbeat("second"))
        until(subscription, lambda m: isinstance(m, wire.DaemonState) and m.counters.get("too_many_streams") == 1)
        rig.send(wire.End(stream="first", epoch=1, seq=1, sample_rate=Fraction(30_000), sample=0))
        until(subscription, ended)
        rig.send(heartbeat("second", seq=1))
        until(subscription, lambda m: isinstance(m, wire.DaemonState) and m.streams == ("second",))
    assert len(list(daemon._streams)) == 1
    assert daemon._streams.inputs["received"] == 3, "what a stream counted outlives it"


def test_a_silent_stream_gives_its_place_to_a_new_one(tiny_model: Model) -> None:
    streams = Streams(tiny_model, Settings(max_streams=1), instance=1)
    assert streams.of(heartbeat("old"), 0) is not None
    assert streams.of(heartbeat("new"), 59 * 10**9) is None
    assert streams.of(heartbeat("new"), 61 * 10**9) is not None
    assert streams.get("old") is None


def test_a_bug_in_the_path_of_one_message_does_not_end_the_predictions(
    run_daemon: RunDaemon, recording: Recording, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    take = Stream.take

    def buggy(self: Stream, message: wire.Input, now_ns: int) -> object:
        if message.stream == "poison":
            raise RuntimeError("a bug")
        return take(self, message, now_ns)

    monkeypatch.setattr(Stream, "take", buggy)
    daemon = run_daemon()
    with RawPush(daemon.endpoints["data"]) as rig:
        rig.send(heartbeat("poison"), heartbeat("poison", seq=1), heartbeat("poison", seq=2))
        assert len(list(replay(recording, **where(daemon)))) == 11
    assert counters(daemon) == {"loop_errors": 3}
    assert "nuclr_stream_loop_errors_total 3.0" in daemon.metrics.text().decode()
    assert sum("a bug" in (record.exc_text or "") for record in caplog.records) == 1, "one line a second"


# -- life -------------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_rejected_with_the_option_to_change(run_daemon: RunDaemon, tiny_model: Model) -> None:
    daemon = run_daemon()
    taken = {f"{name}_endpoint": daemon.endpoints[name] for name in ("data", "results", "query")}
    taken["http_port"] = daemon.endpoints["http"].rsplit(":", 1)[1]
    for setting, value in taken.items():
        with pytest.raises(EndpointError, match="--" + setting.replace("_", "-")):
            Daemon(Settings(**(FREE_PORTS | {setting: value})), tiny_model)


def test_a_daemon_that_finds_its_port_taken_does_not_touch_the_record(
    run_daemon: RunDaemon, tiny_model: Model, tmp_path: Path
) -> None:
    taken = run_daemon().endpoints["data"]
    torn = tmp_path / "kept.rec"
    torn.write_bytes(b"NUCLRRC1" + b"\x02\0\0\0torn")
    before = torn.read_bytes()
    with pytest.raises(EndpointError):
        Daemon(Settings(**(FREE_PORTS | {"data_endpoint": taken, "record": str(torn)})), tiny_model)
    assert torn.read_bytes() == before


def test_over_ipc_in_a_private_folder_with_a_lock(
    run_daemon: RunDaemon, tiny_model: Model, recording: Recording
) -> None:
    with_socket = Path(f"/tmp/nuclr-test-{os.getpid()}")
    settings = {f"{name}_endpoint": f"ipc://{with_socket}/{name}" for name in ("data", "results", "query")}
    try:
        with running(tiny_model, **settings) as daemon:
            assert with_socket.stat().st_mode & 0o777 == 0o700
            assert len(list(replay(recording, **where(daemon)))) == 11
            with pytest.raises(EndpointError, match=r"a daemon is running there.*--data-endpoint"):
                Daemon(Settings(**(FREE_PORTS | settings)), tiny_model)
            with Query(daemon.endpoints["query"]) as query:
                assert query.status()["ready"], "the second one did not steal the path"
        with running(tiny_model, **settings):
            pass
        with_socket.chmod(0o755)
        with pytest.raises(EndpointError, match="chmod 700"):
            Daemon(Settings(**(FREE_PORTS | settings)), tiny_model)
    finally:
        for path in with_socket.iterdir():
            path.unlink()
        with_socket.rmdir()


def test_a_start_that_fails_leaves_nothing_bound(tiny_model: Model, tmp_path: Path) -> None:
    not_a_record = tmp_path / "notes.txt"
    not_a_record.write_text("something else entirely")
    with pytest.raises(NuclrStreamError, match=r"notes\.txt.*--record"):
        Daemon(Settings(**(FREE_PORTS | {"record": str(not_a_record)})), tiny_model)
    assert not_a_record.read_text() == "something else entirely"
    first = Daemon(Settings(**FREE_PORTS), tiny_model)
    ports = {f"{name}_endpoint": first.endpoints[name] for name in ("data", "results", "query")}
    first.close()
    Daemon(Settings(**(FREE_PORTS | ports)), tiny_model).close()


def test_it_says_bye_and_publishes_the_step_that_was_running(
    run_daemon: RunDaemon, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_now, let_go = threading.Event(), threading.Event()
    embed = Model.embed

    def slow(self: Model, counts: np.ndarray, active: np.ndarray) -> np.ndarray:
        running_now.set()
        assert let_go.wait(10)
        return embed(self, counts, active)

    monkeypatch.setattr(Model, "embed", slow)
    daemon = run_daemon()
    with (
        Subscription("rig", **where(daemon, "results", "query")) as subscription,
        RawPush(daemon.endpoints["data"]) as rig,
    ):
        until(subscription, lambda message: isinstance(message, wire.DaemonState))
        for message in recording_messages(recording, stream="rig", block_samples=30_000):
            rig.send(message)
        assert running_now.wait(10)
        daemon.stop()
        let_go.set()
        predicted = until(subscription, lambda message: isinstance(message, wire.Predictions))
        assert predicted.step == 0
        bye = None
        while bye is None or bye.kind != "bye":
            subscription._pending.clear()
            subscription._take()
            bye = next((m for m in subscription._pending if isinstance(m, wire.Event)), None)
