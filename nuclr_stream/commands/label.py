"""Predictions for recordings on disk, by the very Labeler that runs live, as rows of a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from nuclr_stream.errors import NuclrStreamError, RecordingError
from nuclr_stream.inference.model import Model
from nuclr_stream.prediction.stability import NEVER
from nuclr_stream.recordings.recording import Recorded, Recording, require_fit
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.stream.labeler import Labeler, Labelled
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.windows.binning import Float32Array, grid_of, rational
from nuclr_stream.wire import Abstained, Predictions, TaskPredictions, UnitFlag

Row = dict[str, str | int | float]
Priors = Mapping[str, Mapping[str, float]]
InForce = Mapping[str, tuple[float, ...]]
OnEnd = Callable[[Predictions, Mapping[str, Float32Array]], None]

HEAD = (
    *("recording_id", "unit_id", "task", "time_s", "final"),
    *("prediction", "probability", "set", "abstained", "why", "stable_since_s"),
    *("windows", "effective_sample_size", "ood_score", "flags"),
)
_REASONS = {
    Abstained.NO: "",
    Abstained.NO_DATA: "no window yet",
    Abstained.LOW_PROBABILITY: "probability below the abstention threshold",
    Abstained.OUT_OF_DISTRIBUTION: "unlike the units of training, see flags",
    Abstained.SMALL_POPULATION: "population below minimum",
    Abstained.NONFINITE: "the readout gave no number",
}


def label_recording(
    recording: Recording | TraceRecording,
    model: Model,
    *,
    hop_s: float | None = None,
    every_s: float | None = None,
    half_life_s: float | None = None,
    priors: Priors | None = None,
    on_window: Callable[[float], None] = lambda _seconds: None,
    on_end: OnEnd | None = None,
) -> Iterator[Row]:
    """Yield a row per unit and task at every multiple of `every_s` seconds, and one with final = 1 at the end.

    Every row holds recording_id, unit_id, task, time_s (from sample 0), final, prediction (the top class, abstained or
    not), probability, set (classes with | between them), abstained, why, stable_since_s, windows,
    effective_sample_size, ood_score, flags (words with | between them), reason (why in a sentence) and a p_<class> per
    class of the task; docs/protocol.md says what they mean. Rows before the first window have windows 0, the prior as
    probabilities and no stable_since_s. A bundle without readouts gives a row per unit with no task, and its mean
    embedding as e_0, e_1, ... `half_life_s` and `priors` are those of the Labeler. `on_window` is called with the time
    of every window as it is done, `on_end` with the last predictions, if there are any, and where their units are.
    """
    require_fit(recording, model.manifest.spec)
    most = model.manifest.max_units
    if len(recording.unit_ids) > most:
        raise RecordingError(
            f"{recording.recording_id}: {len(recording.unit_ids)} units; bundle {model.bundle_id} takes at most {most}"
        )
    labeler = Labeler(
        model,
        stream=recording.recording_id,
        hop_s=hop_s,
        max_units=len(recording.unit_ids),
        half_life_s=half_life_s,
        priors=priors,
    )
    rate = recording.sample_rate
    wanted = _times(recording, every_s)
    upcoming = next(wanted, None)
    latest: Labelled | None = None
    for message in recording_messages(recording, stream=recording.recording_id, block_samples=max(1, int(rate))):
        labeler.push(message)
        while (labelled := labeler.step()) is not None:
            end = labelled.predictions.end_sample / rate
            while upcoming is not None and upcoming < end:
                yield from _rows(recording, model, latest, float(upcoming), final=0, priors=labeler.priors)
                upcoming = next(wanted, None)
            latest = labelled
            on_window(float(end))
    while upcoming is not None:
        yield from _rows(recording, model, latest, float(upcoming), final=0, priors=labeler.priors)
        upcoming = next(wanted, None)
    yield from _rows(recording, model, latest, recording.duration_s, final=1, priors=labeler.priors)
    if latest is not None and on_end is not None:
        on_end(latest.predictions, labeler.population.units.geometry)


def write_labels(
    recordings: Sequence[Recording | TraceRecording],
    model: Model,
    out: Path,
    *,
    hop_s: float | None = None,
    every_s: float | None = None,
    half_life_s: float | None = None,
    priors: Priors | None = None,
    on_window: Callable[[Recorded, float], None] = lambda _recording, _seconds: None,
    on_end: OnEnd | None = None,
) -> int:
    """Write the rows of all recordings to `out` as CSV and return how many; the file appears whole or not at all.

    Raises NuclrStreamError when it cannot be written, RecordingError for a recording that the bundle cannot take.
    """
    classes = dict.fromkeys(c for name in model.task_names for c in model.task(name).classes)
    temporary = out.with_name(out.name + ".part")
    rows = 0
    try:
        file = temporary.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise NuclrStreamError(f"--out {out}: {error.strerror}; choose another file") from error
    try:
        with file:
            columns = [f"p_{c}" for c in classes] or [f"e_{d}" for d in range(model.manifest.embedding_dim)]
            writer = csv.DictWriter(file, [*HEAD, *columns, "reason"], restval="")
            writer.writeheader()
            for recording in recordings:

                def tell(seconds: float, recording: Recorded = recording) -> None:
                    on_window(recording, seconds)

                for row in label_recording(
                    recording,
                    model,
                    hop_s=hop_s,
                    every_s=every_s,
                    half_life_s=half_life_s,
                    priors=priors,
                    on_window=tell,
                    on_end=on_end,
                ):
                    writer.writerow(row)
                    rows += 1
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


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
    recording: Recorded, model: Model, latest: Labelled | None, time_s: float, *, final: int, priors: InForce
) -> Iterator[Row]:
    common: Row = {"recording_id": recording.recording_id, "time_s": time_s, "final": final}
    if not model.task_names:
        yield from (common | row for row in _embeddings(recording, model, latest))
        return
    tasks = _before_any_window(recording, model, priors) if latest is None else latest.predictions.tasks
    units = [_unit(recording, latest, u) for u in range(len(recording.unit_ids))]
    for task in tasks:
        for u, unit in enumerate(units):
            answer = _answer(task, u, recording.sample_rate)
            reason = _reason(recording, model, Abstained(task.why[u]))
            yield common | unit | answer | {"reason": reason}


def _unit(recording: Recorded, latest: Labelled | None, u: int) -> Row:
    """Return what is known of a unit whatever the task."""
    if latest is None:
        return {
            "unit_id": str(recording.unit_ids[u]),
            "windows": 0,
            "effective_sample_size": 0,
            "ood_score": 0,
            "flags": "",
        }
    predictions = latest.predictions
    return {
        "unit_id": predictions.unit_ids[u],
        "windows": int(predictions.windows[u]),
        "effective_sample_size": round(float(predictions.effective_sample_size[u]), 3),
        "ood_score": round(float(predictions.ood_score[u]), 3),
        "flags": "|".join(UnitFlag(int(predictions.flags[u])).words),
    }


def _answer(task: TaskPredictions, u: int, sample_rate: Fraction) -> Row:
    """Return what a task says of a unit; stable_since_s is empty without exposure."""
    why, since = Abstained(task.why[u]), int(task.stable_since[u])
    top = int(task.probabilities[u].argmax())
    return {
        "task": task.name,
        "prediction": task.classes[top],
        "probability": round(float(task.probabilities[u, top]), 6),
        "set": "|".join(name for name, inside in zip(task.classes, task.sets[u], strict=True) if inside),
        "abstained": int(why != Abstained.NO),
        "why": why.word,
        "stable_since_s": "" if since == NEVER else float(since / sample_rate),
        **{f"p_{c}": round(float(p), 6) for c, p in zip(task.classes, task.probabilities[u], strict=True)},
    }


def _embeddings(recording: Recorded, model: Model, latest: Labelled | None) -> Iterator[Row]:
    for u, unit_id in enumerate(recording.unit_ids):
        windows = 0 if latest is None else int(latest.predictions.windows[u])
        mean = latest.mean[u] if latest is not None and windows else ()
        row: Row = {"unit_id": str(unit_id), "task": "", "windows": windows}
        reason = "the bundle has no readouts" if windows else _reason(recording, model, Abstained.NO_DATA)
        yield row | {"reason": reason} | {f"e_{d}": float(value) for d, value in enumerate(mean)}


def _before_any_window(recording: Recorded, model: Model, priors: InForce) -> list[TaskPredictions]:
    units = len(recording.unit_ids)
    parts = [model.task(name) for name in model.task_names]
    return [
        TaskPredictions(
            name=part.name,
            classes=part.classes,
            probabilities=np.tile(np.array(priors[part.name], dtype=np.float32), (units, 1)),
            sets=np.ones((units, len(part.classes)), dtype=np.bool_),
            why=np.full(units, Abstained.NO_DATA, dtype=np.uint8),
            stable_since=np.full(units, NEVER, dtype=np.int64),
            flips=0,
        )
        for part in parts
    ]


def _reason(recording: Recorded, model: Model, why: Abstained) -> str:
    """Say in words why a prediction is abstained from, or that nothing is wrong (empty)."""
    spec = model.manifest.spec
    if grid_of(recording.sample_rate, spec).complete_bins(recording.num_samples) < spec.bins:
        return f"recording of {recording.duration_s:g} s is shorter than a window of {spec.window_s:g} s"
    return _REASONS[why]
