"""`nuclr-stream doctor`: why nothing arrives, which port answers, what was seen, and what to do about it."""

from __future__ import annotations

import platform
import socket
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import typer

from nuclr_stream.bundle.manifest import find_bundle, load_bundle, shipped_bundles
from nuclr_stream.client.subscriber import Query, Subscription
from nuclr_stream.commands.options import Data, Results
from nuclr_stream.commands.options import Query as QueryOption
from nuclr_stream.commands.output import print_json
from nuclr_stream.config import DATA_ENDPOINT, QUERY_ENDPOINT, RESULTS_ENDPOINT
from nuclr_stream.errors import DaemonGoneError, NuclrStreamError
from nuclr_stream.inference.model import Model
from nuclr_stream.sockets import is_locked
from nuclr_stream.wire import Predictions

PACKAGES = ("nuclr-stream", "numpy", "pyzmq", "msgpack", "onnxruntime-gpu", "onnxruntime", "pydantic")
LISTEN_S = 1.5
_FINE = {"received", "accepted", "spikes_received", "spikes_accepted", "frames_received", "tables_repeated"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `good` or not, or just worth knowing ("note")."""

    verdict: Literal["good", "bad", "note"]
    text: str


def doctor(
    data_endpoint: Data = DATA_ENDPOINT,
    results_endpoint: Results = RESULTS_ENDPOINT,
    query_endpoint: QueryOption = QUERY_ENDPOINT,
) -> None:
    """Say which port answers, what was seen and why nothing arrives. Exit 1 when something is wrong."""
    findings = diagnose(data=data_endpoint, results=results_endpoint, query=query_endpoint)
    for finding in findings:
        print(f"{finding.verdict:<5} {finding.text}")
    bad = sum(finding.verdict == "bad" for finding in findings)
    print_json({"findings": len(findings), "bad": bad})
    raise typer.Exit(1 if bad else 0)


def diagnose(*, data: str, results: str, query: str) -> list[Finding]:
    """Look at the installation, the ports and the streams of the daemon that should be there."""
    findings = [_versions(), _provider()]
    try:
        with Query(query) as ask:
            status = ask.status()
    except DaemonGoneError:
        return [*findings, *(_port(name, at) for name, at in (("query", query), ("data", data), ("results", results)))]
    findings.append(Finding("good", f"query {query} answers: bundle {status['bundle']} on {status['provider']}"))
    if status["provider_note"]:
        findings.append(Finding("note", f"not on a GPU: {status['provider_note']}"))
    for name, asked in (("data", data), ("results", results)):
        if status["endpoints"][name] != asked:
            findings.append(Finding("bad", f"the daemon's {name} endpoint is {status['endpoints'][name]}, not {asked}"))
    return findings + _last_message(status["endpoints"]["results"], query) + _streams(status)


def _versions() -> Finding:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    both = sum(name.startswith("onnxruntime") for name in found) > 1
    text = f"Python {platform.python_version()}, {', '.join(found)}"
    return (
        Finding("bad", f"{text}: uninstall one onnxruntime, both write to one folder")
        if both
        else Finding("good", text)
    )


def _provider() -> Finding:
    """Say where a shipped bundle really runs: what ONNX Runtime lists is not what it can use."""
    names = shipped_bundles()
    if not names:
        return Finding("note", "no bundle is shipped with this installation; serve needs --bundle DIR")
    try:
        model = Model(load_bundle(find_bundle(names[0])))
    except NuclrStreamError as error:
        return Finding("bad", f"bundle {names[0]}: {error}")
    return Finding("good", f"bundle {names[0]} loads and runs on {model.provider} {model.provider_note}".rstrip())


def _port(name: str, endpoint: str) -> Finding:
    parts = urlsplit(endpoint)
    if parts.scheme != "tcp" or parts.port is None:
        return _path(name, endpoint)
    try:
        socket.create_connection((parts.hostname or "", parts.port), timeout=1).close()
    except OSError as error:
        return Finding("bad", f"{name} {endpoint}: nothing listens ({error}); start nuclr-stream serve")
    if not _greets(parts.hostname or "", parts.port):
        return Finding(
            "bad",
            f"{name} {endpoint}: something listens there that is no daemon; stop it, or choose another port",
        )
    return Finding(
        "bad",
        f"{name} {endpoint}: a daemon listens but does not answer: it hangs, or it asks for a key (NUCLR_STREAM_KEY); "
        "look at its log and at /livez, and restart it if its main loop is silent",
    )


def _path(name: str, endpoint: str) -> Finding:
    """Look whether a daemon holds the lock beside an ipc path."""
    path = endpoint.removeprefix("ipc://")
    try:
        with Path(path + ".lock").open("rb") as lock:
            held = is_locked(lock)
    except OSError as error:
        return Finding("bad", f"{name} {endpoint}: no daemon ({error.strerror}); start nuclr-stream serve")
    if held:
        return Finding("bad", f"{name} {endpoint}: a daemon runs but does not answer; look at its log, and restart it")
    return Finding("bad", f"{name} {endpoint}: the daemon that was there has ended; start nuclr-stream serve")


def _greets(host: str, port: int) -> bool:
    """Whether whatever listens greets as ZeroMQ does: then it is a daemon, however busy."""
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            return connection.recv(1) == b"\xff"
    except OSError:
        return False


def _last_message(results: str, query: str) -> list[Finding]:
    """Subscribe for a moment: does the daemon publish, and are there predictions?"""
    predictions: dict[str, int] = {}
    deadline = time.monotonic() + LISTEN_S
    try:
        with Subscription("", results=results, query=query) as subscription:
            while time.monotonic() < deadline:
                message = subscription.receive(max(deadline - time.monotonic(), 0.0))
                if isinstance(message, Predictions):
                    predictions[message.stream] = predictions.get(message.stream, 0) + 1
    except DaemonGoneError as error:
        return [Finding("bad", f"the daemon answers queries but publishes nothing: {error}")]
    counted = ", ".join(f"{count} of {stream}" for stream, count in predictions.items()) or "none"
    return [Finding("good", f"results {results} publishes; predictions within {LISTEN_S:g} s: {counted}")]


def _streams(status: dict[str, Any]) -> list[Finding]:
    findings = [
        Finding("bad", f"{count} messages dropped: {reason}") for reason, count in status["counters"].items() if count
    ]
    if not status["streams"]:
        data = status["endpoints"]["data"]
        return [*findings, Finding("bad", f"no stream: no source has sent a valid message to {data} yet")]
    for name, stream in status["streams"].items():
        findings.append(_stream(name, stream))
        odd = {reason: n for reason, n in stream["counters"].items() if n and reason not in _FINE}
        if odd:
            findings.append(Finding("note", f"stream {name}: " + ", ".join(f"{r} {n}" for r, n in odd.items())))
    return findings


def _stream(name: str, stream: dict[str, Any]) -> Finding:
    state, units = stream["state"], stream["units"]
    text = f"stream {name}: {state}, {units} units, step {stream['step']}"
    if not units:
        return Finding("bad", f"{text}: the source has sent no unit table, so no spike can be counted")
    if state == "warming_up":
        return Finding("note", f"{text}: {100 * stream['progress']:.0f} % of the first window")
    if state == "degraded":
        return Finding("bad", f"{text}: {', '.join(stream['reasons'])}")
    return Finding("good", text)
