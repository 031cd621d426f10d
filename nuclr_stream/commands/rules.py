"""`nuclr-stream rules`: what the rules of a config would have fired over a recording or a record of predictions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nuclr_stream.commands.options import FILES, Bundle, PopulationBy, Threads, load_model
from nuclr_stream.commands.output import print_json, print_notes
from nuclr_stream.config import Settings, load_settings
from nuclr_stream.daemon.records import MAGIC, read_records
from nuclr_stream.errors import ConfigError
from nuclr_stream.inference.model import Model
from nuclr_stream.outputs.log import read_log
from nuclr_stream.recordings.readers import open_recordings
from nuclr_stream.rules.engine import Firing
from nuclr_stream.rules.replay import over_predictions, over_recording
from nuclr_stream.rules.settings import Rule, read_rules
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.wire import Predictions


def rules(
    replay: Annotated[Path, typer.Option("--replay", help=f"What serve --record wrote, a .jsonl log, or {FILES}")],
    config: Annotated[Path, typer.Option("--config", help="TOML file with [[rules]].")],
    bundle: Bundle = "",
    population_by: PopulationBy = "",
    threads: Threads = 0,
) -> None:
    """Show what would have fired; nothing is sent and nothing is noted."""
    settings = load_settings(config, {"bundle": bundle} if bundle else {})
    model = load_model(settings.bundle, threads=threads)
    found, _ = read_rules(settings.rules, settings.sinks, model.manifest)
    if not found:
        raise ConfigError(f"{config.name}: there are no [[rules]]; docs/closed_loop.md shows some")
    console, fired = Console(), 0
    for firing in _firings(found, replay, model, settings=settings, population_by=population_by):
        fired += 1
        sinks = f"  -> {', '.join(firing.sinks)}" if firing.sinks else ""
        who = f"{firing.stream}  {firing.rule}  {firing.subject or '-'}"
        line = f"{firing.time_s:9.1f} s  {who}  {firing.value:.3g}{sinks}"
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    print_json({"replay": replay.name, "rules": len(found), "fired": fired})


def _is_record(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _firings(
    found: tuple[Rule, ...], path: Path, model: Model, *, settings: Settings, population_by: str
) -> Iterator[Firing]:
    if path.suffix == ".jsonl":
        yield from over_predictions(found, read_log(path))
    elif _is_record(path):
        messages = read_records(path)
        yield from over_predictions(found, (one for one in messages if isinstance(one, Predictions)))
    else:
        recordings = open_recordings(path, population_by=population_by)
        print_notes(recordings)
        for recording in recordings:
            labeler = Labeler(
                model,
                stream=recording.recording_id,
                max_units=len(recording.unit_ids),
                hop_s=settings.hop_s,
                lateness_s=settings.lateness_s,
                half_life_s=settings.half_life_s,
                priors=settings.priors,
                abstain=settings.abstain,
            )
            yield from over_recording(found, recording, labeler)
