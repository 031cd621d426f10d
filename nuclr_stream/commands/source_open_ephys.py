"""`nuclr-stream source open-ephys`: the ZMQ Interface or the Event Broadcaster of the Open Ephys GUI."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

import typer

from nuclr_stream.commands.source_running import To, run
from nuclr_stream.config import DATA_ENDPOINT
from nuclr_stream.errors import ConfigError
from nuclr_stream.sources.open_ephys import PARSERS, OpenEphysMessages, OpenEphysSource
from nuclr_stream.windows.binning import rational


def open_ephys(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Data port of the plugin.")] = "127.0.0.1:5556",
    to: To = DATA_ENDPOINT,
    plugin: Annotated[Literal["zmq", "broadcaster"], typer.Option(help="ZMQ Interface or Event Broadcaster.")] = "zmq",
    stream: Annotated[list[str] | None, typer.Option(help="Only this data stream of the GUI; may be repeated.")] = None,
    sample_rate: Annotated[str, typer.Option(help="Samples per second, where no message tells.")] = "",
    mask_line: Annotated[int, typer.Option(help="TTL line, from 0, that is on during stimulation; -1 for none.")] = -1,
) -> None:
    """Read spikes that the Spike Sorter of the Open Ephys GUI has sorted."""
    messages = OpenEphysMessages(
        endpoint=to,
        parse=PARSERS[plugin],
        only=stream or (),
        sample_rate=_rate(sample_rate),
        mask_line=mask_line,
    )
    run(OpenEphysSource(f"tcp://{address}", messages))


def _rate(text: str) -> Fraction | None:
    try:
        return rational(text) if text else None
    except ValueError as error:
        raise ConfigError(f"--sample-rate {text}: {error}") from error
