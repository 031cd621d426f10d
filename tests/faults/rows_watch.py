"""Rows about what the daemon says of itself: overdue steps, a loop that hangs, disks that fail, the end."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from nuclr_stream.config import Settings
from nuclr_stream.daemon import recording, saving, streams
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.daemon.records import RecordWriter, read_records
from nuclr_stream.daemon.streams import Stream
from nuclr_stream.errors import SnapshotError
from nuclr_stream.inference.model import Model
from nuclr_stream.snapshots.pack import unpack
from nuclr_stream.wire import Predictions
from tests.faults.rig import ROOT, Listener, Probe, Process, model, percentile
from tests.faults.row import Outcome, Row, Size
from tests.faults.rows_recovery import UNITS, WAIT_S

FREE = {
    "data_endpoint": "tcp://127.0.0.1:0",
    "results_endpoint": "tcp://127.0.0.1:0",
    "query_endpoint": "tcp://127.0.0.1:0",
    "http_port": 0,
}
SOON_NS = 300_000_000
"""What counts as overdue or failing here, so that a trial takes no minutes."""
SPEED = 4.0
EXIT_S = 2.0
LIVE_S = 1.5


@contextmanager
def in_process(**settings: Any) -> Iterator[Any]:
    """A daemon in a thread of this process, into which faults can be planted."""
    made = Daemon(Settings(**(FREE | settings)), model())
    thread = threading.Thread(target=made.run)
    thread.start()
    where = made.endpoints
    try:
        yield SimpleNamespace(daemon=made, endpoints=where, where=lambda *names: {name: where[name] for name in names})
    finally:
        made.stop()
        thread.join(10)


def _probe(server: Any, seed: int) -> Probe:
    return Probe(server, units=UNITS, seed=seed, speed=SPEED)


def http(server: Any, path: str) -> int:
    """The status code of an HTTP request."""
    try:
        with urllib.request.urlopen(server.endpoints["http"] + path, timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def becomes(found: Callable[[], bool], timeout_s: float) -> float:
    """How long it took until `found` was true; infinity after `timeout_s`."""
    start = time.monotonic()
    while not found():
        if time.monotonic() - start > timeout_s:
            return float("inf")
        threading.Event().wait(0.02)
    return time.monotonic() - start


# -- D1: a step that does not end --------------------------------------------------------------------------------------


def overdue(seed: int, size: Size, folder: Path) -> Outcome:
    """Let the inference hang: the stream becomes degraded and the daemon unready, and both recover."""
    found = _stuck(seed)
    with mock.patch.object(Stream, "waits_ns", lambda self, now_ns: 0):  # a daemon that never looks at its clock
        blind = _stuck(seed)
    return Outcome(held=found == _NOTICED, caught=blind != _NOTICED, figures={**found, "planted": blind})


_NOTICED = {"ready_before": True, "degraded": True, "unready": True, "ready_again": True}


def _stuck(seed: int) -> dict[str, bool]:
    let_go, embed = threading.Event(), Model.embed

    def hangs(self: Model, counts: Any, active: Any) -> Any:
        let_go.wait(30)
        return embed(self, counts, active)

    soon = mock.patch.object(streams, "OVERDUE_NS", SOON_NS // 10)
    with soon, in_process() as server, Listener(server, "probe") as client, _probe(server, seed) as probe:
        client.wait(lambda: client.heard, WAIT_S, "the first prediction")
        before = becomes(lambda: http(server, "/readyz") == 200, 5) < 5
        with mock.patch.object(Model, "embed", hangs):
            degraded = becomes(lambda: "step_overdue" in client.states[-1][1].reasons, 3) < 3
            unready = http(server, "/readyz") == 503
            let_go.set()
        client.wait(lambda: "step_overdue" not in client.states[-1][1].reasons, WAIT_S, "recovery")
        again = becomes(lambda: http(server, "/readyz") == 200, 10) < 10
        probe.finish()
    return {"ready_before": before, "degraded": degraded, "unready": unready, "ready_again": again}


# -- R23: a loop that does not turn ------------------------------------------------------------------------------------


def stalled_loop(seed: int, size: Size, folder: Path) -> Outcome:
    """Block the main loop for 2 s: /livez and /readyz say so, and the watchdog is not fed."""
    path = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(5)
        told = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "300000"}
        with mock.patch.dict(os.environ, told), in_process() as server:
            said = [notify.recv(64) for _ in range(3)]  # ready, and fed twice
            quiet = http(server, "/livez")
            blocked, go = threading.Event(), threading.Event()

            def block() -> Any:
                blocked.set()
                go.wait(30)
                return 0

            with mock.patch.object(server.daemon, "_timeout_ms", block):
                blocked.wait(5)
                noticed_s = becomes(lambda: http(server, "/livez") == 503, 5)
                unready = http(server, "/readyz")
                notify.setblocking(False)
                _drain(notify)
                threading.Event().wait(0.5)
                fed = _drain(notify)
                go.set()
            back_s = becomes(lambda: http(server, "/livez") == http(server, "/readyz") == 200, 5)
    return Outcome(
        held=quiet == 200 and unready == 503 and fed == 0 and back_s < 5 and (size == "test" or noticed_s <= LIVE_S),
        # the planted bug: a watchdog that another thread feeds would have said READY and then only been fed
        caught=said[0] == b"READY=1" and said[1:] == [b"WATCHDOG=1"] * 2,
        figures={"livez_503_after_s": round(noticed_s, 2), "fed_while_blocked": fed, "back_after_s": round(back_s, 2)},
    )


def _drain(notify: socket.socket) -> int:
    received = 0
    while True:
        try:
            received += notify.recv(64) == b"WATCHDOG=1"
        except BlockingIOError:
            return received


# -- R15: disks --------------------------------------------------------------------------------------------------------


def full_disk(seed: int, size: Size, folder: Path) -> Outcome:
    """Let no file grow any more while the daemon records and saves: predictions go on, and it says what it loses."""
    kept, record = folder / "snapshots", folder / "predictions.rec"
    options = ("--snapshots", str(kept), "--record", str(record))
    with Process(folder, *options) as process, Listener(process, "probe") as client, _probe(process, seed) as probe:
        client.wait(lambda: len(client.heard) >= 4, WAIT_S, "the first predictions")
        no_limit = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        fine = http(process, "/readyz")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1024, no_limit[1]))
        at = len(client.heard)
        client.wait(lambda: len(client.heard) >= at + 6, WAIT_S, "predictions while the disk is full")
        client.wait(lambda: "not_recorded" in client.states[-1][1].reasons, WAIT_S, "a state that says so")
        unready, intact = http(process, "/readyz"), _readable_snapshots(kept)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, no_limit)
        before = _newest(kept)
        resumed = becomes(lambda: _newest(kept) > before, 20) < 20
        probe.finish()
        steps, missing = [said.step for _, said in client.heard], client.subscription.lost
        lost = process.status()["counters"].get("not_recorded", 0)
    recorded = sum(isinstance(message, Predictions) for message in read_records(record))
    return Outcome(
        held=missing == 0 and steps == sorted(steps) and unready == 503 and intact > 0 and resumed and lost > 0,
        caught=fine == 200 and recorded < len(steps),  # a row that never filled the disk would see none of it
        figures={
            "predictions": len(steps),
            "missing": missing,
            "steps_overtaken": steps[-1] + 1 - len(steps),
            "not_recorded": lost,
            "recorded": recorded,
            "snapshots_intact_while_full": intact,
            "readyz_while_full": unready,
            "resumed": resumed,
        },
    )


def _readable_snapshots(folder: Path) -> int:
    found = 0
    for file in folder.glob("*.[01]"):
        try:
            unpack(file.read_bytes())
            found += 1
        except SnapshotError:
            return 0
    return found


def _newest(folder: Path) -> int:
    return max((file.stat().st_mtime_ns for file in folder.glob("*.[01]")), default=0)


def slow_disk(seed: int, size: Size, folder: Path) -> Outcome:
    """Let the disk hang under the record and the snapshots: no prediction comes later for it."""
    steps, failing = _on_a_hanging_disk(seed, folder / "a", patience_s=WAIT_S)
    writer = recording.RecordThread.write

    def in_the_loop(self: Any, frames: Any) -> None:
        writer(self, frames)
        self._writer.write(frames)

    with mock.patch.object(recording.RecordThread, "write", in_the_loop):  # as it once was
        planted, _ = _on_a_hanging_disk(seed, folder / "b", patience_s=4.0)
    return Outcome(
        held=steps >= 6 and failing,
        caught=planted < 6,
        figures={"predictions_while_it_hung": steps, "said_so": failing, "planted_predictions": planted},
    )


def _on_a_hanging_disk(seed: int, folder: Path, *, patience_s: float) -> tuple[int, bool]:
    """Returns how many predictions, of 6 that are waited for, came while the disk hung, and whether states said so."""
    folder.mkdir()
    go = threading.Event()

    def hangs(*_: Any) -> int:
        go.wait(2 * WAIT_S)
        return 0

    slow = (
        mock.patch.object(RecordWriter, "write", hangs),
        mock.patch.object(saving.SnapshotFolder, "write", hangs),
        mock.patch.object(recording, "QUEUE_BYTES", 10_000),
        mock.patch.object(saving, "FAILING_AFTER_NS", SOON_NS),
    )
    settings = {"record": str(folder / "r.rec"), "snapshots": str(folder / "s"), "snapshot_s": 0.2}
    with in_process(**settings) as server, Listener(server, "probe") as client, _probe(server, seed) as probe:
        client.wait(lambda: len(client.heard) >= 2, WAIT_S, "the first predictions")
        with slow[0], slow[1], slow[2], slow[3]:
            at = len(client.heard)
            becomes(lambda: len(client.heard) >= at + 6, patience_s)
            came = len(client.heard) - at
            wanted = {"not_recorded", "not_saved"}
            says = becomes(lambda: wanted <= set(client.states[-1][1].reasons), patience_s if came >= 6 else 0.0)
            go.set()
        probe.finish()
    return came, says < patience_s


# -- R22: the end ------------------------------------------------------------------------------------------------------


def shutdown(seed: int, size: Size, folder: Path) -> Outcome:
    """End the daemon in the middle of everything: exit 0 in time, a whole snapshot; and never two in one folder."""
    times = {"test": 1, "ci": 5, "long": 50}[size]
    took, codes, whole, refused = [], [], 0, 0
    for number in range(times):
        kept = folder / f"snapshots_{number}"
        with (
            Process(folder, "--snapshots", str(kept)) as process,
            Listener(process, "probe") as client,
            _probe(process, seed + number) as probe,
        ):
            client.wait(lambda client=client, number=number: len(client.heard) > number % 3, WAIT_S, "predictions")
            refused += _second_start(kept) == 2
            start = time.monotonic()
            codes.append(process.end())
            took.append(time.monotonic() - start)
            probe.finish()
            whole += _readable_snapshots(kept) > 0
    with Process(folder) as process:
        process.signal(signal.SIGKILL)
        killed = process.end()
    held = codes == [0] * times and whole == refused == times and (size == "test" or max(took) <= EXIT_S)
    return Outcome(
        held=held,
        caught=killed != 0,
        figures={
            "ended": times,
            "exit_0": codes.count(0),
            "seconds_p50": percentile(took, 50),
            "seconds_max": round(max(took), 2),
            "snapshots_whole": whole,
            "second_starts_refused": refused,
        },
    )


def _second_start(kept: Path) -> int:
    ports = ("data", "results", "query")
    endpoints = [part for name in ports for part in (f"--{name}-endpoint", "tcp://127.0.0.1:0")]
    options = ["serve", "--bundle", "demo", "--http-port", "0", *endpoints, "--snapshots", str(kept)]
    done = subprocess.run([sys.executable, "-m", "nuclr_stream", *options], cwd=ROOT, capture_output=True, timeout=240)
    return done.returncode


ROWS = (
    Row(
        id="D1",
        promise="a step that is overdue makes its stream degraded and the daemon unready, whatever the cause",
        bar="degraded with step_overdue, /readyz 503, both taken back when the step ends",
        planted="a daemon that never looks at its clock",
        run=overdue,
    ),
    Row(
        id="R23",
        promise="a main loop that hangs is seen from outside, and its watchdog starves",
        bar="/livez 503 <= 1.5 s, /readyz 503, not fed once while blocked",
        planted="silence of the notify socket before the block",
        run=stalled_loop,
    ),
    Row(
        id="R15",
        promise="a full disk costs records and snapshots, never predictions; both are resumed",
        bar="no prediction missing, states say not_recorded, /readyz 503, both generations whole, written again after",
        planted="a disk that never was full",
        run=full_disk,
    ),
    Row(
        id="R15-slow",
        promise="a disk that hangs delays no prediction",
        bar="6 predictions of 6 come while it hangs; states say not_recorded and not_saved",
        planted="a record that is written in the loop",
        run=slow_disk,
    ),
    Row(
        id="R22",
        promise="SIGTERM ends the daemon in order, and a second one is kept out",
        bar="exit 0 <= 2 s, a whole snapshot each time, every second start refused with 2",
        planted="kill -9",
        run=shutdown,
    ),
)
