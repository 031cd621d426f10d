"""`nuclr-stream source KIND`: an acquisition system's stream into a daemon, in a process of its own.

A KIND is one file `source_<kind>.py` beside this one, with a function of the kind's name that parses, makes a `Source`
and hands it to `run`; it is added to KINDS below. `serve --source KIND://ADDRESS?option=value` starts the same command
as a child, see `arguments_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import parse_qsl, unquote, urlsplit

import typer

from nuclr_stream.commands.source_child import SourceChild
from nuclr_stream.commands.source_falcon import falcon
from nuclr_stream.commands.source_file import file
from nuclr_stream.commands.source_lsl import lsl
from nuclr_stream.commands.source_open_ephys import open_ephys
from nuclr_stream.commands.source_spikeglx import spikeglx
from nuclr_stream.commands.source_trodes import trodes
from nuclr_stream.errors import ConfigError

KINDS: dict[str, Callable[..., None]] = {
    "falcon": falcon,
    "file": file,
    "lsl": lsl,
    "open-ephys": open_ephys,
    "spikeglx": spikeglx,
    "trodes": trodes,
}

source = typer.Typer(
    name="source", help="Read an acquisition system, or a file as if it were one, into a daemon.", no_args_is_help=True
)
for name, command in KINDS.items():
    source.command(name)(command)


def arguments_of(url: str) -> list[str]:
    """Return the arguments of `nuclr-stream source` that KIND://ADDRESS?option=value&flag means.

    >>> arguments_of("open-ephys://127.0.0.1:5556?mask-line=3")
    ['open-ephys', '127.0.0.1:5556', '--mask-line', '3']

    Raises ConfigError for a kind that there is none of.
    """
    parts = urlsplit(url)
    if parts.scheme not in KINDS:
        raise ConfigError(
            f"--source {url}: no kind {parts.scheme!r}; give KIND://ADDRESS with one of {', '.join(KINDS)}"
        )
    address = unquote(parts.netloc + parts.path)
    options = []
    for option, value in parse_qsl(parts.query, keep_blank_values=True):
        options += [f"--{option}", value] if value else [f"--{option}"]
    return [parts.scheme, *([address] if address else []), *options]


@contextmanager
def running_sources(urls: Sequence[str], endpoints: Mapping[str, str]) -> Iterator[list[SourceChild]]:
    """Run a child process for each of `urls` beside the daemon at `endpoints`; all of them are ended in the end.

    Raises ConfigError for an unknown kind before any is started.
    """
    commands = [[*arguments_of(url), "--to", endpoints["data"]] for url in urls]
    for command in commands:
        if command[0] == "file":  # which follows the daemon at --speed max
            command += ["--results-endpoint", endpoints["results"], "--query-endpoint", endpoints["query"]]
    children = [SourceChild(command) for command in commands]
    try:
        yield children
    finally:
        for child in children:
            child.stop()
