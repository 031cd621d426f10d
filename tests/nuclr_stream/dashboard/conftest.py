"""A page's server in a thread, fed by a stand-in for the daemon; Chromium where there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nuclr_stream.dashboard.server import Page, PageSettings
from tests.nuclr_stream.dashboard.stand_in import FakeProbe, StandIn

Serve = Callable[..., Page]


@pytest.fixture
def daemon() -> Iterator[StandIn]:
    """Two probes: one of one shank, one of four."""
    with StandIn(FakeProbe("probeA", units=60), FakeProbe("probeB", units=24, shanks=4)) as stand_in:
        yield stand_in


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers of the page for a stand-in, with more settings if need be; all are stopped in the end."""
    with ExitStack() as stack:

        def start(stand_in: StandIn, **settings: Any) -> Page:
            where = {"results": stand_in.endpoints["results"], "query": stand_in.endpoints["query"]}
            page = Page(PageSettings(**(where | settings)))
            thread = threading.Thread(target=page.run)
            thread.start()

            def stop() -> None:
                page.stop()
                thread.join(10)
                assert not thread.is_alive()

            stack.callback(stop)
            return page

        yield start


@pytest.fixture
def static() -> Path:
    """The folder of the page's files."""
    return Path(__file__).parents[3] / "nuclr_stream" / "dashboard" / "static"
