"""`nuclr-stream records`: the file of `serve --record` as CSV or as lines of JSON."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from nuclr_stream.outputs.rows import TASK_COLUMNS, UNIT_COLUMNS, Row, task_columns, unit_columns
from nuclr_stream.daemon.records import read_records
from nuclr_stream.errors import ConfigError
from nuclr_stream.wire import Predictions

WINDOW_COLUMNS = ("stream", "epoch", "step", "end_sample", "time_s", "state", "reasons", "missing", "bundle")


def records(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What serve --record wrote.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="A row per window, unit and task.")] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="A line of JSON per window, with all its units.")] = False,
) -> None:
    """Write recorded predictions to stdout, in the order in which they were published."""
    if as_csv == as_jsonl:
        raise ConfigError("records: say --csv or --jsonl")
    (write_csv if as_csv else write_jsonl)(file, sys.stdout)


def write_csv(file: Path, out: TextIO) -> None:
    """Write a row per window, unit and task; without readouts a row per window and unit.

    The file is read twice, for its classes and for its rows: a record goes on over restarts with other bundles, and
    may be larger than memory. Raises NuclrStreamError for a file that is no record.
    """
    classes = dict.fromkeys(f"p_{c}" for one in _predictions(file) for task in one.tasks for c in task.classes)
    columns = [*WINDOW_COLUMNS, "unit_id", *TASK_COLUMNS, *UNIT_COLUMNS, *classes]
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for one in _predictions(file):
        window = _window_columns(one)
        for u in range(len(one.unit_ids)):
            unit = window | unit_columns(one, u)
            for task in [task_columns(task, u, one.sample_rate) for task in one.tasks] or [{}]:
                writer.writerow(unit | task)


def write_jsonl(file: Path, out: TextIO) -> None:
    """Write a line per window: its columns, the daemon's numbers and times, and its units with their tasks."""
    for one in _predictions(file):
        document: dict[str, Any] = _window_columns(one) | {
            "reasons": list(one.reasons),
            "seq": one.seq,
            "instance": one.instance,
            "closed_ns": one.closed_ns,
            "published_ns": one.published_ns,
            "skipped_steps": one.skipped_steps,
            "active_units": one.active_units,
            "units": [
                unit_columns(one, u) | {"tasks": [task_columns(task, u, one.sample_rate) for task in one.tasks]}
                for u in range(len(one.unit_ids))
            ],
        }
        out.write(json.dumps(document) + "\n")


def _predictions(file: Path) -> Iterator[Predictions]:
    return (message for message in read_records(file) if isinstance(message, Predictions))


def _window_columns(one: Predictions) -> Row:
    return {
        "stream": one.stream,
        "epoch": one.epoch,
        "step": one.step,
        "end_sample": one.end_sample,
        "time_s": float(one.end_sample / one.sample_rate),
        "state": one.state,
        "reasons": "|".join(one.reasons),
        "missing": one.missing,
        "bundle": one.bundle,
    }
