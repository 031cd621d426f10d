"""The commands of the live page: one line with the URL, errors in one line, and a page that ends with its daemon."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

FREE = ["--data-endpoint", "tcp://127.0.0.1:0", "--results-endpoint", "tcp://127.0.0.1:0"]
FREE += ["--query-endpoint", "tcp://127.0.0.1:0", "--http-port", "0"]
COMMAND = [sys.executable, "-m", "nuclr_stream"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_the_page_says_where_it_is_and_ends_on_a_signal() -> None:
    command = [*COMMAND, "dashboard", "--port", "0", "--from", "tcp://127.0.0.1:9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert line["from"] == "tcp://127.0.0.1:9"
        with urllib.request.urlopen(line["url"], timeout=10) as answer:
            assert b"nuclr-stream" in answer.read()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--plan", "probeA"], "--plan probeA: give it as STREAM=FILE"),
        (["--probe", "probeA=/no/such.json"], "/no/such.json: not a probeinterface file"),
        (["--from", "nonsense"], "'nonsense' is no endpoint"),
        (["--host", "999.0.0.1"], "cannot be bound"),
    ],
)
def test_what_cannot_be_is_one_line(options: list[str], says: str) -> None:
    done = subprocess.run([*COMMAND, "dashboard", "--port", "0", *options], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


def test_serve_brings_its_page_and_takes_it_along(tiny_bundle: Path) -> None:
    port = free_port()
    command = [*COMMAND, "serve", "--bundle", str(tiny_bundle), *FREE, "--dashboard", "--dashboard-port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["dashboard"] == f"http://127.0.0.1:{port}/"
        for line in process.stderr:  # the page's own line comes among the log's
            if f"http://127.0.0.1:{port}/" in line:
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
