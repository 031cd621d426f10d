"""`nuclr-stream doctor`: why nothing arrives, which port answers, what was seen, and what to do about it.

The exit code is that of what has to be put right first: 1 the installation or the daemon, 3 the source, 4 the data.
"""

from __future__ import annotations

import platform
import socket
import time
from collections import Counter
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
from nuclr_stream.wire import Abstained, Predictions, UnitFlag

PACKAGES = ("nuclr-stream", "numpy", "pyzmq", "msgpack", "onnxruntime-gpu", "onnxruntime", "pydantic")
LISTEN_S = 3.0
DAEMON, SOURCE, DATA = 1, 3, 4
"""Exit codes by what has to be put right first; 2 is a wrong option, as everywhere."""
CLOCK_OFF = 0.1
"""A device clock that runs this much off the host's is worth a word; blocks make a few seconds no better a measure."""
VENDOR_PORTS = {
    37497: "the Open Ephys GUI (HTTP server); nuclr-stream source open-ephys reads its ZMQ Interface",
    49152: "SpikeGadgets Trodes; nuclr-stream source trodes reads it",
    4142: "SpikeGLX (command server), which sends raw samples only",
}
"""Ports of acquisition systems on this machine, and what to do where one listens."""
IN_WORDS = {
    "gap": "too much of the last window is missing: see what the source lost",
    "mask": "the last window touches a stretch that the source masked",
    "silence": "no unit fired for a whole second of the last window",
    "population_below_minimum": "fewer active units than the encoder was trained on",
    "normaliser": "too few frames since the epoch began to normalise traces by",
    "source_silent": "nothing has come from the source for 2 s",
    "nonfinite": "the readout gave no number",
    "rejected_stale_epoch": "the source's epoch is older than the one before: did its wall clock step back?",
    "duplicate": "the source repeats message numbers: was an epoch used again?",
}
_FINE = {"received", "accepted", "spikes_received", "spikes_accepted", "frames_received", "tables_repeated"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `good` or not, or just worth knowing ("note")."""

    verdict: Literal["good", "bad", "note"]
    text: str
    code: int = DAEMON


def doctor(
    data_endpoint: Data = DATA_ENDPOINT,
    results_endpoint: Results = RESULTS_ENDPOINT,
    query_endpoint: QueryOption = QUERY_ENDPOINT,
) -> None:
    """Say which port answers, what was seen and why nothing is predicted. Exit 1: daemon, 3: source, 4: data."""
    findings = diagnose(data=data_endpoint, results=results_endpoint, query=query_endpoint)
    for finding in findings:
        print(f"{finding.verdict:<5} {finding.text}")
    bad = [finding.code for finding in findings if finding.verdict == "bad"]
    print_json({"findings": len(findings), "bad": len(bad)})
    raise typer.Exit(min(bad, default=0))


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
    begun = time.monotonic()
    findings += _last_message(status["endpoints"]["results"], query)
    try:
        with Query(query) as ask:
            later, predictions = ask.status(), ask.snapshot().messages
    except DaemonGoneError as error:
        return [*findings, Finding("bad", f"the daemon answered once and then no more: {error}")]
    findings += _streams(later)
    seconds, latest = time.monotonic() - begun, [one for one in predictions if isinstance(one, Predictions)]
    rates = {one.stream: float(one.sample_rate) for one in latest}
    for name, stream in later["streams"].items():
        before = status["streams"].get(name)
        if before is not None and before["epoch"] == stream["epoch"]:
            findings += _arriving(name, before, stream, seconds=seconds, rate=rates.get(name))
    findings += [_answers(one) for one in latest]
    return findings if later["streams"] else findings + _vendors()


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
        Finding("bad", f"{count} messages dropped: {reason}", DATA)
        for reason, count in status["counters"].items()
        if count
    ]
    if not status["streams"]:
        data = status["endpoints"]["data"]
        return [*findings, Finding("bad", f"no stream: no source has sent a valid message to {data} yet", SOURCE)]
    for name, stream in status["streams"].items():
        findings.append(_stream(name, stream, status))
        odd = {reason: n for reason, n in stream["counters"].items() if n and reason not in _FINE}
        if odd:
            findings.append(Finding("note", f"stream {name}: " + ", ".join(f"{r} {n}" for r, n in odd.items())))
    return findings


def _stream(name: str, stream: dict[str, Any], status: dict[str, Any]) -> Finding:
    """Say how a stream is doing, and why nothing is predicted where nothing is."""
    state, units = stream["state"], stream["units"]
    text = f"stream {name}: {state}, {units} units, step {stream['step']}"
    if not units:
        return Finding("bad", f"{text}: the source has sent no unit table, so no spike can be counted", SOURCE)
    if state == "warming_up":
        window_s, progress = status["window_s"], stream["progress"]
        left = f"the first window of {window_s:g} s lacks {(1 - progress) * window_s:.1f} s of data"
        return Finding("note", f"{text}: {100 * progress:.0f} % of the first window; {left}")
    if state == "degraded":
        reasons = "; ".join(
            f"{reason} ({IN_WORDS[reason]})" if reason in IN_WORDS else reason for reason in stream["reasons"]
        )
        silent = "source_silent" in stream["reasons"]
        return Finding("bad", f"{text}: {reasons}", SOURCE if silent else DATA)
    return Finding("good", text)


def _arriving(
    name: str, before: dict[str, Any], after: dict[str, Any], *, seconds: float, rate: float | None
) -> list[Finding]:
    """Say what came of a stream of `rate` samples a second (None unknown) between two looks, `seconds` apart."""
    grown = {key: n - before["counters"].get(key, 0) for key, n in after["counters"].items()}
    messages, spikes = grown.get("received", 0), grown.get("spikes_received", 0)
    if after["state"] == "ended":
        return []
    if not messages:
        text = f"stream {name}: nothing came for {seconds:.1f} s; is the acquisition running, and its source?"
        return [Finding("bad", text, SOURCE)]
    text = f"stream {name}: {messages / seconds:.0f} messages and {spikes / seconds:.0f} spikes a second"
    if spikes and after["units"]:
        text += f", {spikes / seconds / after['units']:.1f} a unit"
    findings = [Finding("good", text)]
    advance = after["watermark"] - before["watermark"]
    if not advance:
        findings.append(Finding("bad", f"stream {name}: messages come, but its watermark stands still", SOURCE))
    elif rate is not None and abs(advance / rate / seconds - 1) > CLOCK_OFF:
        pace = advance / rate / seconds
        text = f"stream {name}: its device clock runs at {pace:.2f} of the host's: a file that is played, or a lag"
        findings.append(Finding("note", text))
    lost = {
        key: n
        for key in ("samples_missing", "messages_gap", "spikes_late", "spikes_unknown_unit")
        if (n := grown.get(key, 0))
    }
    if lost:
        text = ", ".join(f"{key} {n}" for key, n in lost.items())
        findings.append(Finding("bad", f"stream {name}: lost within {seconds:.1f} s: {text}", DATA))
    return findings


def _answers(predictions: Predictions) -> Finding:
    """Say how many units have an answer, and why the others have none; and how far the device's clock is behind."""
    total = len(predictions.unit_ids)
    parts = []
    for task in predictions.tasks:
        why = Counter(Abstained(reason).word for reason in task.why.tolist() if reason)
        reasons = ", ".join(f"{reason} {count}" for reason, count in why.most_common())
        parts.append(
            f"{task.name} {total - sum(why.values())} of {total} called" + (f" ({reasons})" if reasons else "")
        )
    unsorted = int(((predictions.flags & UnitFlag.UNSORTED) != 0).sum())
    if unsorted:
        parts.append(f"{unsorted} look unsorted: spikes of more than one neuron")
    return Finding("note", f"stream {predictions.stream}: " + "; ".join(parts))


def _vendors() -> list[Finding]:
    """Say which acquisition systems listen on this machine, where no stream has come yet."""
    found = []
    for port, what in VENDOR_PORTS.items():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
        except OSError:
            continue
        found.append(Finding("note", f"port {port} answers: {what}"))
    return found
