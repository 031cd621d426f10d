"""`nuclr-stream records`: the file of `serve --record` as CSV, as lines of JSON, or as Parquet."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer

from nuclr_stream.commands.output import print_json
from nuclr_stream.daemon.records import read_records
from nuclr_stream.errors import ConfigError
from nuclr_stream.outputs.files import new_file
from nuclr_stream.outputs.log import to_line
from nuclr_stream.outputs.rows import TASK_COLUMNS, UNIT_COLUMNS, Row, task_columns, unit_columns
from nuclr_stream.outputs.tables import ParquetTable
from nuclr_stream.wire import Predictions

WINDOW_COLUMNS = ("stream", "epoch", "step", "end_sample", "time_s", "state", "reasons", "missing", "bundle")


def records(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What serve --record wrote.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="A row per window, unit and task.")] = False,
    as_jsonl: Annotated[
        bool, typer.Option("--jsonl", help="A line of JSON per window, which can be replayed.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="A .csv, .parquet or .jsonl file, instead of stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of --out that is there.")] = False,
) -> None:
    """Write recorded predictions in the order in which they were published."""
    if as_csv + as_jsonl + (out is not None) != 1:
        raise ConfigError("records: say --csv or --jsonl for stdout, or --out FILE")
    if out is None:
        (write_csv if as_csv else write_jsonl)(file, sys.stdout)
        return
    if out.suffix not in (".csv", ".jsonl", ".parquet"):
        raise ConfigError(f"--out {out}: the ending says what is written; it is .csv, .parquet or .jsonl")
    with new_file(out, force=force) as temporary:
        if out.suffix == ".parquet":
            _write_parquet(file, temporary)
        else:
            with temporary.open("w", newline="", encoding="utf-8") as opened:
                (write_csv if out.suffix == ".csv" else write_jsonl)(file, opened)
    print_json({"out": out.name})


def write_csv(file: Path, out: TextIO) -> None:
    """Write a row per window, unit and task; without readouts a row per window and unit.

    The file is read twice, for its classes and for its rows: a record goes on over restarts with other bundles, and
    may be larger than memory. Raises NuclrStreamError for a file that is no record.
    """
    writer = csv.DictWriter(out, _columns(file), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(file))


def write_jsonl(file: Path, out: TextIO) -> None:
    """Write a line per window with everything that was published, see `outputs.log`."""
    for one in _predictions(file):
        out.write(to_line(one) + "\n")


def _write_parquet(file: Path, path: Path) -> None:
    table = ParquetTable(path, _columns(file))
    try:
        for row in _rows(file):
            table.write([row])
    finally:
        table.close()


def _columns(file: Path) -> list[str]:
    classes = dict.fromkeys(f"p_{c}" for one in _predictions(file) for task in one.tasks for c in task.classes)
    return [*WINDOW_COLUMNS, "unit_id", *TASK_COLUMNS, *UNIT_COLUMNS, *classes]


def _rows(file: Path) -> Iterator[Row]:
    for one in _predictions(file):
        window = _window_columns(one)
        for u in range(len(one.unit_ids)):
            unit = window | unit_columns(one, u)
            for task in [task_columns(task, u, one.sample_rate) for task in one.tasks] or [{}]:
                yield unit | task


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
