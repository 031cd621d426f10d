"""`nuclr-stream label`: predictions for recordings on disk, by the Labeler that runs live, in the form of --out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nuclr_stream.commands.options import (
    FILES,
    AbstainBelow,
    Bundle,
    PopulationBy,
    Threads,
    load_model,
    warn_of_thresholds,
)
from nuclr_stream.commands.output import print_json, print_notes, progress_bar
from nuclr_stream.config import parse_priors
from nuclr_stream.errors import ConfigError
from nuclr_stream.outputs.files import refuse_existing
from nuclr_stream.outputs.label import FORMS, checked_outs, label_recording, write_labels
from nuclr_stream.outputs.result import Result
from nuclr_stream.outputs.summary import in_words
from nuclr_stream.placement.report import Reports
from nuclr_stream.recordings.readers import AnyRecording, find_sources, open_recordings
from nuclr_stream.recordings.recorded import Recorded
from nuclr_stream.stream.labeler import Labeler

__all__ = ["label", "label_recording", "write_labels"]

OUT = "What to write, by its ending; may be repeated: " + ", ".join(f"{end} {what}" for end, what in FORMS.items())


def label(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=FILES)],
    out: Annotated[list[Path], typer.Option("--out", help=OUT)],
    bundle: Bundle = "",
    every: Annotated[float | None, typer.Option("--every", help="Also a row at every multiple of it, in s.")] = None,
    hop_s: Annotated[float | None, typer.Option(help="Seconds between windows instead of the bundle's.")] = None,
    half_life_s: Annotated[float | None, typer.Option(help="Seconds of windows after which one counts half.")] = None,
    prior: Annotated[list[str] | None, typer.Option(help="How common a class is, as task.CLASS=weight.")] = None,
    abstain_below: AbstainBelow = None,
    population_by: PopulationBy = "",
    threads: Threads = 0,
    placement: Annotated[Path | None, typer.Option(help="Also write where the units lie by depth, as JSON.")] = None,
    trajectory: Annotated[Path | None, typer.Option(help="A plan to compare with, see docs/outputs.md.")] = None,
    tip_um: Annotated[
        float | None, typer.Option(help="How deep the tip is, for a plan whose depths are from the brain's surface.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Label recordings in process, with the predictions that the daemon would publish."""
    if trajectory is not None and placement is None:
        raise ConfigError(f"--trajectory {trajectory} is compared with what --placement FILE writes; give both")
    checked_outs(out, force=force)  # before minutes of work
    if placement is not None and not force:
        refuse_existing(placement, "--placement")
    model = load_model(bundle, threads=threads)
    priors = parse_priors(prior or ())
    abstain = {} if abstain_below is None else dict.fromkeys(model.task_names, abstain_below)
    warn_of_thresholds(model, abstain)

    def labeler_of(recording: Recorded) -> Labeler:
        units, name = len(recording.unit_ids), recording.recording_id
        return Labeler(
            model,
            stream=name,
            max_units=units,
            hop_s=hop_s,
            half_life_s=half_life_s,
            priors=priors,
            abstain=abstain,
        )

    reports = None if placement is None else Reports(model.manifest, placement, trajectory, tip_um=tip_um)
    recordings, sources = _opened(files, population_by)
    print_notes(recordings)
    results: list[Result] = []
    with progress_bar() as progress:
        tasks = {r.recording_id: progress.add_task(r.recording_id, total=r.duration_s) for r in recordings}
        rows = write_labels(
            recordings,
            labeler_of,
            out,
            every_s=every,
            force=force,
            sources=sources,
            on_window=lambda recording, s: progress.update(tasks[recording.recording_id], completed=s),
            on_end=None if reports is None else reports.add,
            on_result=results.append,
        )
    if reports is not None:
        reports.write([recording.recording_id for recording in recordings])
    console = Console()
    for line in (line for result in results for line in in_words(result)):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    names = [path.name for path in out]
    print_json({"out": names, "recordings": len(recordings), "rows": rows, "bundle": model.bundle_id})


def _opened(files: list[Path], population_by: str) -> tuple[list[AnyRecording], dict[str, Path]]:
    """Every recording of `files`, and the file of each by its id."""
    recordings: list[AnyRecording] = []
    sources: dict[str, Path] = {}
    for file in files:
        found = open_recordings(file, population_by=population_by)
        recordings += found
        places = find_sources(file)
        where = places[0].path if len(places) == 1 else file
        sources |= {recording.recording_id: where for recording in found}
    return recordings, sources
