"""The HTTP server of the Open Ephys GUI: its signal chain, whether it acquires, notes into its recording.

The server answers on port 37497 in all releases since 0.6, headless too. `GET /api/config` is the whole signal chain as
XML: streams and rates, electrodes with their channels, the sorter's units, the ports of the plugins.
"""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.sources.writer import UnitPlace, printable

HTTP_PORT = 37497
ZMQ_INTERFACE, EVENT_BROADCASTER = "ZMQ Interface", "Event Broadcaster"
MAX_BODY_BYTES = 2**26


class ControlError(NuclrStreamError):
    """The GUI's HTTP server does not answer, or not as it should."""


@dataclass(frozen=True)
class SignalChain:
    """What the GUI's configuration says.

    `rates` by data stream; `units` of every stream by our unit id, with the first channel of their electrode (from 0);
    `electrodes` of every stream; `ports` of the plugins "ZMQ Interface" and "Event Broadcaster", where they are there.
    """

    rates: dict[str, float] = field(default_factory=dict)
    electrodes: dict[str, list[str]] = field(default_factory=dict)
    units: dict[str, dict[str, UnitPlace]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    version: str = ""


class OpenEphysControl:
    """Asks the HTTP server of a GUI. Every call raises ControlError when it does not answer within `timeout_s`."""

    def __init__(self, host: str = "127.0.0.1", port: int = HTTP_PORT, *, timeout_s: float = 1.0) -> None:
        self.host, self.port, self._timeout_s = host, port, timeout_s

    def mode(self) -> str:
        """Return IDLE, ACQUIRE or RECORD."""
        found = self._json("GET", "/api/status")
        return str(found.get("mode", "")) if isinstance(found, dict) else ""

    def set_mode(self, mode: str) -> None:
        """Start or stop acquisition: IDLE, ACQUIRE or RECORD."""
        self._json("PUT", "/api/status", {"mode": mode})

    def note(self, text: str) -> None:
        """Write a note into the recording that runs."""
        self._json("PUT", "/api/message", {"text": text})

    def signal_chain(self, plugin: str) -> SignalChain:
        """Return the configuration, with unit ids as the named plugin sends them."""
        return read_signal_chain(self._ask("GET", "/api/config"), plugin)

    def _json(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._ask(method, path, None if body is None else json.dumps(body).encode())
        try:
            return json.loads(answer) if answer else None
        except ValueError as error:
            raise ControlError(
                f"http://{self.host}:{self.port}{path} answers with no JSON ({answer[:40]!r})"
            ) from error

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        where = f"http://{self.host}:{self.port}{path}"
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self._timeout_s)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            content = answer.read(MAX_BODY_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(f"{where} does not answer ({error}); is the GUI's HTTP server on?") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise ControlError(f"{where} answers with {answer.status}: {content[:80].decode(errors='replace')}")
        return content


def read_signal_chain(xml: bytes, plugin: str = ZMQ_INTERFACE) -> SignalChain:
    """Return what a configuration of the GUI says, with unit ids as `plugin` sends them. Raises ControlError for none.

    >>> read_signal_chain(b"<SETTINGS><SIGNALCHAIN/></SETTINGS>").rates
    {}
    """
    if b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:
        raise ControlError("the configuration defines entities, which no GUI does; it is not read")
    try:
        root = ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError) as error:
        raise ControlError(f"the configuration is not XML ({error})") from error
    chain = SignalChain(version=root.findtext("INFO/VERSION", ""))
    processors = list(root.iter("PROCESSOR"))
    # the Event Broadcaster sends its own id in the place of the detector's
    node = next((p.get("nodeId") for p in processors if p.get("pluginName") == plugin == EVENT_BROADCASTER), None)
    channels: dict[tuple[str, str, str], int] = {}
    for processor in processors:
        for stream in processor.findall("STREAM"):
            rate = _number(stream.get("sample_rate"))
            if rate > 0:
                chain.rates[stream.get("name", "")] = rate
        for electrode in processor.iter("SPIKE_CHANNEL"):
            first = _number(electrode.get("local_channels", "").split(",")[0])
            key = processor.get("nodeId", ""), electrode.get("stream_name", ""), electrode.get("name", "")
            channels[key] = int(first) - 1
            chain.electrodes.setdefault(key[1], []).append(key[2])
        for electrode in processor.iter("ELECTRODE"):
            source, name = electrode.get("source_node_id", ""), electrode.get("stream_name", "")
            place = UnitPlace(channel=channels.get((source, name, electrode.get("name", "")), -1))
            for unit in electrode.iter("UNIT"):
                unit_id = printable(f"{node or source}/{electrode.get('name', '')}/{unit.get('UnitID', '')}")
                chain.units.setdefault(name, {})[unit_id] = place
        parameters = processor.find("PROCESSOR_PARAMETERS")
        if parameters is not None and parameters.get("data_port"):
            chain.ports[processor.get("pluginName", "")] = int(_number(parameters.get("data_port")))
    return chain


def why_silent(control: OpenEphysControl, port: int, plugin: str) -> str:
    """Return, in a sentence with a remedy, why nothing comes from `plugin` at `port`."""
    answers = listens(control.host, port)
    try:
        mode, ports = control.mode(), control.signal_chain(plugin).ports
    except ControlError:
        if answers:
            return f"{control.host}:{port} accepts connections but nothing comes: press play in the GUI"
        return f"nothing listens at {control.host}:{port}: start the GUI with the {plugin} in its signal chain"
    if plugin not in ports:
        return f"the GUI has no {plugin} in its signal chain: drag one behind the Spike Sorter"
    if ports[plugin] != port:
        return f"the GUI's {plugin} is at port {ports[plugin]}, not {port}: give {control.host}:{ports[plugin]}"
    if not answers:
        return (
            f"the GUI reports port {port} for its {plugin}, but nothing listens there: another program held it when "
            "the plugin started; type another data port into its editor"
        )
    if mode == "IDLE":
        return "the GUI is idle: press play"
    return f"the GUI acquires and its {plugin} listens, but nothing comes: is another program's socket at port {port}?"


def listens(host: str, port: int, *, timeout_s: float = 0.5) -> bool:
    """Return whether anything accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError:
        return False
    return True


def _number(text: str | None) -> float:
    """Return a number of the configuration, 0 for what is none."""
    try:
        return float(text or "")
    except ValueError:
        return 0.0
