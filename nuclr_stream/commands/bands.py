"""`nuclr-stream bands`: predicted regions as bands in SpikeGLX or Open Ephys, sent while the daemon runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nuclr_stream.client.subscriber import Query as Ask
from nuclr_stream.client.subscriber import QueryError
from nuclr_stream.commands.options import Query
from nuclr_stream.commands.output import print_json
from nuclr_stream.config import QUERY_ENDPOINT
from nuclr_stream.errors import ConfigError, DaemonGoneError
from nuclr_stream.outputs.bands import ProbeViewer, Sender, SpikeGlx, WindowError, bands_of, electrodes_of


def bands(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Name of the stream, the probe's id.")],
    spikeglx: Annotated[str, typer.Option(help="HOST:PORT of SpikeGLX's remote command server.")] = "",
    probe: Annotated[int, typer.Option(help="Logical probe number of SpikeGLX.")] = 0,
    shift_um: Annotated[float, typer.Option(help="From the tip to depth 0 of the unit table; SpikeGLX.")] = 0.0,
    open_ephys: Annotated[str, typer.Option(help="Address of the GUI's HTTP server.")] = "",
    probe_name: Annotated[str, typer.Option(help="Name of the probe in Open Ephys, without -AP.")] = "ProbeA",
    electrodes: Annotated[Path | None, typer.Option(help="The probe as probeinterface writes it; Open Ephys.")] = None,
    task: Annotated[str, typer.Option(help="The task whose classes are regions.")] = "brain_region",
    interval_s: Annotated[float, typer.Option(help="Seconds between looks at the predictions.")] = 2.0,
    again_s: Annotated[float, typer.Option(help="Bands are sent again after so many seconds, changed or not.")] = 30.0,
    times: Annotated[int, typer.Option(help="End after so many looks; 0 goes on for ever.")] = 0,
    query_endpoint: Query = QUERY_ENDPOINT,
) -> None:
    """Show predicted regions beside the probe, marked as estimates. SpikeGLX keeps them in the run's metadata."""
    sender = Sender(
        _window(spikeglx, probe, shift_um, open_ephys=open_ephys, probe_name=probe_name, electrodes=electrodes)
    )
    console, sent, said, looks = Console(stderr=True), 0, "", 0
    while not times or looks < times:
        if looks:
            time.sleep(interval_s)
        looks += 1
        try:
            with Ask(query_endpoint) as ask:
                found = bands_of(ask.placement(stream, task=task))
            sent += sender.send(found, time.monotonic(), every_s=again_s)
            note = "" if found else f"{stream}: no regions to show yet"
        except (WindowError, DaemonGoneError, QueryError) as error:  # all of these come back
            note = str(error)
        if note and note != said:
            console.print(note, soft_wrap=True, highlight=False, markup=False)
        said = note
    print_json({"stream": stream, "sent": sent})


def _window(
    spikeglx: str, probe: int, shift_um: float, *, open_ephys: str, probe_name: str, electrodes: Path | None
) -> SpikeGlx | ProbeViewer:
    if bool(spikeglx) == bool(open_ephys):
        raise ConfigError("bands: say where to show them: --spikeglx 127.0.0.1:4142 or --open-ephys URL")
    if spikeglx:
        host, _, port = spikeglx.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"--spikeglx {spikeglx}: give it as HOST:PORT, such as 127.0.0.1:4142")
        return SpikeGlx(host, int(port), probe, shift_um=shift_um)
    if electrodes is None:
        raise ConfigError("--open-ephys needs --electrodes PROBE.json: bands are ranges of electrode numbers there")
    try:
        document = json.loads(electrodes.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--electrodes {electrodes}: not a readable JSON file ({error})") from error
    return ProbeViewer(open_ephys, probe_name, electrodes_of(document))
