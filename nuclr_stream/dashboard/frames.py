"""What the page receives, as bytes: a JSON header and numbers in raw arrays behind it, for a browser to view in place.

| bytes | what |
| --- | --- |
| 0-3 | length of the header, uint32, little-endian like everything |
| 4- | the header: JSON text, padded with spaces so that what follows begins at a multiple of 8 |
| then | the arrays, each from a multiple of 8 on; `arrays` of the header lists name, type, offset and length of each |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

ALIGN = 8
TYPES = {"uint8": "u1", "int32": "i4", "uint32": "u4", "float32": "f4"}
"""Types of arrays that the page knows."""


def pack(kind: str, header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]] | None = None) -> bytes:
    """Return one frame of `kind`. Numbers of the header that are not finite become null: JSON knows no NaN.

    Raises TypeError for an array of another type than `TYPES`.
    """
    chunks, listed, offset = [], [], 0
    for name, array in (arrays or {}).items():
        if array.dtype.name not in TYPES:
            raise TypeError(f"array {name} is {array.dtype.name}; the page knows {', '.join(TYPES)}")
        data = np.ascontiguousarray(array).tobytes()
        listed.append([name, TYPES[array.dtype.name], offset, array.size])
        padding = -len(data) % ALIGN
        chunks.append(data + bytes(padding))
        offset += len(data) + padding
    text = json.dumps({"kind": kind, **plain(dict(header)), "arrays": listed}, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 4) % ALIGN)
    return b"".join([len(text).to_bytes(4, "little"), text, *chunks])


def unpack(frame: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Return header and arrays of a frame, as the page does."""
    length = int.from_bytes(frame[:4], "little")
    header: dict[str, Any] = json.loads(frame[4 : 4 + length])
    start = 4 + length
    arrays = {
        name: np.frombuffer(frame, dtype=f"<{dtype}", count=size, offset=start + offset)
        for name, dtype, offset, size in header.pop("arrays")
    }
    return header, arrays


def plain(value: Any) -> Any:
    """Return `value` with null for every number that is not finite, however deep it lies."""
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def two_bits(counts: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return counts (U, T) up to 3 in two bits each, four bins a byte, the first in the lowest bits; rows are padded.

    A window of 1,000 units and 500 bins is 125 kB this way, and a raster shows no more than "none, one, two, more".
    """
    small = np.minimum(counts, 3)
    small = np.pad(small, ((0, 0), (0, -small.shape[1] % 4))).reshape(len(small), -1, 4)
    packed: npt.NDArray[np.uint8] = (small << np.array([0, 2, 4, 6], dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
    return packed
