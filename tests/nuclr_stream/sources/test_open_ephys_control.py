"""The GUI's HTTP server and Network Events: discovery, units that come and go, why nothing comes, predictions back."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import zmq

from nuclr_stream.errors import ConfigError
from nuclr_stream.sources import open_ephys, open_ephys_output
from nuclr_stream.sources.open_ephys import PLUGINS, OpenEphysMessages, OpenEphysSource
from nuclr_stream.sources.open_ephys_control import (
    EVENT_BROADCASTER,
    ZMQ_INTERFACE,
    ControlError,
    OpenEphysControl,
    read_signal_chain,
    why_silent,
)
from nuclr_stream.sources.open_ephys_output import NetworkEvents, OpenEphysOutput, TtlRule
from nuclr_stream.wire import Predictions, UnitTable
from tests.nuclr_stream.sources.daemon_inbox import daemon_inbox
from tests.nuclr_stream.sources.open_ephys_gui import CAPTURES, Gui, publishing
from tests.nuclr_stream.wire_examples import MESSAGES

STREAM = "Probe-A"


class GuiServer:
    """An HTTP server that answers as the GUI's does; `asked` is what was put, `units` are those of its sorter."""

    def __init__(self) -> None:
        self.mode, self.units, self.ports = "ACQUIRE", [1, 2], {ZMQ_INTERFACE: 5556}
        self.asked: list[tuple[str, Any]] = []
        gui = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/api/config":
                    self._answer(gui.config().encode())
                else:
                    self._answer(json.dumps({"mode": gui.mode}).encode(), 200 if self.path == "/api/status" else 404)

            def do_PUT(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                gui.asked.append((self.path, body))
                gui.mode = body.get("mode", gui.mode)
                self._answer(json.dumps({"mode": gui.mode}).encode())

            def _answer(self, content: bytes, code: int = 200) -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def config(self) -> str:
        units = "".join(f'<UNIT UnitID="{unit}"/>' for unit in self.units)
        plugins = "".join(
            f'<PROCESSOR pluginName="{name}" nodeId="104"><PROCESSOR_PARAMETERS data_port="{port}"/></PROCESSOR>'
            for name, port in self.ports.items()
        )
        return f"""<SETTINGS><INFO><VERSION>1.0.1</VERSION></INFO><SIGNALCHAIN>
          <PROCESSOR pluginName="Spike Detector" nodeId="102"><STREAM name="{STREAM}" sample_rate="30000.0"/>
            <CUSTOM_PARAMETERS><SPIKE_CHANNEL name="A" stream_name="{STREAM}" local_channels="5,6"/></CUSTOM_PARAMETERS>
          </PROCESSOR>
          <PROCESSOR pluginName="Spike Sorter" nodeId="103"><CUSTOM_PARAMETERS>
            <ELECTRODE name="A" stream_name="{STREAM}" source_node_id="102"><BOXES>{units}</BOXES></ELECTRODE>
          </CUSTOM_PARAMETERS></PROCESSOR>{plugins}</SIGNALCHAIN></SETTINGS>"""

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[GuiServer]:
    """A GUI's HTTP server."""
    gui = GuiServer()
    yield gui
    gui.close()


# -- discovery --------------------------------------------------------------------------------------------------------


def test_the_configuration_of_the_real_gui_is_read() -> None:
    path = CAPTURES / "api_config.xml"
    if not path.is_file():
        pytest.skip(f"no capture of the real GUI at {path}")
    chain = read_signal_chain(path.read_bytes())
    stream = "Golden_Source-100.ProbeA"
    assert chain.rates == {stream: 30_000.0}
    assert chain.electrodes == {stream: ["Tetrode 1", "Stereotrode 1", "Electrode 1"]}
    channels = {unit_id: place.channel for unit_id, place in chain.units[stream].items()}
    assert channels == {"102/Tetrode 1/1": 0, "102/Tetrode 1/2": 0, "102/Stereotrode 1/3": 4}
    assert chain.ports == {ZMQ_INTERFACE: 5556, EVENT_BROADCASTER: 5558}
    assert chain.version == "1.0.1"
    broadcast = read_signal_chain(path.read_bytes(), EVENT_BROADCASTER).units[stream]
    assert list(broadcast) == ["105/Tetrode 1/1", "105/Tetrode 1/2", "105/Stereotrode 1/3"]


@pytest.mark.parametrize("xml", [b"", b"<a>", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", b"\xff"])
def test_what_is_no_configuration_is_rejected(xml: bytes) -> None:
    with pytest.raises(ControlError, match="configuration"):
        read_signal_chain(xml)


@contextmanager
def read_beside(server: GuiServer) -> Iterator[tuple[OpenEphysSource, Any, Any]]:
    """A source that asks the server, what publishes to it, and the daemon's inbox."""
    with daemon_inbox() as inbox, publishing() as (address, publish):
        host, port = address.split(":")
        messages = OpenEphysMessages(endpoint=inbox.endpoint)
        source = OpenEphysSource(host, int(port), messages, control=OpenEphysControl(port=server.port))
        source.turn(0.0)

        def take(frames: list[list[bytes]]) -> None:
            wanted = source.messages.counters["messages"] + len(frames)
            publish(frames)
            while source.messages.counters["messages"] < wanted:
                source.turn(5.0)

        yield source, take, inbox


def test_units_are_in_the_table_before_they_fire_and_the_rate_is_known_without_data(server: GuiServer) -> None:
    with read_beside(server) as (source, take, inbox):
        take([frames for _ in range(9) for frames in Gui(channels=0).block([(100, 2, "A")])][:1])
        gui = Gui(channels=0)
        take([gui.spike(sample, 2, "A") for sample in range(0, 9_000, 500)])
        source.close()
        inbox.take(ends=1)
    table = inbox.of(UnitTable)[0]
    assert (table.unit_ids, table.channel.tolist()) == (("102/A/1", "102/A/2"), [4, 4])
    assert str(table.sample_rate) == "30000"


def test_renumbered_units_are_retired_when_the_first_new_one_fires(
    server: GuiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_ephys, "ASK_AGAIN_S", 0.0)
    gui = Gui()
    with read_beside(server) as (source, take, inbox):
        take(gui.block([(10, 1, "A"), (20, 2, "A")]) + gui.block())
        server.units = [7, 8]
        take(gui.block([(1500, 7, "A")]))
        source.turn(0.0)
        take(gui.block([(2100, 8, "A")]) + gui.block())
        source.close()
        inbox.take(ends=1)
    assert inbox.of(UnitTable)[-1].unit_ids == ("102/A/7", "102/A/8")
    assert len(inbox.epochs) == 1, "the clock goes on"
    assert sum(inbox.spikes().values()) == 4


def test_without_the_http_server_units_are_added_when_they_fire_and_it_says_so(server: GuiServer) -> None:
    server.close()
    gui = Gui()
    with read_beside(server) as (source, take, inbox):
        take(gui.block([(10, 1, "A")]) + gui.block())
        assert "units are added when they first fire" in source.notes()[0]
        source.close()
        inbox.take(ends=1)
    server._server.server_close()
    server.close = lambda: None  # type: ignore[method-assign]
    assert inbox.of(UnitTable)[0].unit_ids == ("102/A/1",)


# -- why nothing comes ------------------------------------------------------------------------------------------------


def test_why_nothing_comes_is_said_with_a_remedy(server: GuiServer) -> None:
    control = OpenEphysControl(port=server.port)
    with publishing() as (address, _):
        port = int(address.split(":")[1])
        server.ports = {}
        assert "no ZMQ Interface in its signal chain" in why_silent(control, port, ZMQ_INTERFACE)
        server.ports = {ZMQ_INTERFACE: port + 1}
        assert f"is at port {port + 1}, not {port}" in why_silent(control, port, ZMQ_INTERFACE)
        server.ports, server.mode = {ZMQ_INTERFACE: port}, "IDLE"
        assert why_silent(control, port, ZMQ_INTERFACE) == "the GUI is idle: press play"
        server.mode = "ACQUIRE"
        assert "acquires" in why_silent(control, port, ZMQ_INTERFACE)
        nobody = OpenEphysControl(port=9)
        assert "press play" in why_silent(nobody, port, ZMQ_INTERFACE)
    server.ports = {ZMQ_INTERFACE: 9}  # the port was taken, so the plugin never bound it
    assert "nothing listens there" in why_silent(control, 9, ZMQ_INTERFACE)
    assert "start the GUI" in why_silent(nobody, 9, ZMQ_INTERFACE)


def test_a_silent_source_says_why_once(server: GuiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_ephys, "SILENT_S", 0.0)
    with read_beside(server) as (source, *_):
        source.turn(0.0)
        source.turn(0.0)
        assert len([note for note in source.notes() if "is at port 5556, not" in note]) == 1
        source.close()


def test_the_gui_can_be_started_and_answers_errors_are_named(server: GuiServer) -> None:
    control = OpenEphysControl(port=server.port)
    control.set_mode("IDLE")
    assert control.mode() == "IDLE"
    assert server.asked == [("/api/status", {"mode": "IDLE"})]
    with pytest.raises(ControlError, match="404"):
        control._ask("GET", "/api/nothing")


def test_heartbeats_are_answered(server: GuiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_ephys, "HEARTBEAT_S", 0.0)
    with zmq.Context() as context, context.socket(zmq.REP) as rep, daemon_inbox() as inbox:
        rep.RCVTIMEO = 5_000
        port = rep.bind_to_random_port("tcp://127.0.0.1")
        source = OpenEphysSource(
            "127.0.0.1", port - 1, OpenEphysMessages(endpoint=inbox.endpoint), plugin=PLUGINS["zmq"], heartbeat=True
        )
        while not rep.poll(10):
            source.turn(0.01)
        assert json.loads(rep.recv())["type"] == "heartbeat"
        rep.send(b"heartbeat received")
        assert source._heartbeat is not None
        while not source._heartbeat.answers:
            source.turn(0.01)
        source.close()


# -- predictions back -------------------------------------------------------------------------------------------------


def predictions_of(called: str) -> Predictions:
    """The example of the protocol's tests, in which the first unit is called so or abstains."""
    made = next(message for message in MESSAGES.values() if isinstance(message, Predictions) and len(message.unit_ids))
    task = replace(
        made.tasks[0],
        name="cell_type",
        classes=("E", "PV"),
        probabilities=np.tile(np.float32([[0.1, 0.9]]), (len(made.unit_ids), 1)),
        why=np.full(len(made.unit_ids), 0 if called == "PV" else 2, dtype=np.uint8),
    )
    return replace(made, tasks=(task,), sample_rate=Fraction(30_000))


@contextmanager
def network_events() -> Iterator[tuple[str, list[str]]]:
    """A REP socket that answers as Network Events does, and what it was told."""
    told: list[str] = []
    context = zmq.Context()
    socket = context.socket(zmq.REP)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    over = threading.Event()

    def answer() -> None:
        while not over.is_set():
            if socket.poll(10):
                told.append(socket.recv().decode())
                socket.send(b"TTLHandled: Success.")

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{port}", told
    finally:
        over.set()
        thread.join()
        context.destroy(linger=0)


def test_a_line_follows_the_calls_notes_are_written_and_latency_is_measured(server: GuiServer) -> None:
    with network_events() as (endpoint, told):
        output = OpenEphysOutput(
            events=NetworkEvents(endpoint),
            rules=(TtlRule.parse("cell_type.PV=3"),),
            control=OpenEphysControl(port=server.port),
        )
        for called in ("", "PV", "PV", "", "PV"):
            output.take(predictions_of(called))
        output.close()
    on, off = "TTL Line=3 State=1", "TTL Line=3 State=0"
    assert told == [on, off, on, off], "on a change only, and off when it ends"
    notes = [body["text"] for path, body in server.asked if path == "/api/message"]
    assert len(notes) == 5
    assert "cell_type: PV=" in notes[1] and "abstained=0" in notes[1]
    report = output.report()
    assert report["counters"] == Counter(ttl_sent=4, notes_sent=5)
    assert set(report["ttl_ms"]) == set(report["note_ms"]) == {"p50", "p95", "p99"}


def test_a_gui_that_does_not_answer_is_counted_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_ephys_output, "REPLY_S", 0.01)
    output = OpenEphysOutput(
        events=NetworkEvents("tcp://127.0.0.1:9"),
        rules=(TtlRule.parse("cell_type.PV=3"),),
        control=OpenEphysControl(port=9),
    )
    output.take(predictions_of("PV"))
    output.take(predictions_of("PV"))
    output.close()
    assert output.report()["counters"] == {"ttl_failed": 2, "notes_failed": 2}


@pytest.mark.parametrize("text", ["PV=3", "cell_type.PV", "cell_type.PV=x", "cell_type.PV=0", ".PV=3", "cell_type.=3"])
def test_a_rule_that_is_none_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match="TASK"):
        TtlRule.parse(text)
