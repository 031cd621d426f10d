"""`nuclr-stream source file`: a recording played as if it were live."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nuclr_stream.commands.options import FILES, PopulationBy, Query, Results
from nuclr_stream.commands.output import print_notes
from nuclr_stream.commands.replay import speed_of
from nuclr_stream.commands.source_running import To, run
from nuclr_stream.config import DATA_ENDPOINT, QUERY_ENDPOINT, RESULTS_ENDPOINT
from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.readers import open_one
from nuclr_stream.sources.file import FileSource, FollowedFileSource


def file(
    path: Annotated[Path, typer.Argument(metavar="FILE", help=FILES)],
    to: To = DATA_ENDPOINT,
    speed: Annotated[str, typer.Option(help="Times real time, or max: as fast as the daemon labels.")] = "1",
    start_s: Annotated[float, typer.Option(min=0.0, help="Begin here, in seconds from its first sample.")] = 0.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again when it is over, as a new epoch.")] = False,
    recording_id: Annotated[str, typer.Option(help="Which recording, where the file holds several probes.")] = "",
    population_by: PopulationBy = "",
    stream: Annotated[str, typer.Option(help="Name of the stream; the recording's id by default.")] = "",
    results_endpoint: Results = RESULTS_ENDPOINT,
    query_endpoint: Query = QUERY_ENDPOINT,
) -> None:
    """Play a recording as a rig would; only at --speed max it waits for the predictions, so that none is skipped."""
    times = speed_of(speed)
    recording = open_one(path, recording_id, population_by=population_by)
    print_notes([recording])
    if start_s >= recording.duration_s:
        raise ConfigError(f"--start-s {start_s:g}: {recording.recording_id} is {recording.duration_s:g} s long")
    start = int(start_s * recording.sample_rate)
    if times is None:
        endpoints = {"data": to, "results": results_endpoint, "query": query_endpoint}
        run(FollowedFileSource(recording, endpoints=endpoints, stream=stream, start=start, loop=loop))
    else:
        run(FileSource(recording, endpoint=to, stream=stream, speed=times, start=start, loop=loop))
