"""What a file or folder holds, and what a training under a config would use of it: plain JSON values, and as lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.recordings.readers import UNKNOWN_SUBJECT, AnyRecording, Source, find_sources
from nuclr_stream.recordings.recording import Recording, recorded_windows
from nuclr_stream.windows.binning import Grid, Int64Array
from offline_training.config import UNLABELLED, TrainConfig
from offline_training.data.binned import bin_recording
from offline_training.data.membership import observed_s, rates_hz, select_units

MAX_VALUES = 40
"""A text column with more values than this is described by their number only."""

Facts = dict[str, Any]


def inspect_path(path: Path, config: TrainConfig, *, population_by: str = "") -> Facts:
    """Everything at `path`: per source its kind and recordings, or the `error` that reading it ends in.

    `population_by` goes before that of the config. Raises RecordingError when there is nothing at all.
    """
    by = population_by or (config.recordings.population_by if config.recordings is not None else "")
    sources = [_source(source, config, by) for source in find_sources(path)]
    seen: dict[str, str] = {}
    for source in sources:
        for recording in source["recordings"]:
            other = seen.setdefault(recording["recording_id"], source["path"])
            if other != source["path"]:
                source["error"] = f"recording_id {recording['recording_id']!r} is that of {other} too; rename one"
    found = [recording for source in sources for recording in source["recordings"]]
    return {
        "path": str(path),
        "config": config.name,
        "sources": sources,
        "recordings": len(found),
        "subjects": sorted({recording["subject_id"] for recording in found}),
        "units": sum(recording["units"] for recording in found),
        "units_used": sum(recording["used"]["units"] for recording in found),
        "windows_usable": sum(recording["used"]["windows"]["usable"] for recording in found),
        "errors": sum("error" in source for source in sources),
    }


def _source(source: Source, config: TrainConfig, population_by: str) -> Facts:
    facts: Facts = {"path": str(source.path), "kind": source.kind, "recordings": []}
    try:
        facts["recordings"] = [_recording(recording, config) for recording in source.read(population_by=population_by)]
    except NuclrStreamError as error:
        facts["error"] = str(error)
    return facts


def _recording(recording: AnyRecording, config: TrainConfig) -> Facts:
    return {
        "recording_id": recording.recording_id,
        "read": list(recording.notes),
        "probe_id": ", ".join(np.unique(recording.units["probe_id"]).astype(str))
        if "probe_id" in recording.units
        else "",
        "subject_id": recording.subject_id,
        "session_date": recording.session_date,
        "sample_rate_hz": float(recording.sample_rate),
        "duration_s": recording.duration_s,
        "observed_s": observed_s(recording),
        "masked_s": float((recording.mask_samples[:, 1] - recording.mask_samples[:, 0]).sum() / recording.sample_rate),
        "units": len(recording.unit_ids),
        **(_spikes(recording) if isinstance(recording, Recording) else {}),
        "columns": {name: _column(values) for name, values in recording.units.items() if values.ndim == 1},
        "used": _used(recording, config),
    }


def _spikes(recording: Recording) -> Facts:
    rates = rates_hz(recording)
    return {
        "spikes": len(recording.spike_samples),
        "rate_hz": [round(float(rate), 3) for rate in (rates.min(), np.median(rates), rates.max())],
        "silent_s": _silent_seconds(recording),
    }


def _silent_seconds(recording: Recording) -> int:
    """Whole seconds from sample 0 that were recorded and in which no unit fired."""
    seconds = Grid(recording.sample_rate, bins_per_second=Fraction(1))
    quiet = np.ones(seconds.complete_bins(recording.num_samples), dtype=bool)
    fired: Int64Array = np.unique(seconds.bin_of(recording.spike_samples))
    quiet[fired[fired < len(quiet)]] = False
    for start, stop in recording.gap_samples.tolist():
        first, last = seconds.bin_of([start, stop - 1]).tolist()
        quiet[max(first, 0) : max(last + 1, 0)] = False
    return int(quiet.sum())


def _column(values: npt.NDArray[Any]) -> Facts:
    """How often each value of a column occurs, or the range of its numbers."""
    if values.dtype.kind in "iuf" and len(values):
        known = values[np.isfinite(values)]
        ends = [float(known.min()), float(known.max())] if known.size else []
        return {"range": ends, "unknown": int(len(values) - len(known))}
    counts = Counter(values.astype(np.str_).tolist())
    return {"values": dict(sorted(counts.items()))} if len(counts) <= MAX_VALUES else {"distinct": len(counts)}


def _used(recording: AnyRecording, config: TrainConfig) -> Facts:
    selected = select_units(recording, config.recordings)
    kept = selected.recording
    facts: Facts = {
        "units": len(kept.unit_ids) if kept else 0,
        "left_out": [{"why": each.why, "units": len(each.unit_ids)} for each in selected.left_out],
        "labels": {},
        "windows": {"total": 0, "excluded": {}, "small": 0, "usable": 0},
        "training_s": 0.0,
        "notes": _notes(recording, kept, config),
    }
    if kept is None:
        return facts
    for task, settings in config.tasks.items():
        labels = settings.labels(kept)
        classes = {name: int((labels == index).sum()) for index, name in enumerate(settings.names)}
        facts["labels"][task] = {"column": settings.column, "classes": classes}
        facts["labels"][task]["context_only"] = int((labels == UNLABELLED).sum())
    facts["windows"] = _windows(kept, config)
    spec = config.window.spec
    if len(kept.unit_ids) >= config.rules.min_population:
        intervals = bin_recording(kept, config).intervals
        facts["training_s"] = float((intervals[:, 1] - intervals[:, 0]).sum() / spec.bins_per_second)
    return facts


def _windows(recording: AnyRecording, config: TrainConfig) -> Facts:
    """How many windows there are, how many are excluded and why, and how many hold too few active units."""
    excluded: Counter[str] = Counter()
    total = small = 0
    for window in recorded_windows(recording, config.window.spec, config.rules.rules):
        total += 1
        if window.exclusion:
            excluded[window.exclusion] += 1
        else:
            small += int(window.active.sum()) < config.rules.min_population
    usable = total - excluded.total() - small
    return {"total": total, "excluded": dict(sorted(excluded.items())), "small": small, "usable": usable}


def _notes(recording: AnyRecording, kept: AnyRecording | None, config: TrainConfig) -> list[str]:
    """What a user would want to know before training."""
    notes = []
    units = len(kept.unit_ids) if kept else 0
    if recording.subject_id == UNKNOWN_SUBJECT:
        notes.append("whose it is, is unknown: such recordings count as one animal")
    if units < config.rules.min_population:
        notes.append(f"{units} units, fewer than rules.min_population = {config.rules.min_population}: not trained on")
    if recording.duration_s < 2 * config.window.spec.window_s + config.training.drop_last_s:
        notes.append(f"shorter than two windows and training.drop_last_s = {config.training.drop_last_s:g}")
    for task, settings in config.tasks.items():
        if settings.column not in recording.units:
            notes.append(f"task {task}: there is no column {settings.column!r}")
    return notes


def in_words(facts: Facts) -> Iterator[str]:
    """The lines that a terminal shows for `inspect_path`."""
    for source in facts["sources"]:
        yield f"{source['path']} ({source['kind']})"
        if "error" in source:
            yield f"  error    {source['error']}"
        for note in dict.fromkeys(note for recording in source["recordings"] for note in recording["read"]):
            yield f"  read     {note}"
        for recording in source["recordings"]:
            yield from _lines(recording)
    yield (
        f"{facts['recordings']} recordings of {len(facts['subjects'])} subjects; under {facts['config']!r} "
        f"{facts['units_used']} of {facts['units']} units and {facts['windows_usable']} windows are used"
    )


def _lines(recording: Facts) -> Iterator[str]:
    used = recording["used"]
    named = [recording["subject_id"], recording["session_date"], recording["probe_id"]]
    yield f"  {recording['recording_id']}: {', '.join(part for part in named if part)}"
    missing_s = recording["duration_s"] - recording["observed_s"]
    yield (
        f"    found    {recording['units']} units; {recording['duration_s']:g} s at {recording['sample_rate_hz']:g}/s, "
        f"{missing_s:g} s of them not recorded, {recording['masked_s']:g} s masked"
    )
    if "spikes" in recording:
        low, median, high = recording["rate_hz"]
        yield (
            f"    spikes   {recording['spikes']}; {low:g} to {high:g} Hz, median {median:g} Hz; "
            f"{recording['silent_s']} s without any"
        )
    for name, column in recording["columns"].items():
        yield f"    column   {name}: {_column_in_words(column)}"
    reasons = "".join(f"; {each['units']} left out: {each['why']}" for each in used["left_out"])
    yield f"    units    {used['units']} used{reasons}"
    for task, labels in used["labels"].items():
        classes = ", ".join(f"{name} {count}" for name, count in labels["classes"].items())
        yield f"    labels   {task} ({labels['column']}): {classes}; {labels['context_only']} context only"
    windows = used["windows"]
    excluded = "".join(f", {count} excluded: {why}" for why, count in windows["excluded"].items())
    small = f", {windows['small']} with too few active units" if windows["small"] else ""
    yield f"    windows  {windows['usable']} of {windows['total']} usable{excluded}{small}"
    yield f"    training {used['training_s']:g} s"
    for note in used["notes"]:
        yield f"    note     {note}"


def _column_in_words(column: Facts) -> str:
    if "values" in column:
        return ", ".join(f"{value or '(empty)'} {count}" for value, count in column["values"].items())
    if "distinct" in column:
        return f"{column['distinct']} different values"
    unknown = f", {column['unknown']} unknown" if column["unknown"] else ""
    return (" to ".join(f"{end:g}" for end in column["range"]) or "no number") + unknown
