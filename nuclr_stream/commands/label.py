"""`nuclr-stream label`: predictions for recordings on disk, by the Labeler that runs live, as rows of a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

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
from nuclr_stream.commands.rows import TASK_COLUMNS, UNIT_COLUMNS, Row, task_columns, unit_columns
from nuclr_stream.config import parse_priors
from nuclr_stream.errors import ConfigError, NuclrStreamError, RecordingError
from nuclr_stream.placement.report import Reports
from nuclr_stream.prediction.stability import NEVER
from nuclr_stream.recordings.readers import open_recordings
from nuclr_stream.recordings.recorded import Recorded
from nuclr_stream.recordings.recording import Recording, require_fit
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.stream.labeler import Labeler, Labelled
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.windows.binning import Float32Array, grid_of, rational
from nuclr_stream.wire import Abstained, Predictions, TaskPredictions

LabelerOf = Callable[[Recording | TraceRecording], Labeler]
"""Makes the Labeler of a recording, with whatever options it shall have."""
OnEnd = Callable[[Predictions, Mapping[str, Float32Array]], None]

HEAD = ("recording_id", "unit_id", "task", "time_s", "final", *TASK_COLUMNS[1:], *UNIT_COLUMNS)
_REASONS = {
    Abstained.NO: "",
    Abstained.NO_DATA: "no window yet",
    Abstained.LOW_PROBABILITY: "probability below the abstention threshold",
    Abstained.OUT_OF_DISTRIBUTION: "unlike the units of training, see flags",
    Abstained.SMALL_POPULATION: "population below minimum",
    Abstained.NONFINITE: "the readout gave no number",
}


def label(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=FILES)],
    out: Annotated[Path, typer.Option("--out", help="The CSV file to write.")],
    bundle: Bundle = "",
    every: Annotated[float | None, typer.Option("--every", help="Also a row at every multiple of it, in s.")] = None,
    hop_s: Annotated[float | None, typer.Option(help="Seconds between windows instead of the bundle's.")] = None,
    half_life_s: Annotated[float | None, typer.Option(help="Seconds of windows after which one counts half.")] = None,
    prior: Annotated[list[str] | None, typer.Option(help="How common a class is, as task.CLASS=weight.")] = None,
    abstain_below: AbstainBelow = None,
    population_by: PopulationBy = "",
    threads: Threads = 0,
    placement: Annotated[Path | None, typer.Option(help="Also write where the units lie by depth, as JSON.")] = None,
    trajectory: Annotated[
        Path | None, typer.Option(help="A plan to compare with: a CSV file with region, from_um, to_um.")
    ] = None,
) -> None:
    """Label recordings in process, with the predictions that the daemon would publish."""
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

    reports = None if placement is None else Reports(model.manifest, placement, trajectory)
    if trajectory is not None and reports is None:
        raise ConfigError(f"--trajectory {trajectory} is compared with what --placement FILE writes; give both")
    recordings = [recording for file in files for recording in open_recordings(file, population_by=population_by)]
    print_notes(recordings)
    with progress_bar() as progress:
        tasks = {r.recording_id: progress.add_task(r.recording_id, total=r.duration_s) for r in recordings}
        rows = write_labels(
            recordings,
            labeler_of,
            out,
            every_s=every,
            on_window=lambda recording, s: progress.update(tasks[recording.recording_id], completed=s),
            on_end=None if reports is None else reports.add,
        )
    if reports is not None:
        reports.write([recording.recording_id for recording in recordings])
    print_json({"out": out.name, "recordings": len(recordings), "rows": rows, "bundle": model.bundle_id})


def write_labels(
    recordings: Sequence[Recording | TraceRecording],
    labeler_of: LabelerOf,
    out: Path,
    *,
    every_s: float | None = None,
    on_window: Callable[[Recorded, float], None] = lambda _recording, _seconds: None,
    on_end: OnEnd | None = None,
) -> int:
    """Write the rows of all recordings to `out` as CSV and return how many; the file appears whole or not at all.

    Raises NuclrStreamError when it cannot be written, RecordingError for a recording that the bundle cannot take,
    ConfigError for options of a Labeler that it cannot have.
    """
    model = labeler_of(recordings[0]).model  # all of them have one bundle
    classes = dict.fromkeys(f"p_{c}" for name in model.task_names for c in model.task(name).classes)
    columns = list(classes) or [f"e_{d}" for d in range(model.manifest.embedding_dim)]
    temporary = out.with_name(out.name + ".part")
    rows = 0
    try:
        file = temporary.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise NuclrStreamError(f"--out {out}: {error.strerror}; choose another file") from error
    try:
        with file:
            writer = csv.DictWriter(file, [*HEAD, *columns, "reason"], restval="")
            writer.writeheader()
            for recording in recordings:
                labeler = labeler_of(recording)
                for row in label_recording(recording, labeler, every_s=every_s, on_window=on_window, on_end=on_end):
                    writer.writerow(row)
                    rows += 1
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def label_recording(
    recording: Recording | TraceRecording,
    labeler: Labeler,
    *,
    every_s: float | None = None,
    on_window: Callable[[Recorded, float], None] = lambda _recording, _seconds: None,
    on_end: OnEnd | None = None,
) -> Iterator[Row]:
    """Yield a row per unit and task at every multiple of `every_s` seconds, and one with final = 1 at the end.

    Every row holds recording_id, unit_id, task, time_s (from sample 0), final, prediction (the top class, abstained or
    not), probability, set (classes with | between them), abstained, why, stable_since_s, windows,
    exposure, ood_score, flags (words with | between them), reason (why in a sentence) and a p_<class> per
    class of the task; docs/protocol.md says what they mean. Rows before the first window have windows 0, the prior as
    probabilities and no stable_since_s. A bundle without readouts gives a row per unit with no task, and its mean
    embedding as e_0, e_1, ... `labeler` is one that has taken nothing yet. `on_window` is called with the time of every
    window as it is done, `on_end` with the last predictions, if there are any, and where their units are.
    """
    model, most = labeler.model, labeler.population.units.max_units
    require_fit(recording, model.manifest.spec)
    if len(recording.unit_ids) > most:
        raise RecordingError(
            f"{recording.recording_id}: {len(recording.unit_ids)} units; bundle {model.bundle_id} takes at most {most}"
        )
    rate = recording.sample_rate
    wanted = _times(recording, every_s)
    upcoming = next(wanted, None)
    latest: Labelled | None = None
    for message in recording_messages(recording, stream=labeler.stream, block_samples=max(1, int(rate))):
        labeler.push(message)
        while (labelled := labeler.step()) is not None:
            end = labelled.predictions.end_sample / rate
            # what stood at the times asked for before this window ended is what the one before it led to
            while upcoming is not None and upcoming < end:
                yield from _rows(recording, labeler, latest, float(upcoming), final=0)
                upcoming = next(wanted, None)
            latest = labelled
            on_window(recording, float(end))
    while upcoming is not None:
        yield from _rows(recording, labeler, latest, float(upcoming), final=0)
        upcoming = next(wanted, None)
    yield from _rows(recording, labeler, latest, recording.duration_s, final=1)
    if latest is not None and on_end is not None:
        on_end(latest.predictions, labeler.population.units.geometry)


def _times(recording: Recorded, every_s: float | None) -> Iterator[Fraction]:
    """Yield the multiples of `every_s` up to the end of the recording, exactly."""
    if every_s is None:
        return
    try:
        step = rational(every_s)
    except ValueError as error:
        raise RecordingError(f"--every: {error}; it is a positive number of seconds") from error
    for k in range(1, int(recording.num_samples / recording.sample_rate / step) + 1):
        yield k * step


def _rows(
    recording: Recorded, labeler: Labeler, latest: Labelled | None, time_s: float, *, final: int
) -> Iterator[Row]:
    """Yield the rows of one time: those of every task, or the mean embeddings where the bundle has no readouts."""
    common: Row = {"recording_id": recording.recording_id, "time_s": time_s, "final": final}
    names = [str(unit_id) for unit_id in recording.unit_ids]
    nothing: Row = {"windows": 0, "exposure": 0, "ood_score": 0, "flags": ""}
    if latest is None:
        units = [nothing | {"unit_id": name} for name in names]
        tasks = [_before_any_window(labeler, name, len(names)) for name in labeler.model.task_names]
    else:
        units = [unit_columns(latest.predictions, u) for u in range(len(names))]
        tasks = list(latest.predictions.tasks)
    if not labeler.model.task_names:
        for u, unit in enumerate(units):
            yield common | _embedding(recording, labeler, latest, u) | {"unit_id": unit["unit_id"]}
    for task in tasks:
        for u, unit in enumerate(units):
            reason = _reason(recording, labeler, Abstained(task.why[u]))
            yield common | unit | task_columns(task, u, recording.sample_rate) | {"reason": reason}


def _embedding(recording: Recorded, labeler: Labeler, latest: Labelled | None, u: int) -> Row:
    windows = 0 if latest is None else int(latest.predictions.windows[u])
    mean = latest.mean[u] if latest is not None and windows else ()
    reason = "the bundle has no readouts" if windows else _reason(recording, labeler, Abstained.NO_DATA)
    row: Row = {"task": "", "windows": windows, "reason": reason}
    return row | {f"e_{d}": float(value) for d, value in enumerate(mean)}


def _before_any_window(labeler: Labeler, name: str, units: int) -> TaskPredictions:
    """Return what stands for a task before the first window: the class prior, and abstention."""
    classes = labeler.model.task(name).classes
    return TaskPredictions(
        name=name,
        classes=classes,
        probabilities=np.tile(np.array(labeler.priors[name], dtype=np.float32), (units, 1)),
        sets=np.ones((units, len(classes)), dtype=np.bool_),
        why=np.full(units, Abstained.NO_DATA, dtype=np.uint8),
        stable_since=np.full(units, NEVER, dtype=np.int64),
        flips=0,
    )


def _reason(recording: Recorded, labeler: Labeler, why: Abstained) -> str:
    """Say in words why a prediction is abstained from, or that nothing is wrong (empty)."""
    spec = labeler.spec
    if grid_of(recording.sample_rate, spec).complete_bins(recording.num_samples) < spec.bins:
        return f"recording of {recording.duration_s:g} s is shorter than a window of {spec.window_s:g} s"
    return _REASONS[why]
