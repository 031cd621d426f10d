"""`nuclr-stream forward KIND`: predictions of a daemon on into an acquisition system or a lab's network."""

from __future__ import annotations

import sys
import threading
from typing import Annotated, Any, Protocol

import typer

from nuclr_stream.client.subscriber import Subscription
from nuclr_stream.commands.options import Query, Results
from nuclr_stream.commands.output import print_json
from nuclr_stream.commands.signals import end_on_signals
from nuclr_stream.config import QUERY_ENDPOINT, RESULTS_ENDPOINT
from nuclr_stream.errors import ConfigError, DaemonGoneError
from nuclr_stream.sources.lsl_output import LslOutput
from nuclr_stream.sources.open_ephys_control import HTTP_PORT, OpenEphysControl
from nuclr_stream.sources.open_ephys_output import NetworkEvents, OpenEphysOutput, TtlRule
from nuclr_stream.wire import Predictions

Stream = Annotated[str, typer.Argument(metavar="STREAM", help="Name of the stream, the probe's id.")]
Steps = Annotated[int, typer.Option(help="End after so many predictions; 0 goes on for ever.")]

forward = typer.Typer(
    name="forward", help="Send predictions on into an acquisition system or a network.", no_args_is_help=True
)


class Output(Protocol):
    """Where predictions go."""

    def take(self, predictions: Predictions) -> None:
        """Send what follows from one prediction."""

    def report(self) -> dict[str, Any]:
        """Return what was sent, as plain values."""

    def close(self) -> None:
        """Let go of everything."""


@forward.command("open-ephys")
def open_ephys(
    stream: Stream,
    ttl: Annotated[
        list[str] | None,
        typer.Option(help="TASK.CLASS=LINE, may be repeated: the line, from 1, is on while a unit is called so."),
    ] = None,
    events: Annotated[str, typer.Option(help="HOST:PORT of the Network Events plugin.")] = "127.0.0.1:5556",
    notes: Annotated[bool, typer.Option("--notes", help="Write a note into the recording for each window.")] = False,
    http: Annotated[str, typer.Option(help="HOST:PORT of the GUI's HTTP server.")] = f"127.0.0.1:{HTTP_PORT}",
    steps: Steps = 0,
    results_endpoint: Results = RESULTS_ENDPOINT,
    query_endpoint: Query = QUERY_ENDPOINT,
) -> None:
    """Set TTL lines and write notes in the Open Ephys GUI, and report how long that took."""
    rules = tuple(TtlRule.parse(text) for text in ttl or ())
    if not rules and not notes:
        raise ConfigError("nothing to send: give --ttl TASK.CLASS=LINE, or --notes")
    host, _, port = http.partition(":")
    if not port.isdigit():
        raise ConfigError(f"--http {http}: give HOST:PORT")
    output = OpenEphysOutput(
        events=NetworkEvents(f"tcp://{events}") if rules else None,
        rules=rules,
        control=OpenEphysControl(host, int(port)) if notes else None,
    )
    _run(output, stream, steps=steps, results=results_endpoint, query=query_endpoint)


@forward.command("lsl")
def lsl(
    stream: Stream,
    steps: Steps = 0,
    results_endpoint: Results = RESULTS_ENDPOINT,
    query_endpoint: Query = QUERY_ENDPOINT,
) -> None:
    """Publish predictions as Lab Streaming Layer outlets, one a task."""
    _run(LslOutput(), stream, steps=steps, results=results_endpoint, query=query_endpoint)


def _run(output: Output, stream: str, *, steps: int, results: str, query: str) -> None:
    """Send predictions on until so many have been, or a signal comes; waits for a daemon that is gone."""
    stopping = threading.Event()
    end_on_signals(stopping.set)
    taken = 0
    try:
        with Subscription(stream, results=results, query=query) as subscription:
            while not stopping.is_set() and (not steps or taken < steps):
                try:
                    message = subscription.receive(0.2)
                except DaemonGoneError as error:
                    print(error, file=sys.stderr, flush=True)
                    continue
                if isinstance(message, Predictions):
                    output.take(message)
                    taken += 1
    finally:
        output.close()
    print_json(output.report())
