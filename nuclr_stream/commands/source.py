"""`nuclr-stream source KIND`: an acquisition system's stream into a daemon, in a process of its own.

A KIND is one file `source_<kind>.py` beside this one, with a function of the kind's name that parses, makes a `Source`
and hands it to `run`; it is added to KINDS below. `serve --source KIND://ADDRESS?option=value` starts the same command
as a child, see `arguments_of`.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import typer

from nuclr_stream.commands.source_falcon import falcon
from nuclr_stream.commands.source_open_ephys import open_ephys
from nuclr_stream.commands.source_spikeglx import spikeglx
from nuclr_stream.errors import ConfigError

KINDS = {"falcon": falcon, "open-ephys": open_ephys, "spikeglx": spikeglx}

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
