"""`nuclr-stream source trodes`: the sorted spikes of SpikeGadgets Trodes."""

from __future__ import annotations

from typing import Annotated

import typer

from nuclr_stream.commands.source_running import To, run
from nuclr_stream.config import DATA_ENDPOINT
from nuclr_stream.sources.trodes import SERVER, STREAM, TrodesSource


def trodes(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Of the Trodes network.")] = SERVER[6:],
    to: To = DATA_ENDPOINT,
    stream: Annotated[str, typer.Option(help="Name of the stream; all nTrodes are one population.")] = STREAM,
) -> None:
    """Read the spikes that Trodes has sorted."""
    run(TrodesSource(f"tcp://{address}", endpoint=to, stream=stream))
