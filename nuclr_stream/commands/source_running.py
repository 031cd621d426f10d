"""What every kind of `nuclr-stream source` does alike: turn until a signal comes, and say what was done."""

from __future__ import annotations

import os
import sys
import threading
from typing import Annotated, Any, Protocol

import typer

from nuclr_stream.commands.output import print_json
from nuclr_stream.commands.signals import end_on_signals

TURN_S = 0.1
PARENT = "NUCLR_STREAM_SOURCE_OF"
"""Environment variable with the process id of the daemon that a source belongs to."""

To = Annotated[str, typer.Option("--to", help="Where the daemon takes data.")]


class Source(Protocol):
    """What `run` needs of a source."""

    def turn(self, timeout_s: float) -> bool:
        """Take what comes within about `timeout_s` and send it on; False when nothing more can come."""

    def notes(self) -> list[str]:
        """Return what there is to say to people since it was asked last, a line each."""

    def report(self) -> dict[str, Any]:
        """Return what came and what became of it, as plain values."""

    def close(self) -> None:
        """Send what is held, end the streams, and let go of everything."""


def run(source: Source) -> None:
    """Turn `source` until it ends or a signal comes: notes on stderr meanwhile, its report as JSON in the end.

    As the child of a daemon it ends with it, even if that was killed.
    """
    stopping = threading.Event()
    end_on_signals(stopping.set)
    parent = os.environ.get(PARENT)
    try:
        while not stopping.is_set() and parent in (None, str(os.getppid())) and source.turn(TURN_S):
            _print_notes(source)
    finally:
        source.close()
    _print_notes(source)
    print_json(source.report())


def _print_notes(source: Source) -> None:
    for note in source.notes():
        print(note, file=sys.stderr, flush=True)
