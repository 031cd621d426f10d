"""`nuclr-stream watch`: the units of a stream, live."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from nuclr_stream.client.subscriber import subscribe
from nuclr_stream.commands.options import Query, Results
from nuclr_stream.commands.screen import Screen
from nuclr_stream.config import QUERY_ENDPOINT, RESULTS_ENDPOINT
from nuclr_stream.errors import DaemonGoneError


def watch(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Name of the stream, the probe's id.")],
    steps: Annotated[int, typer.Option(help="End after so many predictions; 0 goes on for ever.")] = 0,
    results_endpoint: Results = RESULTS_ENDPOINT,
    query_endpoint: Query = QUERY_ENDPOINT,
) -> None:
    """Show the units of a stream live; waits for the daemon when it is gone."""
    seen = 0
    console = Console()
    with subscribe(stream, results=results_endpoint, query=query_endpoint) as predictions, Screen(console) as screen:
        while not steps or seen < steps:
            try:
                screen.show(next(predictions))
                seen += 1
            except DaemonGoneError as error:
                console.print(str(error), soft_wrap=True, highlight=False, markup=False)
