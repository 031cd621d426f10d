"""Long tables, a row per unit, task and time: CSV, and Parquet with the same columns."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.outputs.rows import Row

ROW_GROUP = 50_000
"""Rows of Parquet that are kept in memory before they are written."""
_TEXT = ("recording_id", "unit_id", "task", "prediction", "set", "why", "flags", "reason")
_TEXT_OF_RECORDS = ("stream", "state", "reasons", "bundle")
_WHOLE = ("final", "abstained", "windows", "epoch", "step", "end_sample")


def needed(module: str, path: Path) -> Any:
    """Return a module that writing `path` needs. Raises NuclrStreamError with what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise NuclrStreamError(
            f"--out {path}: needs {package}, which is not installed ({error}): pip install 'nuclr-stream[outputs]'"
        ) from error


class CsvTable:
    """Rows of a CSV file; what a row does not hold stays empty."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, columns, restval="")
        self._writer.writeheader()

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows."""
        self._writer.writerows(rows)

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._file.close()


class ParquetTable:
    """Rows of a Parquet file; what a row does not hold, and an empty number, is null."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._arrow, parquet = needed("pyarrow", path), needed("pyarrow.parquet", path)
        self._schema = self._arrow.schema([(name, self._type(name)) for name in columns])
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: list[Row] = []

    def _type(self, name: str) -> Any:
        if name in _TEXT or name in _TEXT_OF_RECORDS:
            return self._arrow.string()
        return self._arrow.int64() if name in _WHOLE else self._arrow.float64()

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows."""
        self._rows.extend(rows)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        text = {field.name for field in self._schema if field.type == self._arrow.string()}
        columns = {
            name: [row.get(name, "") if name in text else _number(row.get(name)) for row in self._rows]
            for name in self._schema.names
        }
        self._writer.write_table(self._arrow.table(columns, schema=self._schema))
        self._rows = []


def _number(value: object) -> object:
    return None if value == "" else value


TABLES: dict[str, type[CsvTable] | type[ParquetTable]] = {".csv": CsvTable, ".parquet": ParquetTable}
"""Long tables by the ending of their files."""
