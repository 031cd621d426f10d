"""Plain arrays of a .npz: what a member announces is compared with what it holds before any use.

numpy allocates what a header announces before it reads on, and a header may announce terabytes. Here a member is
unpacked to no more than its stated size, and its header must account for exactly those bytes. Bundles and recordings
are read by this one function: both come from somewhere else.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

NUMBERS = "biuf"
"""Kinds of numpy: booleans, integers, floats."""
NUMBERS_AND_TEXT = NUMBERS + "SU"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError),
    *(NotImplementedError, RuntimeError),  # a compression or an encryption that zipfile cannot undo
    *(SyntaxError, tokenize.TokenError, TypeError, MemoryError),  # a header that is no literal of Python
)
_CHUNK = 2**24


class TooLargeError(ValueError):
    """A file unpacks to more than is read."""


def plain_arrays(
    file: Path | IO[bytes], name: str, *, most_bytes: int, most_arrays: int, kinds: str = NUMBERS
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a .npz, of any shape, by name.

    Args:
        file: its path, or itself.
        name: what errors call it.
        most_bytes: how much it may unpack to.
        most_arrays: how many members it may have.
        kinds: the kinds of numpy that its arrays may have.

    Raises ValueError naming the file when it is no .npz, holds anything else or is damaged, TooLargeError when it is
    larger than allowed, which is known before anything is unpacked.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if len(members) > most_arrays or unpacked > most_bytes:
                raise TooLargeError(
                    f"{name}: unpacks to {unpacked} bytes in {len(members)} arrays, "
                    f"more than {most_bytes} bytes or {most_arrays} arrays"
                )
            return {member.filename.removesuffix(".npy"): _array(archive, member, kinds) for member in members}
    except TooLargeError:
        raise
    except _DAMAGES as error:
        raise ValueError(f"{name}: not a readable .npz of plain arrays ({error or type(error).__name__})") from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, kinds: str) -> npt.NDArray[Any]:
    """Return the array that a .npy member holds. Raises ValueError unless its header accounts for every byte."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename}: .npy version {version}")
        shape, fortran_order, dtype = _HEADERS[version](file)
        # Objects are pickles, which run what they hold; text of no width announces any number of elements in no bytes.
        if dtype.kind not in kinds or not dtype.itemsize:
            raise ValueError(
                f"{member.filename}: type {dtype}, not plain numbers" + (" or text" if "U" in kinds else "")
            )
        # What really is there decides how much memory is taken: the directory of an archive can lie about sizes too.
        content = bytearray()
        while chunk := file.read(_CHUNK):
            content += chunk
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{member.filename}: announces {dtype} {shape}, holds {len(content)} bytes")
    return np.ndarray(shape, dtype, buffer=content, order="F" if fortran_order else "C")
