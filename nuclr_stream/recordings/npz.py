"""What both .npz layouts share: reading plain arrays of bounded size, exact rates, and writing whole files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.npz import NUMBERS_AND_TEXT, TooLargeError, plain_arrays
from nuclr_stream.windows.binning import rational

MAX_FILE_BYTES = 4 * 2**30
MAX_ARRAYS = 4096
"""Arrays of one file: a unit table has a column each."""

Arrays = dict[str, npt.NDArray[Any]]


def read_arrays(path: Path) -> Arrays:
    """Read every array of a .npz. Raises RecordingError when it is none, or unpacks to more than MAX_FILE_BYTES."""
    if not path.is_file():
        raise RecordingError(f"{path}: no such file")
    try:
        return plain_arrays(path, path.name, most_bytes=MAX_FILE_BYTES, most_arrays=MAX_ARRAYS, kinds=NUMBERS_AND_TEXT)
    except TooLargeError as error:
        raise RecordingError(f"{error}; split the recording") from error
    except ValueError as error:
        raise RecordingError(f"{error}; save it again with numpy.savez_compressed") from error


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write a .npz; the file appears whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    temporary.replace(path)


def integers(values: npt.NDArray[Any], name: str, path: Path) -> npt.NDArray[Any]:
    """Return `values` if they are whole numbers. Raises RecordingError naming file, field and row."""
    if not np.issubdtype(values.dtype, np.integer):
        floating = np.issubdtype(values.dtype, np.floating)
        bad = np.flatnonzero(~np.isfinite(values)) if floating else np.empty(0, dtype=np.int64)
        row = f", NaN or infinite at row {bad[0]}" if bad.size else ""
        raise RecordingError(
            f"{path.name}: field {name} has type {values.dtype}{row}; it must be integer sample numbers"
        )
    return values


def rate_of(arrays: Arrays, name: str, path: Path) -> Fraction:
    """The exact rate in `<name>_ratio` (two integers), else in `<name>_hz`. Raises RecordingError naming the field."""
    try:
        if f"{name}_ratio" in arrays:
            numerator, denominator = (int(v) for v in arrays[f"{name}_ratio"])
            return rational(Fraction(numerator, denominator))
        return rational(float(arrays[f"{name}_hz"]))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise RecordingError(f"{path.name}: field {name}_hz: {error}") from error


def ratio(rate: Fraction) -> npt.NDArray[np.int64]:
    """A rate as the two integers of a `_ratio` field."""
    return np.array([rate.numerator, rate.denominator], dtype=np.int64)
