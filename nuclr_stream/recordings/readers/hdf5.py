"""What both HDF5 readers need: opening without surprises, and datasets as plain arrays of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.npz import MAX_FILE_BYTES

if TYPE_CHECKING:
    import h5py

MAGIC = b"\x89HDF\r\n\x1a\n"


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file for reading. Raises RecordingError when h5py is missing or the file is damaged, there or later."""
    library = h5py_or_error(path)
    try:
        with library.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        # The library reports damage as any of these, also while a dataset is read.
        reason = " ".join(str(error).split())
        raise RecordingError(
            f"{path.name}: not a whole HDF5 file ({reason}); it is truncated or damaged: copy or download it again"
        ) from error


def h5py_or_error(path: Path) -> ModuleType:
    """The h5py library. Raises RecordingError naming the extra to install."""
    try:
        import h5py
    except ImportError as error:
        raise RecordingError(
            f"{path.name}: is HDF5, which needs h5py; install it with: pip install 'nuclr-stream[readers]'"
        ) from error
    module: ModuleType = h5py
    return module


def values_of(dataset: h5py.Dataset, where: str) -> npt.NDArray[Any] | None:
    """A dataset as numbers, booleans or text; None for anything else (references, structures).

    Raises RecordingError when it declares more than MAX_FILE_BYTES: sparse files can claim any size.
    """
    import h5py

    if dataset.size * dataset.dtype.itemsize > MAX_FILE_BYTES:
        size = dataset.size * dataset.dtype.itemsize
        raise RecordingError(f"{where}: {dataset.name} holds {size} bytes, more than {MAX_FILE_BYTES}; split the file")
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.array(dataset.asstr(errors="replace")[()], dtype=np.str_)
    if dataset.dtype.kind in "biuf":
        return np.asarray(dataset[()])
    return None


def members(group: h5py.Group) -> Iterator[tuple[str, Any]]:
    """Names and objects of a group, broken links left out."""
    return ((name, item) for name, item in group.items() if item is not None)


def is_dataset(item: object) -> bool:
    """Whether something found in a file is a dataset: not a group, not a named type, not nothing."""
    import h5py

    return isinstance(item, h5py.Dataset)


def required(group: h5py.Group, name: str, where: str) -> npt.NDArray[Any]:
    """The numbers or text of a dataset that must be there. Raises RecordingError naming it."""
    dataset = group.get(name)
    values = values_of(dataset, where) if is_dataset(dataset) else None
    if values is None:
        raise RecordingError(f"{where}: field {group.name.rstrip('/')}/{name} is missing; this is no such recording")
    return values


def numbers(group: h5py.Group, name: str, where: str) -> npt.NDArray[Any]:
    """Like `required`, of numbers."""
    values = required(group, name, where)
    if values.dtype.kind not in "iuf":
        raise RecordingError(f"{where}: field {group.name}/{name} has type {values.dtype}; it must be numbers")
    return values


def text_of(group: h5py.Group | None, name: str) -> str:
    """A scalar text of a group, stored as a dataset or an attribute; empty when there is none."""
    if group is None:
        return ""
    value = group[name][()] if is_dataset(group.get(name)) else group.attrs.get(name, "")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def table_columns(group: h5py.Group, rows: int, where: str) -> dict[str, npt.NDArray[Any]]:
    """Every column of a table with one plain value a row, by name; ragged and many-dimensional ones are left out."""
    found = {}
    for name, dataset in members(group):
        ragged = name.endswith("_index") or f"{name}_index" in group
        refers = dataset.attrs.get("neurodata_type") == "DynamicTableRegion"
        if name == "id" or ragged or refers or getattr(dataset, "shape", None) != (rows,):
            continue
        values = values_of(dataset, where)
        if values is not None:
            found[name] = values
    return found
