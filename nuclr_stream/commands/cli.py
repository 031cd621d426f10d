"""`nuclr-stream`: one command a file, put together here.

The last line on stdout is JSON, for programs; `records` writes its rows there instead.
"""

from __future__ import annotations

import sys

import typer

from nuclr_stream.commands.bands import bands
from nuclr_stream.commands.bench import bench
from nuclr_stream.commands.check import check
from nuclr_stream.commands.dashboard import dashboard
from nuclr_stream.commands.demo import demo
from nuclr_stream.commands.doctor import doctor
from nuclr_stream.commands.forward import forward
from nuclr_stream.commands.keys import keys
from nuclr_stream.commands.label import label
from nuclr_stream.commands.records import records
from nuclr_stream.commands.replay import replay
from nuclr_stream.commands.rules import rules
from nuclr_stream.commands.serve import serve
from nuclr_stream.commands.source import source
from nuclr_stream.commands.top import top
from nuclr_stream.commands.watch import watch
from nuclr_stream.errors import NuclrStreamError

app = typer.Typer(
    name="nuclr-stream",
    help="Live cell-type and brain-region predictions for every recorded unit.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (serve, replay, label, records, rules, watch, top, dashboard, bands, demo, bench, doctor, check):
    app.command()(command)
app.add_typer(keys, name="keys")
for group in (source, forward):
    app.add_typer(group)


def main() -> None:
    """Run the command line; an error raised on purpose is one line on stderr and exit code 2."""
    try:
        app()
    except NuclrStreamError as error:
        print(f"nuclr-stream: {error}", file=sys.stderr)
        sys.exit(2)
