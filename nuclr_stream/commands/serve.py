"""`nuclr-stream serve`: the daemon as a process that signals end in order."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from nuclr_stream.commands.dashboard import PAGE_PORT, start_page
from nuclr_stream.commands.demo import RECORDING
from nuclr_stream.commands.options import AbstainBelow, Bundle, load_model, warn_of_thresholds
from nuclr_stream.commands.signals import end_on_signals
from nuclr_stream.commands.source import arguments_of, running_sources
from nuclr_stream.config import load_settings
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.stream.labeler import checked_thresholds

WARM_UNITS = 128
DEMO_SOURCE = f"file://{quote(str(RECORDING))}?loop&stream=demo"

log = logging.getLogger(__name__)


def serve(
    bundle: Bundle = "",
    config: Annotated[Path | None, typer.Option("--config", help="TOML file, see configs/rig.toml.")] = None,
    keys: Annotated[str | None, typer.Option(help="Folder of keys: tcp serves allowed ones alone.")] = None,
    data_endpoint: Annotated[str | None, typer.Option(help="Sources push spikes here.")] = None,
    results_endpoint: Annotated[str | None, typer.Option(help="Predictions come out here.")] = None,
    query_endpoint: Annotated[str | None, typer.Option(help="Clients ask here.")] = None,
    http_port: Annotated[int | None, typer.Option(help="/metrics, /livez, /readyz, /status on 127.0.0.1.")] = None,
    hop_s: Annotated[float | None, typer.Option(help="Seconds between windows instead of the bundle's.")] = None,
    provider: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of one inference; 0 takes all cores but one.")] = None,
    abstain_below: AbstainBelow = None,
    record: Annotated[str | None, typer.Option(help="Keep every prediction in this file.")] = None,
    snapshots: Annotated[
        str | None, typer.Option(help="Keep the state of all streams in this folder: a crash loses nothing.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Read KIND://ADDRESS?option=value in a child process; may be repeated.")
    ] = None,
    demo_source: Annotated[bool, typer.Option("--demo-source", help="Play the demo recording over and over.")] = False,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Serve the live page too, by a process of its own.")
    ] = False,
    dashboard_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page on 127.0.0.1.")] = PAGE_PORT,
) -> None:
    """Run the daemon. One line of JSON on stdout says where it can be reached; SIGTERM ends it."""
    given = {
        "bundle": bundle or None,
        "keys": keys,
        "data_endpoint": data_endpoint,
        "results_endpoint": results_endpoint,
        "query_endpoint": query_endpoint,
        "http_port": http_port,
        "hop_s": hop_s,
        "provider": provider,
        "threads": threads,
        "record": record,
        "snapshots": snapshots,
    }
    sources = [*(source or ()), *([DEMO_SOURCE] if demo_source else [])]
    for url in sources:
        arguments_of(url)  # what cannot be is rejected before anything is loaded
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = load_settings(config, {name: value for name, value in given.items() if value is not None})
    if not settings.snapshots:
        log.info("no snapshots are kept: a crash would forget what units have gathered; --snapshots FOLDER keeps them")
    model = load_model(settings.bundle, provider=settings.provider, threads=settings.threads)
    if abstain_below is not None:
        settings = settings.model_copy(update={"abstain": dict.fromkeys(model.task_names, abstain_below)})
    warn_of_thresholds(model, checked_thresholds(model, settings.abstain))
    model.warm_up(min(WARM_UNITS, model.manifest.max_units))
    daemon = Daemon(settings, model)
    end_on_signals(daemon.stop)
    ready = {"bundle": model.bundle_id, "provider": model.provider, "endpoints": daemon.endpoints}
    page = None
    if dashboard:
        page = start_page(daemon.endpoints, port=dashboard_port, stdout=sys.stderr)
        ready["dashboard"] = f"http://127.0.0.1:{dashboard_port}/"
    print(json.dumps(ready), flush=True)
    with running_sources(sources, daemon.endpoints):
        in_time = daemon.run()
    if page is not None:
        page.terminate()
    if not in_time:
        os._exit(0)  # a step that hangs must not keep the process
