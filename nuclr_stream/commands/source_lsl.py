"""`nuclr-stream source lsl`: a Lab Streaming Layer stream of spikes or of binned counts."""

from __future__ import annotations

from typing import Annotated

import typer

from nuclr_stream.commands.source_running import To, run
from nuclr_stream.config import DATA_ENDPOINT
from nuclr_stream.sources.lsl import LATENESS_S, LslSource


def lsl(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the LSL stream.")],
    to: To = DATA_ENDPOINT,
    lateness_s: Annotated[
        float, typer.Option(min=0.0, help="Of spikes, if none of its rows is a watermark.")
    ] = LATENESS_S,
) -> None:
    """Read spikes or binned counts of a Lab Streaming Layer stream."""
    run(LslSource(name, endpoint=to, lateness_s=lateness_s))
