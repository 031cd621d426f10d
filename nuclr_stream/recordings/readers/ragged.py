"""Ragged columns of an HDF5 table: the values of all rows one after another, and where each row's part ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers.hdf5 import numbers
from nuclr_stream.windows.binning import Int64Array

if TYPE_CHECKING:
    import h5py


def ends_of(table: h5py.Group, name: str, rows: int, where: str) -> Int64Array:
    """End of each row's part of column `name` (rows,). Raises RecordingError when its index does not fit the column."""
    index = numbers(table, f"{name}_index", where).astype(np.int64)
    total = len(table[name])
    if index.shape != (rows,) or (np.diff(index, prepend=0) < 0).any() or (rows and index[-1] != total):
        raise RecordingError(
            f"{where}: field {table.name}/{name}_index does not divide the {total} values of {table.name}/{name} among "
            f"{rows} rows; the file is damaged: write or download it again"
        )
    return index
