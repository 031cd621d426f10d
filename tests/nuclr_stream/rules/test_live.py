"""Rules in a running daemon: events on the topic, sinks reached once, over restarts too. Real sockets throughout."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import zmq
from typer.testing import CliRunner

from nuclr_stream.client.replay import replay
from nuclr_stream.client.subscriber import Query, Subscription
from nuclr_stream.commands.cli import app
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.errors import ConfigError, NuclrStreamError
from nuclr_stream.inference.model import Model
from nuclr_stream.outputs.label import write_labels
from nuclr_stream.outputs.result import AnyRecording
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.rules import runner
from nuclr_stream.rules.engine import Firing
from nuclr_stream.rules.journal import Journal
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.wire import DaemonState, Event, RuleFired, encode
from tests.nuclr_stream.conftest import ended, make_recording, running, until, where

RunDaemon = Callable[..., Daemon]
LOW = {"above": 0.01, "below": 0.0, "hold": 2}
COUNT = {"name": "any-sst", "when": "count", "task": "cell_type", "class": "SST", "above": 1, "below": 0, "hold": 2}
UNITS = {"name": "sst", "when": "unit", "task": "cell_type", "class": "SST", **LOW}
REGIONS = [{"name": r.lower(), "when": "region", "region": r, "min_um": 0.0, **LOW} for r in ("CTX", "HPF", "TH")]
ALL_CALLED = {"cell_type": 0.0, "brain_region": 0.0}
WAIT_S = 10.0


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.put((self.command, self.path, json.loads(body)))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_PUT(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class HttpServer(ThreadingHTTPServer):
    """Takes POST and PUT as JSON into `requests`, and answers `status`."""

    daemon_threads = True
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: queue.Queue[tuple[str, str, Any]] = queue.Queue()
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def http_server() -> Iterator[HttpServer]:
    server = HttpServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def network_events() -> Iterator[tuple[str, queue.Queue[bytes]]]:
    """What the Network Events plugin does: REP that takes a line of text and answers."""
    seen: queue.Queue[bytes] = queue.Queue()
    with zmq.Context() as context, context.socket(zmq.REP) as socket, context.socket(zmq.PAIR) as stop:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        stop.bind("inproc://stop")

        def serve() -> None:
            poller = zmq.Poller()
            poller.register(socket, zmq.POLLIN)
            with context.socket(zmq.PAIR) as end:
                end.connect("inproc://stop")
                poller.register(end, zmq.POLLIN)
                while end not in dict(poller.poll()):
                    seen.put(socket.recv())
                    socket.send(b"TTL Handled: Success.")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://127.0.0.1:{port}", seen
        stop.send(b"")
        thread.join()


def fired_over(daemon: Daemon, recording: Recording, count: int) -> list[RuleFired]:
    """The first `count` events while a recording is played."""
    with Subscription(recording.recording_id, **where(daemon, "results", "query")) as subscription:
        until(subscription, lambda message: True)
        for _ in replay(recording, **where(daemon)):
            pass
        return [until(subscription, lambda message: isinstance(message, RuleFired)) for _ in range(count)]


def fired_by_epoch_7(daemon: Daemon, recording: Recording) -> list[RuleFired]:
    """Everything that fires until the recording, sent as epoch 7, has ended and the daemon says what it counted."""
    found: list[RuleFired] = []
    with (
        Subscription("rig", **where(daemon, "results", "query")) as subscription,
        zmq.Context() as context,
        context.socket(zmq.PUSH) as push,
    ):
        until(subscription, lambda message: True)
        push.connect(daemon.endpoints["data"])
        for message in recording_messages(recording, stream="rig", block_samples=30_000, epoch=7):
            push.send_multipart(encode(message))
        until(subscription, lambda m: found.append(m) if isinstance(m, RuleFired) else ended(m))
        until(subscription, lambda m: found.append(m) if isinstance(m, RuleFired) else isinstance(m, DaemonState))
    return found


def test_events_come_out_on_the_topic_once_each_with_their_latency(
    tiny_model: Model, recording: Recording, tmp_path: Path
) -> None:
    rules = [COUNT, UNITS, *REGIONS]
    with running(tiny_model, rules=rules, rules_journal=str(tmp_path / "j"), abstain=ALL_CALLED) as daemon:
        found = fired_over(daemon, recording, 3)
    assert len({one.event_id for one in found}) == 3
    assert all(one.step >= 1 and one.latency_s > 0 for one in found), "two windows must hold"
    events = [json.loads(line)["event"] for line in (tmp_path / "j").read_text().splitlines()]
    assert len(events) == len(set(events)) and {one.event_id for one in found} <= set(events)
    names = {event.split("/")[0] for event in events}
    assert {"any-sst", "sst"} < names and names & {"ctx", "hpf", "th"}


def test_every_sink_is_reached_once_and_the_journal_knows(
    tiny_model: Model, recording: Recording, tmp_path: Path
) -> None:
    with http_server() as server, network_events() as (endpoint, lines):
        sinks = [
            {"kind": "webhook", "name": "hook", "url": f"{server.url}/loop?rig=1"},
            {"kind": "open_ephys_message", "name": "note", "url": server.url},
            {"kind": "open_ephys_ttl", "name": "ttl", "endpoint": endpoint, "line": 3, "pulse_ms": 1.0},
        ]
        rule = COUNT | {"sinks": ["hook", "note", "ttl"], "hold": 1}
        options = {"rules": [rule], "sinks": sinks, "rules_journal": str(tmp_path / "j"), "abstain": ALL_CALLED}
        with running(tiny_model, **options) as daemon:
            (event,) = fired_by_epoch_7(daemon, recording)
            requests = sorted([server.requests.get(timeout=WAIT_S) for _ in range(2)], key=lambda one: one[1])
            assert [lines.get(timeout=WAIT_S) for _ in range(2)] == [b"TTL Line=3 State=1", b"TTL Line=3 State=0"]
        (put, post) = requests
        assert put[:2] == ("PUT", "/api/message") and "rule=any-sst" in put[2]["text"]
        assert post[:2] == ("POST", "/loop?rig=1")
        assert (post[2]["event"], post[2]["end_sample"]) == (event.event_id, event.end_sample)
        assert 0 < post[2]["latency_s"] < 60
        # the same recording again, with the same epoch, in a new daemon: nothing more
        with running(tiny_model, **(options | {"rules": [rule, UNITS | {"hold": 1}]})) as daemon:
            assert {one.rule for one in fired_by_epoch_7(daemon, recording)} == {"sst"}
        assert server.requests.empty() and lines.empty()
    states = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()]
    assert [one["sink"] for one in states if one["state"] == "done" and one["event"] == event.event_id]
    assert {one["sink"] for one in states if one["state"] == "done"} == {"hook", "note", "ttl"}


def test_a_sink_that_fails_is_said_and_counted_and_not_tried_again(
    run_daemon: RunDaemon, recording: Recording, tmp_path: Path
) -> None:
    with http_server() as server:
        server.status = 500
        sinks = [{"kind": "webhook", "name": "hook", "url": server.url}]
        journal = tmp_path / "j"
        daemon = run_daemon(
            rules=[COUNT | {"sinks": ["hook"]}], sinks=sinks, rules_journal=str(journal), abstain=ALL_CALLED
        )
        with Subscription("", **where(daemon, "results", "query")) as subscription:
            until(subscription, lambda message: True)
            for _ in replay(recording, **where(daemon)):
                pass
            said = until(subscription, lambda m: isinstance(m, Event) and m.kind == "rule_sink_failed")
        assert "answered 500" in said.detail
        with Query(daemon.endpoints["query"]) as query:
            counters = query.status()["counters"]
        assert (counters["rules_fired"], counters["rules_sink_failed"]) == (1, 1)
        assert server.requests.qsize() == 1
    assert json.loads(journal.read_text().splitlines()[-1])["state"] == "failed"


# -- the journal ------------------------------------------------------------------------------------------------------

FIRING = Firing(
    rule="pv",
    stream="probeA",
    epoch=1,
    subject="u1",
    value=0.9,
    step=3,
    end_sample=300,
    time_s=3.0,
    closed_ns=1,
    sinks=("hook", "ttl"),
)


def test_what_a_dead_daemon_may_have_sent_is_unsure_reported_once_and_not_sent_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.fire(FIRING)
    journal.delivered(FIRING.event_id, "hook", latency_s=0.1)
    journal.close()  # and the daemon is killed before ttl answers
    again = Journal(tmp_path / "j")
    assert (again.fired, again.unsure) == ([FIRING.event_id], [(FIRING.event_id, "ttl")])
    again.close()
    third = Journal(tmp_path / "j")
    assert (third.fired, third.unsure) == ([FIRING.event_id], [])
    third.close()


def test_the_next_daemon_says_what_is_unsure(run_daemon: RunDaemon, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.fire(FIRING)
    journal.close()
    daemon = run_daemon(rules=[COUNT], rules_journal=str(tmp_path / "j"))
    with Query(daemon.endpoints["query"]) as query:
        assert query.status()["counters"]["rules_unsure"] == 2
    lines = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()]
    assert [(one["sink"], one["state"]) for one in lines[1:3]] == [("hook", "unsure"), ("ttl", "unsure")]


def test_a_last_line_that_a_crash_cut_off_is_taken_out_and_damage_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.fire(FIRING)
    with pytest.raises(NuclrStreamError, match="another daemon"):
        Journal(tmp_path / "j")
    journal.close()
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole + whole[:20])
    again = Journal(tmp_path / "j")
    assert again.fired == [FIRING.event_id]
    again.close()
    (tmp_path / "j").write_bytes(b"thesis\n")
    with pytest.raises(NuclrStreamError, match="line 1 is none of a journal"):
        Journal(tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == b"thesis\n"


def test_rules_without_a_journal_are_refused_before_anything_is_served(tiny_model: Model) -> None:
    with pytest.raises(ConfigError, match="rules_journal is empty"), running(tiny_model, rules=[COUNT]):
        pass


def test_an_event_that_cannot_be_noted_is_not_sent_and_said(
    run_daemon: RunDaemon, recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(journal: Journal, firing: Firing) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Journal, "fire", full)
    with http_server() as server:
        sinks = [{"kind": "webhook", "name": "hook", "url": server.url}]
        rules = [COUNT | {"sinks": ["hook"]}]
        daemon = run_daemon(rules=rules, sinks=sinks, rules_journal=str(tmp_path / "j"), abstain=ALL_CALLED)
        with Subscription("", **where(daemon, "results", "query")) as subscription:
            until(subscription, lambda message: True)
            for _ in replay(recording, **where(daemon)):
                pass
            said = until(subscription, lambda m: isinstance(m, Event) and m.kind == "rule_not_fired")
        assert "no space left" in said.detail and server.requests.empty()


def test_windows_that_the_rules_cannot_keep_up_with_are_counted(
    run_daemon: RunDaemon, recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "WAITING", 0)
    daemon = run_daemon(rules=[COUNT], rules_journal=str(tmp_path / "j"), abstain=ALL_CALLED)
    windows = len(list(replay(recording, **where(daemon))))
    with Query(daemon.endpoints["query"]) as query:
        assert query.status()["counters"]["rules_windows_skipped"] == windows


# -- replay -----------------------------------------------------------------------------------------------------------


def test_replay_shows_what_a_daemon_fires_from_recording_record_and_log(
    run_daemon: RunDaemon, tiny_bundle: Path, tiny_model: Model, recording: Recording, tmp_path: Path
) -> None:
    config = tmp_path / "rig.toml"
    rule = '[[rules]]\nname = "any-sst"\nwhen = "count"\ntask = "cell_type"\nclass = "SST"\n'
    rule += "above = 1\nbelow = 0\nhold = 2\n"
    config.write_text(f'bundle = "{tiny_bundle}"\n{rule}[abstain]\ncell_type = 0.0\n')
    kept = {"rules_journal": str(tmp_path / "j"), "record": str(tmp_path / "a.rec")}
    daemon = run_daemon(rules=[COUNT], abstain=ALL_CALLED, **kept)
    (event,) = fired_over(daemon, recording, 1)
    recording.save(tmp_path / "a.npz")

    def labeler_of(one: AnyRecording) -> Labeler:
        return Labeler(tiny_model, stream=one.recording_id, abstain=ALL_CALLED)

    write_labels([recording], labeler_of, tmp_path / "a.jsonl")
    for name in ("a.npz", "a.rec", "a.jsonl"):
        result = CliRunner().invoke(
            app, ["rules", "--replay", str(tmp_path / name), "--config", str(config)], catch_exceptions=False
        )
        line, document = result.stdout.splitlines()
        assert line.split()[0] == f"{event.end_sample / 30000:.1f}" and "any-sst" in line, name
        assert json.loads(document) == {"replay": name, "rules": 1, "fired": 1}
    config.write_text(f'bundle = "{tiny_bundle}"\n[[rules]]\nname = "ctx"\nwhen = "region"\nregion = "CTX"\n')
    with pytest.raises(ConfigError, match="asks about depth"):
        CliRunner().invoke(
            app, ["rules", "--replay", str(tmp_path / "a.rec"), "--config", str(config)], catch_exceptions=False
        )


def test_a_region_is_reached_by_a_recording_with_depths(tiny_bundle: Path, tmp_path: Path) -> None:
    make_recording().save(tmp_path / "a.npz")
    config = tmp_path / "rig.toml"
    config.write_text(
        f'bundle = "{tiny_bundle}"\n'
        + "".join(
            f'[[rules]]\nname = "{region.lower()}"\nwhen = "region"\nregion = "{region}"\nabove = 0.01\nbelow = 0\n'
            for region in ("CTX", "HPF", "TH")
        )
        + "[abstain]\nbrain_region = 0.0\n"
    )
    result = CliRunner().invoke(
        app, ["rules", "--replay", str(tmp_path / "a.npz"), "--config", str(config)], catch_exceptions=False
    )
    assert json.loads(result.stdout.splitlines()[-1])["fired"] >= 1
