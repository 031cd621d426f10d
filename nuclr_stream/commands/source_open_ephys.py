"""`nuclr-stream source open-ephys`: the ZMQ Interface or the Event Broadcaster of the Open Ephys GUI."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

import typer

from nuclr_stream.commands.source_running import To, run
from nuclr_stream.config import DATA_ENDPOINT
from nuclr_stream.errors import ConfigError
from nuclr_stream.sources.open_ephys import PLUGINS, OpenEphysMessages, OpenEphysSource
from nuclr_stream.sources.open_ephys_control import HTTP_PORT, OpenEphysControl
from nuclr_stream.windows.binning import rational

PORTS = {"zmq": 5556, "broadcaster": 5558}
"""Where the plugins send; the broadcaster's own default, 5557, is taken by the other one."""


def open_ephys(
    address: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="Data port of the plugin.")] = "127.0.0.1",
    to: To = DATA_ENDPOINT,
    plugin: Annotated[Literal["zmq", "broadcaster"], typer.Option(help="ZMQ Interface or Event Broadcaster.")] = "zmq",
    stream: Annotated[list[str] | None, typer.Option(help="Only this data stream of the GUI; may be repeated.")] = None,
    sample_rate: Annotated[str, typer.Option(help="Samples per second, where no message tells.")] = "",
    mask_line: Annotated[
        int, typer.Option(min=0, help="TTL line, from 1, that is on during stimulation; 0: none.")
    ] = 0,
    http_port: Annotated[int, typer.Option(help="Of the GUI's HTTP server; 0 does not ask it.")] = HTTP_PORT,
    start: Annotated[bool, typer.Option("--start", help="Have the GUI acquire, as its play button does.")] = False,
    heartbeat: Annotated[
        bool, typer.Option("--heartbeat", help="Show up in the plugin; crashes a headless GUI.")
    ] = False,
) -> None:
    """Read spikes that the Spike Sorter of the Open Ephys GUI has sorted."""
    host, _, port = address.partition(":")
    if port and not port.isdigit():
        raise ConfigError(f"{address}: give HOST:PORT, such as 127.0.0.1:{PORTS[plugin]}")
    if start and not http_port:
        raise ConfigError("--start needs the GUI's HTTP server: leave out --http-port 0")
    messages = OpenEphysMessages(
        endpoint=to,
        parse=PLUGINS[plugin].parse,
        only=stream or (),
        sample_rate=_rate(sample_rate),
        mask_line=mask_line - 1,  # the GUI shows its lines from 1 and sends them from 0
    )
    control = OpenEphysControl(host, http_port) if http_port else None
    where = int(port or PORTS[plugin])
    source = OpenEphysSource(host, where, messages, plugin=PLUGINS[plugin], control=control, heartbeat=heartbeat)
    if start and control is not None:  # after the socket has subscribed
        control.set_mode("ACQUIRE")
    run(source)


def _rate(text: str) -> Fraction | None:
    try:
        return rational(text) if text else None
    except ValueError as error:
        raise ConfigError(f"--sample-rate {text}: {error}") from error
