"""Arrays of a .npz that travels in a bundle: what a member announces is compared with what it holds before any use.

numpy allocates what a header announces before it reads on, and a header may announce terabytes. Here a member is
unpacked to no more than its stated size, and its header must account for exactly those bytes.
"""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import BundleError

MAX_ARRAYS = 256
"""Members of one file: 16 tasks of 6 predictors need 105."""
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError),
    *(NotImplementedError, RuntimeError),  # a compression or an encryption that zipfile cannot undo
    *(SyntaxError, tokenize.TokenError, TypeError, MemoryError),  # a header that is no literal of Python
)


def plain_arrays(content: bytes, name: str, *, most_bytes: int) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the .npz file `name` with this content, numbers and booleans of any shape, by name.

    Raises BundleError when it is no such file, holds anything else, is damaged, or unpacks to more than `most_bytes`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if len(members) > MAX_ARRAYS or unpacked > most_bytes:
                raise BundleError(
                    f"{name}: unpacks to {unpacked} bytes in {len(members)} arrays, "
                    f"more than {most_bytes} bytes or {MAX_ARRAYS} arrays"
                )
            return {member.filename.removesuffix(".npy"): _array(archive.read(member), member) for member in members}
    except _DAMAGES as error:
        raise BundleError(f"{name}: not a readable .npz of plain arrays ({error or type(error).__name__})") from error


def _array(content: bytes, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """Return the array that a .npy file holds. Raises ValueError unless its header accounts for every byte."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"{member.filename}: .npy version {version}")
    shape, fortran_order, dtype = _HEADERS[version](file)
    if dtype.kind not in "biuf":
        raise ValueError(f"{member.filename}: type {dtype}, not plain numbers")
    held = len(content) - file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"{member.filename}: announces {dtype} {shape}, holds {held} bytes")
    values = np.frombuffer(content, dtype, offset=file.tell())
    return values.reshape(shape, order="F" if fortran_order else "C").copy()
