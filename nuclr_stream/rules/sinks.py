"""Where events are sent beside the daemon's own topic: a webhook, and the Open Ephys GUI as a note or a TTL pulse.

A send is tried once: what may have arrived is never sent again. Each sink has a thread and a bounded queue of its own,
so that one which hangs delays neither the loop nor another.
"""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import zmq

from nuclr_stream.errors import EndpointError
from nuclr_stream.rules.engine import Firing
from nuclr_stream.rules.settings import OpenEphysMessage, OpenEphysTtl, Sink, Webhook
from nuclr_stream.sockets import connect, disconnect, give, take

TIMEOUT_S = 2.0
"""How long a sink may take; longer is a failure."""
WAITING = 64
"""Events that may wait for one sink; more fail at once."""

Report = Callable[[Firing, str, int, str], None]
"""Called with event, sink, monotonic time and what went wrong (empty when nothing did)."""


def document_of(firing: Firing, now_ns: int) -> dict[str, Any]:
    """Return an event as plain values; `latency_s` is from the close of its last bin until now."""
    return {
        "event": firing.event_id,
        "rule": firing.rule,
        "stream": firing.stream,
        "epoch": firing.epoch,
        "subject": firing.subject,
        "value": firing.value,
        "step": firing.step,
        "end_sample": firing.end_sample,
        "time_s": firing.time_s,
        "latency_s": (now_ns - firing.closed_ns) / 1e9,
    }


def send(sink: Sink, firing: Firing) -> None:
    """Send an event once. Raises OSError or EndpointError saying why it was not taken."""
    if isinstance(sink, Webhook):
        _http("POST", sink.url, "", document_of(firing, time.monotonic_ns()))
    elif isinstance(sink, OpenEphysMessage):
        text = f"nuclr-stream rule={firing.rule} stream={firing.stream} subject={firing.subject or '-'}"
        _http("PUT", sink.url, "/api/message", {"text": f"{text} value={firing.value:.3f} sample={firing.end_sample}"})
    else:
        _pulse(sink)


class SinkThread:
    """Sends the events of one sink in order, and reports what became of each."""

    def __init__(self, sink: Sink, report: Report) -> None:
        self.name = sink.name
        self._sink, self._report = sink, report
        self._queue: queue.Queue[Firing | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)
        self._thread.start()

    def offer(self, firing: Firing) -> None:
        """Have an event sent."""
        try:
            self._queue.put_nowait(firing)
        except queue.Full:
            self._report(firing, self.name, time.monotonic_ns(), f"{WAITING} events wait already")

    def close(self, wait_s: float) -> None:
        """Send what waits, for at most `wait_s`; what is left the journal calls unsure at the next start."""
        deadline = time.monotonic() + wait_s
        try:
            self._queue.put(None, timeout=wait_s)
        except queue.Full:
            return
        self._thread.join(max(deadline - time.monotonic(), 0.0))

    def _run(self) -> None:
        while (firing := self._queue.get()) is not None:
            problem = ""
            try:
                send(self._sink, firing)
            except (OSError, ValueError, http.client.HTTPException, zmq.ZMQError, EndpointError) as error:
                problem = str(error) or type(error).__name__
            self._report(firing, self.name, time.monotonic_ns(), problem)


def _http(method: str, url: str, path: str, document: dict[str, Any]) -> None:
    """Send JSON. Raises OSError for any answer but a 2xx."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(str(parts.hostname), parts.port, timeout=TIMEOUT_S)
    target = parts.path.rstrip("/") + path or "/"
    try:
        body = json.dumps(document).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(document.get("event", ""))}
        connection.request(method, f"{target}?{parts.query}" if parts.query else target, body, headers)
        answer = connection.getresponse()
        answer.read(65_536)
        if not 200 <= answer.status < 300:
            raise OSError(f"{url} answered {answer.status} {answer.reason}")
    finally:
        connection.close()


def _pulse(sink: OpenEphysTtl) -> None:
    """Set a line of Network Events high, and low again after the pulse."""
    socket = connect(zmq.REQ, sink.endpoint, f"sinks.{sink.name}.endpoint", max_bytes=4096, options={zmq.IMMEDIATE: 1})
    try:
        _ask(socket, sink, 1)
        time.sleep(sink.pulse_ms / 1000)
        _ask(socket, sink, 0)
    finally:
        disconnect(socket)


def _ask(socket: Any, sink: OpenEphysTtl, state: int) -> None:
    text = f"TTL Line={sink.line} State={state}".encode()
    if not give(socket, [text], wait_s=TIMEOUT_S):
        raise OSError(f"nothing answers at {sink.endpoint}; is Network Events in the signal chain?")
    if not socket.poll(int(TIMEOUT_S * 1000)):
        raise OSError(f"{sink.endpoint} did not answer to {text.decode()!r}")
    take(socket)
