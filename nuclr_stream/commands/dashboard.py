"""`nuclr-stream dashboard`: the live page, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated

import typer

from nuclr_stream.config import QUERY_ENDPOINT, RESULTS_ENDPOINT
from nuclr_stream.errors import ConfigError
from nuclr_stream.placement.plans import read_plan

PAGE_PORT = 5584

Host = Annotated[str, typer.Option("--host", help="Address to serve on; beyond 127.0.0.1 viewers need a token.")]
Port = Annotated[int, typer.Option("--port", help="Port of the page; 0 picks a free one.")]
Plan = Annotated[
    list[str] | None,
    typer.Option("--plan", help="STREAM=FILE.csv, a planned trajectory to show beside what is found. Repeatable."),
]

Probes = Annotated[
    list[str] | None,
    typer.Option("--probe", help="STREAM=FILE.json, a probeinterface file whose contacts are drawn. Repeatable."),
]


def dashboard(
    source: Annotated[str, typer.Option("--from", help="Where the daemon publishes.")] = RESULTS_ENDPOINT,
    query_endpoint: Annotated[str, typer.Option("--query-endpoint", help="Where the daemon answers.")] = QUERY_ENDPOINT,
    host: Host = "127.0.0.1",
    port: Port = PAGE_PORT,
    token: Annotated[str, typer.Option("--token", envvar="NUCLR_TOKEN", help="Token of viewers.")] = "",
    plan: Plan = None,
    probe: Probes = None,
    notes: Annotated[Path | None, typer.Option("--notes", help="Take notes of viewers into this file (JSONL).")] = None,
) -> None:
    """Serve the live page of a daemon. One line of JSON on stdout has its URL; Ctrl-C ends it.

    It runs beside the daemon and only reads from it: whatever happens to the page, predictions go on.
    """
    try:
        from nuclr_stream.dashboard.contacts import read_contacts
        from nuclr_stream.dashboard.server import Page, PageSettings
    except ModuleNotFoundError as error:
        raise ConfigError(f"the page needs {error.name}: pip install 'nuclr-stream[dashboard]'") from error
    settings = PageSettings(
        results=source,
        query=query_endpoint,
        host=host,
        port=port,
        token=token,
        plans={stream: read_plan(path) for stream, path in _files("--plan", plan)},
        contacts={stream: read_contacts(path) for stream, path in _files("--probe", probe)},
        notes=notes,
    )
    page = Page(settings)
    print(json.dumps({"url": page.url, "from": source}), flush=True)
    page.run()


def _files(option: str, texts: list[str] | None) -> Iterator[tuple[str, Path]]:
    """Yield stream and file of every STREAM=FILE. Raises ConfigError."""
    for text in texts or ():
        stream, equals, file = text.rpartition("=")
        if not (stream and equals and file):
            raise ConfigError(f"{option} {text}: give it as STREAM=FILE, the stream being the probe's id")
        yield stream, Path(file)


def start_page(endpoints: Mapping[str, str], *, port: int, stdout: int | IO[str]) -> subprocess.Popen[str]:
    """Start the live page of a daemon as a process of its own: whatever happens to it, predictions go on."""
    command = [sys.executable, "-m", "nuclr_stream", "dashboard", "--port", str(port)]
    command += ["--from", endpoints["results"], "--query-endpoint", endpoints["query"]]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, text=True)
