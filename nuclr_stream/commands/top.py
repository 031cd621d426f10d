"""`nuclr-stream top`: probes, regions along depth, units by confidence and health, in a terminal."""

from __future__ import annotations

import sys

from nuclr_stream.commands.options import Query, Results
from nuclr_stream.config import QUERY_ENDPOINT, RESULTS_ENDPOINT
from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.terminal.feed import Feed


def top(results_endpoint: Results = RESULTS_ENDPOINT, query_endpoint: Query = QUERY_ENDPOINT) -> None:
    """Show everything that a daemon publishes, for ssh; waits for the daemon when it is gone."""
    if not sys.stdout.isatty():
        raise NuclrStreamError("top needs a terminal; nuclr-stream watch writes lines")
    try:
        from nuclr_stream.terminal.app import TopApp
    except ImportError as error:
        raise NuclrStreamError(
            f"top needs textual, which is not installed ({error}): pip install 'nuclr-stream[top]'"
        ) from error
    feed = Feed(results=results_endpoint, query=query_endpoint)
    feed.start()
    try:
        TopApp(feed).run()
    finally:
        feed.close()
