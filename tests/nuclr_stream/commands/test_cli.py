"""The command line: every command once for real, exit codes, and one line for every error."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclr_stream import wire
from nuclr_stream.client import Publisher, Query, Subscription
from nuclr_stream.client import subscriber as client
from nuclr_stream.client.replay import replay
from nuclr_stream.commands import bench, cli, demo, doctor
from nuclr_stream.config import Settings
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.daemon.records import read_records
from nuclr_stream.errors import DaemonGoneError
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import Recording
from tests.nuclr_stream.conftest import make_recording, until, where
from tests.nuclr_stream.recorded_files import recording as recorded
from tests.nuclr_stream.recorded_files import write_phy

RunDaemon = Callable[..., Daemon]
FREE = ["--data-endpoint", "tcp://127.0.0.1:0", "--results-endpoint", "tcp://127.0.0.1:0"]
FREE += ["--query-endpoint", "tcp://127.0.0.1:0", "--http-port", "0"]
NOWHERE = [f"--{name}-endpoint=tcp://127.0.0.1:9" for name in ("data", "results", "query")]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, stdout and stderr."""

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nuclr-stream", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return command


@pytest.fixture
def file(tmp_path: Path, recording: Recording) -> Path:
    """The small recording as a file."""
    recording.save(tmp_path / "small.npz")
    return tmp_path / "small.npz"


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`nuclr-stream serve` as a process, and the line that it prints when it is ready."""
    command = [sys.executable, "-m", "nuclr_stream", "serve", *FREE, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def endpoints_of(daemon: Daemon, *names: str) -> list[str]:
    return [f"--{name}-endpoint={endpoint}" for name, endpoint in where(daemon, *names).items()]


def last_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found


# -- serve ------------------------------------------------------------------------------------------------------------


def test_sigterm_ends_the_daemon_in_order(tiny_bundle: Path, tmp_path: Path, recording: Recording) -> None:
    kept = tmp_path / "kept.rec"
    config = tmp_path / "mine.toml"
    config.write_text(f'hop_s = 2.0\nrecord = "{kept}"\n')
    options = ["--bundle", str(tiny_bundle), "--config", str(config), "--hop-s", "5", "--threads", "1"]
    with serving(*options, "--provider", "cpu") as (process, ready):
        endpoints = ready["endpoints"]
        assert ready["provider"] == "cpu"
        places = {name: endpoints[name] for name in ("data", "results", "query")}
        assert [one.predictions.hop_s for one in replay(recording, **places)] == [5.0, 5.0, 5.0]
        with Query(endpoints["query"]) as query:
            assert query.status()["threads"] == 1
        with Subscription(results=endpoints["results"], query=endpoints["query"]) as subscription:
            until(subscription, lambda message: isinstance(message, wire.DaemonState))
            process.send_signal(signal.SIGTERM)
            with pytest.raises(DaemonGoneError, match="bye"):
                until(subscription, lambda message: False)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert len(list(read_records(kept))) == 3


def test_the_second_signal_ends_it_at_once() -> None:
    # os.write: a handler that prints may interrupt the very print of "ready", which Python forbids
    code = "import os, signal; from nuclr_stream.commands.serve import end_on_signals as end\n"
    code += "end(lambda: os.write(1, b'ending\\n')); os.write(1, b'ready\\n')\nwhile True: signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "ending\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 1


def test_serve_without_a_bundle_says_how_to_get_one(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = run("serve")
    assert (code, out) == (2, "")
    assert "--bundle" in err
    assert "nuclr-export bundle" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bundle", "nothing-like-it"], ["nothing-like-it", "manifest.json"]),
        (["--hop-s", "0.005"], ["hop_s", "whole number of bins"]),
        (["--hop-s", "0"], ["hop_s = 0.0", "greater than 0"]),
        (["--results-endpoint", "tcp://0.0.0.0:5"], ["results_endpoint", "not loopback"]),
        (["--http-port", "99999"], ["http_port", "99999"]),
        (["--config", "no_such_file.toml"], ["no_such_file.toml"]),
        (["--record", "/no/such/folder/kept"], ["--record"]),
        (["--config", "priors.toml"], ["priors.cell_type.PVX = 2.0", "choose one of E, PV, SST, VIP"]),
    ],
)
def test_serve_rejects_in_one_line(
    run: Callable[..., tuple[int, str, str]],
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("priors.toml").write_text("[priors.cell_type]\nPVX = 2\n")
    code, out, err = run("serve", *FREE, "--bundle", str(tiny_bundle), *options)
    assert (code, out) == (2, "")
    line = err.splitlines()[-1]
    assert line.startswith("nuclr-stream: ")
    assert all(word in line for word in words), line


def test_an_altered_bundle_is_rejected_before_any_socket_is_bound(
    run: Callable[..., tuple[int, str, str]], tiny_bundle: Path, tmp_path: Path, run_daemon: RunDaemon
) -> None:
    altered = tmp_path / "altered"
    shutil.copytree(tiny_bundle, altered)
    with (altered / "encoder.onnx").open("ab") as graph:
        graph.write(b"!")
    taken = run_daemon().endpoints["data"]
    code, _, err = run("serve", "--bundle", str(altered), "--data-endpoint", taken)
    assert code == 2
    assert "encoder.onnx: SHA-256" in err


def test_a_taken_port_is_rejected_with_the_option(
    run: Callable[..., tuple[int, str, str]], tiny_bundle: Path, run_daemon: RunDaemon
) -> None:
    taken = run_daemon().endpoints["query"]
    code, _, err = run("serve", "--bundle", str(tiny_bundle), *FREE, "--query-endpoint", taken)
    assert code == 2
    assert "--query-endpoint" in err.splitlines()[-1]


# -- replay, watch, label ---------------------------------------------------------------------------------------------


def test_replay_reports_in_json(run: Callable[..., tuple[int, str, str]], run_daemon: RunDaemon, file: Path) -> None:
    daemon = run_daemon()
    code, out, _ = run("replay", str(file), "--speed", "max", "--stream", "probe1", *endpoints_of(daemon))
    found = last_json(out)
    assert code == 0
    assert found["latency_ms"]["p50"] > 0
    assert (found["predictions"], found["skipped_steps"], found["recording_s"]) == (11, 0, 20.0)
    with Query(daemon.endpoints["query"]) as query:
        assert list(query.status()["streams"]) == ["probe1"]


def test_replay_of_less_than_a_window_has_nothing_to_time(
    run: Callable[..., tuple[int, str, str]], run_daemon: RunDaemon, tmp_path: Path
) -> None:
    make_recording(duration_s=3.0).save(tmp_path / "short.npz")
    code, out, _ = run("replay", str(tmp_path / "short.npz"), "--speed", "30", *endpoints_of(run_daemon()))
    assert code == 0
    assert (last_json(out)["predictions"], last_json(out)["latency_ms"]) == (0, {})


@pytest.mark.parametrize("speed", ["fast", "0", "-1", "inf", "nan"])
def test_an_impossible_speed_is_rejected(run: Callable[..., tuple[int, str, str]], file: Path, speed: str) -> None:
    code, _, err = run("replay", str(file), f"--speed={speed}", *NOWHERE)
    assert (code, "--speed" in err) == (2, True)


def test_replay_without_a_daemon_says_so(run: Callable[..., tuple[int, str, str]], file: Path) -> None:
    code, _, err = run("replay", str(file), *NOWHERE)
    assert (code, "is nuclr-stream serve running?" in err) == (2, True)


def test_watch_shows_predictions_as_lines(
    run: Callable[..., tuple[int, str, str]], run_daemon: RunDaemon, recording: Recording
) -> None:
    daemon = run_daemon()
    list(replay(recording, **where(daemon)))
    code, out, _ = run("watch", "random_0", "--steps", "1", *endpoints_of(daemon, "results", "query"))
    assert code == 0
    assert out.startswith("random_0     20.0 s  20 units  cell_type of ")


def test_watch_waits_for_a_daemon(
    run: Callable[..., tuple[int, str, str]],
    run_daemon: RunDaemon,
    recording: Recording,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = run_daemon()
    list(replay(recording, **where(daemon)))
    hear, waits = Subscription.__next__, iter([True])

    def gone_first(self: Subscription) -> wire.Predictions:
        if next(waits, False):
            self._gone("silent")
        return hear(self)

    monkeypatch.setattr(Subscription, "__next__", gone_first)
    _, out, _ = run("watch", "random_0", "--steps", "1", *endpoints_of(daemon, "results", "query"))
    assert "is gone: silent; iterate on" in out.splitlines()[0]
    assert out.splitlines()[1].startswith("random_0     20.0 s")


def test_label_writes_what_the_daemon_would_have_said(
    run: Callable[..., tuple[int, str, str]], file: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    out_file = tmp_path / "labels.csv"
    options = ["--bundle", str(tiny_bundle), "--out", str(out_file), "--every", "5", "--hop-s", "2", "--threads", "1"]
    code, out, _ = run("label", str(file), *options)
    with out_file.open() as opened:
        rows = list(csv.DictReader(opened))
    assert code == 0
    assert last_json(out)["rows"] == len(rows) == 20 * 2 * 5
    assert {row["windows"] for row in rows if row["final"] == "1"} == {"6"}
    assert run("label", str(file), *options[:-4], "--force", "--hop-s", "0.005")[0] == 2
    assert "m1_s0" in out or "random_0: 20 units, 20 s" in out


def test_label_says_what_the_readers_left_out_and_takes_populations_by_a_column(
    run: Callable[..., tuple[int, str, str]], tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = write_phy(tmp_path / "day1", recorded(0, duration_s=12))
    samples = np.load(folder / "spike_times.npy").astype(np.int64)
    samples[0] = -10
    np.save(folder / "spike_times.npy", samples)
    options = ["--bundle", str(tiny_bundle), "--out", str(tmp_path / "labels.csv"), "--threads", "1", "--force"]
    code, out, err = run("label", str(folder), *options)
    assert (code, last_json(out)["recordings"]) == (0, 1)
    assert "day1/spike_times.npy: 1 of 720 spikes lie before sample 0" in err
    _, out, _ = run("label", str(folder), *options, "--population-by", "KSLabel")
    assert last_json(out)["recordings"] == 2


def test_label_takes_priors_and_a_half_life(
    run: Callable[..., tuple[int, str, str]], file: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    out_file = tmp_path / "labels.csv"
    options = ["--bundle", str(tiny_bundle), "--out", str(out_file), "--threads", "1"]
    stated = ["--prior", "cell_type.PV=2", "--prior", "cell_type.SST=2", "--half-life-s", "1"]
    assert run("label", str(file), *options, *stated)[0] == 0
    with out_file.open() as opened:
        rows = [row for row in csv.DictReader(opened) if row["task"] == "cell_type"]
    assert {(row["p_E"], row["p_VIP"]) for row in rows} == {("0.0", "0.0")}
    assert {row["windows"] for row in rows} == {"2"}, "of eleven windows, each a half-life after the last, two are left"
    assert run("label", str(file), *options)[0] == 2, "the file is there"
    code, _, err = run("label", str(file), *options, "--force", "--prior", "cell_type.PVX=2")
    assert (code, "priors.cell_type.PVX = 2.0: choose one of E, PV, SST, VIP" in err) == (2, True)


# -- demo, bench, doctor, check ---------------------------------------------------------------------------------------


def test_demo_ends_with_the_promised_document(
    run: Callable[..., tuple[int, str, str]], tiny_bundle: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PLAY_S", 0.5)
    code, out, _ = run("demo", "--bundle", str(tiny_bundle), "--recording", str(file))
    found = last_json(out)
    assert code == 0
    assert list(found) == [
        "predictions",
        "recording_s",
        "speed",
        "cell_type_macro_f1",
        "brain_region_macro_f1",
        "latency_ms",
        "losses",
    ]
    assert list(found["latency_ms"]) == ["p50", "p95", "p99"]
    assert (found["predictions"], found["recording_s"], found["losses"]) == (11, 20.0, {})
    assert "right: cell_type" in out
    assert "cell type: macro-F1 0." in out.splitlines()[-5]
    assert out.splitlines()[-2] == "lost on the way: nothing"


def test_demo_sums_up_in_time_on_a_slow_machine(
    run: Callable[..., tuple[int, str, str]], tiny_bundle: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "LIMIT_S", 0.0)
    monkeypatch.setattr(demo, "PLAY_S", 0.5)
    _, out, _ = run("demo", "--bundle", str(tiny_bundle), "--recording", str(file))
    assert (last_json(out)["predictions"], last_json(out)["recording_s"]) == (1, 10.0)


def test_demo_with_a_daemon_that_cannot_start_says_why(tiny_bundle: Path) -> None:
    with (
        pytest.raises(Exception, match=r"(?s)did not start: .*nothing-like-it"),
        demo.daemon_process("nothing-like-it"),
    ):
        pass


def test_bench_reports_in_json(
    run: Callable[..., tuple[int, str, str]], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.input_throughput, "__kwdefaults__", {"duration_s": 12.0})
    options = ["--bundle", str(tiny_bundle), "--threads", "1", "--json"]
    code, out, _ = run("bench", "--units", "12", "--steps", "2", *options)
    found = last_json(out)
    assert (code, len(out.splitlines()), found["units"], found["steps"]) == (0, 1, 12, 2)
    assert found["spikes_per_s"] > 0
    for name in ("latency_ms", "encoder_ms", "ratio", "overhead_ms"):
        assert list(found[name]) == ["p50", "p95", "p99"]
    assert found["latency_ms"]["p50"] > 0 < found["encoder_ms"]["p50"]
    assert run("bench", "--units", "257", *options)[0] == 2


@pytest.fixture
def tiny_shipped(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny bundle is all that is shipped."""
    monkeypatch.setattr(doctor, "shipped_bundles", lambda: [str(tiny_bundle)])


@pytest.mark.usefixtures("tiny_shipped")
def test_doctor_without_a_daemon_says_what_to_start(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = run("doctor", *NOWHERE[:2], "--query-endpoint", "ipc:///nowhere/at/all")
    assert code == 1
    assert "data tcp://127.0.0.1:9: nothing listens" in out
    assert "start nuclr-stream serve" in out
    assert "query ipc:///nowhere/at/all: no daemon" in out
    assert last_json(out)["bad"] == 3


@pytest.mark.usefixtures("tiny_shipped")
def test_doctor_tells_a_daemon_that_hangs_from_something_else(
    run: Callable[..., tuple[int, str, str]], tiny_model: Model, tmp_path: Path
) -> None:
    folder = tmp_path if len(str(tmp_path)) < 80 else Path("/tmp")
    settings = {"data_endpoint": f"ipc://{folder}/data", "results_endpoint": "tcp://127.0.0.1:0"}
    hangs = Daemon(Settings(**settings, query_endpoint="tcp://127.0.0.1:0", http_port=0), tiny_model)  # it never runs
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute_port = mute.getsockname()[1]
        places = [f"--data-endpoint=ipc://{folder}/data", f"--results-endpoint=tcp://127.0.0.1:{mute_port}"]
        code, out, _ = run("doctor", *places, f"--query-endpoint={hangs.endpoints['query']}")
    hangs.close()
    assert code == 1
    assert f"query {hangs.endpoints['query']}: a daemon listens but does not answer" in out
    assert f"data ipc://{folder}/data: a daemon runs but does not answer" in out
    assert "something listens there that is no daemon" in out
    assert "the daemon that was there has ended" in run("doctor", *places, "--query-endpoint=tcp://127.0.0.1:9")[1]


@pytest.mark.usefixtures("tiny_shipped")
def test_doctor_says_why_nothing_arrives(
    run: Callable[..., tuple[int, str, str]], run_daemon: RunDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LISTEN_S", 0.1)
    daemon = run_daemon()
    places = endpoints_of(daemon)
    code, out, _ = run("doctor", *places)
    assert code == doctor.SOURCE
    assert "no stream: no source has sent a valid message" in out
    with (
        Publisher(daemon.endpoints["data"], stream="rig", sample_rate=30_000, start=0) as rig,
        Subscription("rig", **where(daemon, "results", "query")) as subscription,
    ):
        rig.spikes([5], [0], stop=30_000)
        until(subscription, lambda message: isinstance(message, wire.StreamState))
        assert "the source has sent no unit table" in run("doctor", *places)[1]
        rig.units(["a", "b"])
        rig.spikes([30_005], [0], stop=150_000)
        until(subscription, lambda message: isinstance(message, wire.StreamState) and message.watermark == 150_000)
        code, out, _ = run("doctor", *places)
        assert code == doctor.SOURCE, "it sends nothing any more"
        assert "warming_up, 2 units, step -1: 50 % of the first window; the first window of 10 s lacks 5.0 s" in out
        assert "spikes_unknown_unit 1" in out
        rig.spikes([150_005], [0], stop=300_000)
        until(subscription, lambda message: isinstance(message, wire.Predictions))
        assert "stream rig: degraded" in run("doctor", *places)[1]


@pytest.mark.usefixtures("tiny_shipped")
def test_doctor_when_all_is_well_and_when_ports_are_swapped(
    run: Callable[..., tuple[int, str, str]],
    run_daemon: RunDaemon,
    recording: Recording,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "LISTEN_S", 0.1)
    daemon = run_daemon()
    list(replay(recording, **where(daemon)))
    code, out, _ = run("doctor", *endpoints_of(daemon))
    assert code == 0
    assert "predictions within 0.1 s: 1 of random_0" in out
    assert "stream random_0: ended, 20 units, step 10" in out
    swapped = [*endpoints_of(daemon, "query"), "--data-endpoint", daemon.endpoints["results"]]
    assert f"the daemon's data endpoint is {daemon.endpoints['data']}, not" in run("doctor", *swapped)[1]


def test_doctor_when_the_port_belongs_to_somebody_else_or_the_daemon_is_mute(
    run: Callable[..., tuple[int, str, str]], run_daemon: RunDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = run_daemon()
    monkeypatch.setattr(client, "GONE_AFTER_S", 0.05)
    port = daemon.endpoints["http"].rsplit(":", 1)[1]
    code, out, _ = run("doctor", *NOWHERE[:2], "--query-endpoint", f"tcp://127.0.0.1:{port}")
    assert code == 1
    assert "something listens there that is no daemon" in out
    with Query(daemon.endpoints["query"]) as query:
        status = query.status()
    monkeypatch.setattr(
        Query, "status", lambda self: status | {"endpoints": dict.fromkeys(status["endpoints"], "tcp://127.0.0.1:9")}
    )
    assert "answers queries but publishes nothing" in run("doctor", *NOWHERE)[1]


def test_check_replays_the_sample(run: Callable[..., tuple[int, str, str]], tiny_bundle: Path) -> None:
    code, out, _ = run("check", str(tiny_bundle))
    assert code == 0
    assert max(last_json(out)["max_abs"].values()) <= 1e-4
    code, _, err = run("check", "no-such-bundle")
    assert (code, err.count("\n")) == (2, 1)


def test_module_and_command_are_the_same() -> None:
    found = subprocess.run([sys.executable, "-m", "nuclr_stream", "--help"], capture_output=True, text=True, check=True)
    commands = (
        "serve",
        "replay",
        "label",
        "records",
        "rules",
        "watch",
        "top",
        "dashboard",
        "bands",
        "demo",
        "bench",
        "doctor",
        "check",
    )
    assert all(name in found.stdout for name in commands)
