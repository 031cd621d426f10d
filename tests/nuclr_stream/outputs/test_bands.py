"""Bands in SpikeGLX and Open Ephys, against servers that keep to what those programs do on the wire."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import probeinterface
import pytest
from typer.testing import CliRunner

from nuclr_stream.client.replay import replay
from nuclr_stream.commands.cli import app
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.errors import ConfigError
from nuclr_stream.outputs.bands import Band, ProbeViewer, Sender, SpikeGlx, WindowError, bands_of, electrodes_of
from nuclr_stream.recordings.recording import Recording
from tests.nuclr_stream.conftest import where

BANDS = (Band(0, 0, 500, "est. TH 97%", "CC6677"), Band(0, 500, 900, "est. CTX 88%", "332288"))


class _Commands(socketserver.StreamRequestHandler):
    server: SpikeGlxServer

    def handle(self) -> None:
        for line in self.rfile:
            self.server.lines.append(line.decode().rstrip("\n"))
            self.wfile.write(self.server.answer)


class SpikeGlxServer(socketserver.ThreadingTCPServer):
    """Takes lines of text, and answers each with `answer`."""

    allow_reuse_address = True
    daemon_threads = True
    answer = b"OK\n"

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Commands)
        self.lines: list[str] = []


class _Gui(BaseHTTPRequestHandler):
    server: OpenEphysServer

    def do_GET(self) -> None:
        processors = [
            {"id": 100, "name": "Neuropix-PXI"},
            *({"id": n, "name": "Probe Viewer"} for n in self.server.ids),
        ]
        self._answer({"processors": processors} if self.path == "/api/processors" else {})

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.puts.append((self.path, body["text"]))
        self._answer({"info": ""})

    def _answer(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class OpenEphysServer(ThreadingHTTPServer):
    """The processors of a GUI, and their configuration by text."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Gui)
        self.ids = [102]
        self.puts: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


Server = TypeVar("Server", SpikeGlxServer, OpenEphysServer)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def placement(*shanks: int) -> dict[str, Any]:
    """Two regions on every shank."""
    edges = [("TH", 0.0, 500.0, 0.97), ("CTX", 500.0, 900.0, 0.88)]
    segments = [{"region": r, "from_um": a, "to_um": b, "probability": p} for r, a, b, p in edges]
    return {"classes": ["TH", "CTX"], "shanks": [{"shank": shank, "segments": segments} for shank in shanks]}


def test_every_band_is_marked_as_an_estimate_and_keeps_the_colour_of_its_class() -> None:
    assert bands_of(placement(-1)) == BANDS
    assert {band.shank for band in bands_of(placement(0, 1))} == {0, 1}
    assert bands_of({"reason": "no_depth", "shanks": []}) == ()


def test_spikeglx_gets_a_line_a_shank_in_micrometres_from_the_tip() -> None:
    with serving(SpikeGlxServer()) as server:
        window = SpikeGlx("127.0.0.1", server.server_address[1], 2)
        window.send(bands_of(placement(0, 1)))
        assert server.lines == [
            f"SETANATOMYPP [2,{shank}](0,500,204,102,119,est. TH 97%)(500,900,51,34,136,est. CTX 88%)"
            for shank in (0, 1)
        ]
        window.send([Band(0, 0, 1, "est. CA1 (sp), 9%", "000000")])
        assert server.lines[-1].endswith("(0,1,0,0,0,est. CA1  sp   9%)"), "a name cannot break the line"
        SpikeGlx("127.0.0.1", server.server_address[1], 0, shift_um=175.0).send(BANDS[:1])
        assert "(175,675," in server.lines[-1]
        server.answer = b"ERROR SETANATOMYPP: not running.\n"
        with pytest.raises(WindowError, match="not running"):
            window.send(BANDS)


def test_open_ephys_gets_ranges_of_electrodes_in_every_probe_viewer() -> None:
    electrodes = [(0, 20.0 * (k // 2)) for k in range(100)]
    with serving(OpenEphysServer()) as server:
        server.ids = [102, 105]
        ProbeViewer(server.url, "ProbeA", electrodes).send(BANDS)
        text = "ProbeA;0-51,est. TH 97%,CC6677;50-91,est. CTX 88%,332288"
        assert server.puts == [(f"/api/processors/{n}/config", text) for n in (102, 105)]
        server.ids = []
        with pytest.raises(WindowError, match="no Probe Viewer in the signal chain"):
            ProbeViewer(server.url, "ProbeA", electrodes).send(BANDS)


def test_bands_are_sent_when_they_change_and_again_after_a_restart_of_the_program() -> None:
    with serving(SpikeGlxServer()) as server:
        port = server.server_address[1]
        sender = Sender(SpikeGlx("127.0.0.1", port, 0))
        assert [sender.send(BANDS, float(s), every_s=30.0) for s in range(3)] == [True, False, False]
        assert sender.send(BANDS[:1], 3.0, every_s=30.0)
        assert not sender.send((), 4.0, every_s=30.0), "nothing is known: what is shown stays"
        assert sender.send(BANDS[:1], 33.0, every_s=30.0), "it may have restarted unseen"
    with pytest.raises(WindowError, match="Remote Command Server"):
        sender.send(BANDS, 34.0, every_s=30.0)
    with serving(SpikeGlxServer(port)) as server:
        assert sender.send(BANDS, 35.0, every_s=30.0) and len(server.lines) == 1


def test_electrodes_are_numbered_by_their_ids_and_measured_from_the_tip_of_their_shank(tmp_path: Path) -> None:
    probe = probeinterface.generate_multi_shank(num_shank=2, num_columns=1, num_contact_per_column=3)
    probe.set_contact_ids([f"s{s}e{e}" for s in range(2) for e in (2, 1, 0)])
    probeinterface.write_probeinterface(tmp_path / "p.json", probe)
    found = electrodes_of(json.loads((tmp_path / "p.json").read_text()))
    depths = sorted(float(y) for y in probe.contact_positions[:3, 1] - probe.contact_positions[:3, 1].min())
    assert found == [(shank, at_um) for shank in (0, 1) for at_um in reversed(depths)]
    with pytest.raises(WindowError, match="one probe"):
        electrodes_of({"probes": []})


def test_the_command_sends_what_a_daemon_predicts(
    run_daemon: Callable[..., Daemon], recording: Recording, tmp_path: Path
) -> None:
    daemon = run_daemon(abstain={"brain_region": 0.0})
    for _ in replay(recording, **where(daemon)):
        pass
    query = ["--query-endpoint", daemon.endpoints["query"], "--interval-s", "0.01", "--times", "3"]
    with serving(SpikeGlxServer()) as server:
        options = ["--spikeglx", f"127.0.0.1:{server.server_address[1]}"]
        result = CliRunner().invoke(app, ["bands", "random_0", *options, *query], catch_exceptions=False)
        assert json.loads(result.stdout.splitlines()[-1]) == {"stream": "random_0", "sent": 1}
        assert len(server.lines) == 1 and "est. " in server.lines[0]
    result = CliRunner().invoke(app, ["bands", "random_0", *options, *query], catch_exceptions=False)
    assert result.stderr.count("Remote Command Server") == 1, "said once, and tried again"
    for bad, words in (([], "say where"), (["--spikeglx", "x"], "HOST:PORT"), (["--open-ephys", "u"], "--electrodes")):
        with pytest.raises(ConfigError, match=words):
            CliRunner().invoke(app, ["bands", "random_0", *bad], catch_exceptions=False)
