"""`source KIND` and `serve --source`: real processes, and a vendor's breakdown that the daemon does not notice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nuclr_stream.client.subscriber import Query
from nuclr_stream.commands import cli, source_child, source_running
from nuclr_stream.commands.source import KINDS, arguments_of, running_sources
from nuclr_stream.commands.source_child import SourceChild
from nuclr_stream.errors import ConfigError
from tests.nuclr_stream.commands.test_cli import last_json, serving
from tests.nuclr_stream.conftest import make_recording
from tests.nuclr_stream.sources.daemon_inbox import daemon_inbox
from tests.nuclr_stream.sources.open_ephys_gui import Gui, publishing
from tests.nuclr_stream.sources.test_open_ephys_control import GuiServer, server

__all__ = ["server"]


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("open-ephys://h:5556?mask-line=3&heartbeat", ["open-ephys", "h:5556", "--mask-line", "3", "--heartbeat"]),
        ("lsl://my%20rig", ["lsl", "my rig"]),
        ("trodes://", ["trodes"]),
        ("file:///data/a%20b.nwb?speed=max&loop", ["file", "/data/a b.nwb", "--speed", "max", "--loop"]),
    ],
)  # fmt: skip
def test_a_url_means_the_arguments_of_the_command(url: str, arguments: list[str]) -> None:
    assert arguments_of(url) == arguments


def test_an_unknown_kind_names_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no kind 'nlx'.*file, lsl, open-ephys"):
        arguments_of("nlx://host")


def test_the_command_starts_the_gui_ends_in_order_and_reports_what_it_did(server: GuiServer) -> None:
    gui, server.mode = Gui(), "IDLE"
    with daemon_inbox() as inbox, publishing() as (address, publish):
        command = [sys.executable, "-m", "nuclr_stream", "source", "open-ephys", address]
        command += ["--http-port", str(server.port), "--start"]
        with subprocess.Popen(
            [*command, "--to", inbox.endpoint], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            publish(gui.block([(10, 1, "A"), (20, 0, "B")]) + gui.block())
            inbox.take(2)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        inbox.take(ends=1)
    assert process.returncode == 0
    assert server.mode == "ACQUIRE"
    report = last_json(out)
    assert report["counters"] == {"messages": 4}
    assert report["streams"]["Probe-A"]["counters"]["spikes_sent"] == 1
    assert report["streams"]["Probe-A"]["unsorted_electrodes"] == {"B": 1}
    assert "stream Probe-A: the source ended" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["open-ephys", "127.0.0.1:x"], "HOST:PORT"),
        (["open-ephys", "--sample-rate", "fast"], "--sample-rate fast"),
        (["open-ephys", "--start", "--http-port", "0"], "--start needs"),
        (["file", "no_such_file.nwb"], "no_such_file.nwb"),
    ],
)
def test_what_cannot_be_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["nuclr-stream", "source", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_serve_reads_a_source_beside_the_demo_and_outlives_one_that_breaks(tiny_bundle: Path, tmp_path: Path) -> None:
    make_recording(duration_s=12.0).save(tmp_path / "mine.npz")
    options = ["--bundle", str(tiny_bundle), "--threads", "1", "--demo-source"]
    sources = [f"--source=file://{tmp_path / 'mine.npz'}?speed=100&stream=mine", f"--source=file://{tmp_path / 'none'}"]
    with serving(*options, *sources) as (process, ready):
        found: set[str] = set()
        with Query(ready["endpoints"]["query"], timeout_s=30.0) as query:
            while found != {"mine", "demo"}:
                found = {name for name, stream in query.status()["streams"].items() if stream["units"]}
                assert process.poll() is None
        assert process.stderr is not None
        err = ""
        while "ended with 2" not in err:  # the broken one may end after the others have begun
            line = process.stderr.readline()
            assert line, err
            err += line
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        err += process.stderr.read()
    assert "Traceback" not in err


def test_a_source_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(source_child, "FIRST_WAIT_S", 0.0)
    make_recording(duration_s=0.5).save(tmp_path / "short.npz")
    with daemon_inbox() as inbox:
        child = SourceChild(["file", str(tmp_path / "short.npz"), "--speed", "0.5", "--to", inbox.endpoint])
        inbox.take(1)
        assert child._process is not None
        child._process.kill()
        before = len(inbox.epochs)
        while len(inbox.epochs) == before:
            inbox.take(len(inbox.messages) + 1)
        child.stop()
    assert child.starts == 2


def test_kinds_are_commands_of_their_own_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["nuclr-stream", "source", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr().out
    assert all(kind in shown for kind in KINDS)


def test_a_source_ends_with_a_daemon_that_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        turns = 0

        def turn(self, timeout_s: float) -> bool:
            self.turns += 1
            return True

        def notes(self) -> list[str]:
            return []

        def report(self) -> dict[str, int]:
            return {"turns": self.turns}

        def close(self) -> None:
            pass

    monkeypatch.setenv(source_running.PARENT, "0")  # not this process's parent: that one is gone
    monkeypatch.setattr(source_running, "end_on_signals", lambda stop: None)
    endless = Endless()
    source_running.run(endless)
    assert endless.turns == 0


def test_no_child_is_left_behind(tmp_path: Path) -> None:
    make_recording(duration_s=0.5).save(tmp_path / "short.npz")
    with daemon_inbox() as inbox:
        endpoints = {"data": inbox.endpoint, "results": "tcp://127.0.0.1:9", "query": "tcp://127.0.0.1:9"}
        with running_sources([f"file://{tmp_path / 'short.npz'}?loop&speed=0.5"], endpoints) as (child,):
            inbox.take(1)
        assert child._process is not None
        assert child._process.poll() is not None
    assert json.dumps(child.arguments[-1]) == '"tcp://127.0.0.1:9"'
