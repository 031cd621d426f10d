"""A saved state as bytes: plain values and arrays in, one checked blob out. Nothing is pickled.

Format: the 8 bytes b"NUCLRSS1", the CRC-32 of everything behind it and the length of the body, little-endian uint32 and
uint64, then the body: msgpack, arrays and messages of a source as its extension types. Arrays are written in the
narrowest type that holds them exactly, and one column stands for all where they are alike: the sums over pairs of units
are whole numbers, and shrink to a quarter and less.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from nuclr_stream import wire
from nuclr_stream.errors import SnapshotError, WireError

MAGIC = b"NUCLRSS1"
"""Its last digit is the version of the format: a state of another one is not read."""
_HEAD = struct.Struct("<8sIQ")
_ARRAY, _MESSAGE = 1, 2
_DTYPES = tuple(np.dtype(name) for name in ("|b1", "|u1", "<u2", "<u4", "<i4", "<i8", "<f4", "<f8"))
_NARROW = _DTYPES[1:4]
_SHAPE = struct.Struct("<BBB3Q")
"""Type in the file, type in memory, dimensions, shape. One column stands for all where the file's array is narrower."""


def pack(state: Any) -> list[bytes]:
    """Return a state of plain values, arrays of up to 3 dimensions and messages as the parts of a file.

    Raises TypeError for anything else in it.
    """
    body = msgpack.packb(state, default=_extension)
    length = struct.pack("<Q", len(body))
    return [MAGIC + struct.pack("<I", zlib.crc32(body, zlib.crc32(length))) + length, body]


def unpack(content: bytes) -> Any:
    """Return the state that `pack` was given. Raises SnapshotError for what is damaged, cut off or something else."""
    if len(content) < _HEAD.size:
        raise SnapshotError(f"{len(content)} bytes, cut off in the head")
    magic, checksum, length = _HEAD.unpack_from(content)
    if magic != MAGIC:
        raise SnapshotError("it does not begin like a snapshot of this version")
    if length != len(content) - _HEAD.size:
        raise SnapshotError(f"{len(content) - _HEAD.size} bytes behind the head, must be {length}")
    if zlib.crc32(memoryview(content)[12:]) != checksum:
        raise SnapshotError("its checksum does not fit its content")
    try:
        return msgpack.unpackb(content[_HEAD.size :], ext_hook=_value, strict_map_key=False)
    except (ValueError, TypeError, struct.error, msgpack.UnpackException, WireError) as error:
        raise SnapshotError(f"unreadable behind a right checksum ({error})") from error


def _extension(value: Any) -> msgpack.ExtType:
    if isinstance(value, np.ndarray):
        return msgpack.ExtType(_ARRAY, _array(value))
    if isinstance(value, wire.Message):
        frames = wire.encode(value)
        lengths = struct.pack(f"<{len(frames) + 1}I", len(frames), *map(len, frames))
        return msgpack.ExtType(_MESSAGE, lengths + b"".join(frames))
    if isinstance(value, np.generic):
        plain: Any = value.item()
        return plain
    raise TypeError(f"{type(value).__name__} has no place in a snapshot")


def _array(values: npt.NDArray[Any]) -> bytes:
    kept, narrow = values, values
    if not (values.dtype.kind == "f" and np.signbit(values).any()):  # -0.0 equals 0.0 and would become it
        if values.ndim == 2 and values.shape[1] > 1 and (values == values[:, :1]).all():
            kept = values[:, :1]
        narrow = _narrow(kept)
    shape = (*values.shape, 0, 0, 0)[:3]
    one_column = 128 if kept is not values else 0
    head = _SHAPE.pack(_DTYPES.index(narrow.dtype), _DTYPES.index(values.dtype), values.ndim | one_column, *shape)
    return head + narrow.tobytes()


def _narrow(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values in the narrowest unsigned type that holds every one of them exactly, or as they are."""
    if values.dtype.itemsize < 4 or not values.size or not values.min() >= 0 or not values.max() < 2**32:
        return values
    for dtype in _NARROW:
        if values.max() <= np.iinfo(dtype).max:
            narrow = values.astype(dtype)
            return narrow if np.array_equal(narrow, values) else values
    return values


def _value(code: int, data: bytes) -> Any:
    if code == _ARRAY:
        stored, memory, dims, *shape = _SHAPE.unpack_from(data)
        full = tuple(shape[: dims & 127])
        values = np.frombuffer(data, _DTYPES[stored], offset=_SHAPE.size)
        values = np.broadcast_to(values[:, None], full) if dims & 128 else values.reshape(full)
        return values.astype(_DTYPES[memory])  # a copy: it goes on changing
    if code == _MESSAGE:
        (count,) = struct.unpack_from("<I", data)
        place, frames = 4 + 4 * count, []
        for length in struct.unpack_from(f"<{count}I", data, 4):
            frames.append(data[place : place + length])
            place += length
        return wire.decode(frames)
    raise ValueError(f"extension type {code}")
