"""What encode and decode check alike: the bytes of one frame, and what belongs to a whole message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import WireError
from nuclr_stream.wire.fields import MAX_TEXT_BYTES, reject_control, short_text
from nuclr_stream.wire.layout import Array, Layout

DTYPES = {name: np.dtype(name) for name in ("<i8", "<u4", "<i4", "<f4", "|u1", "|b1")}


def view(data: bytes | memoryview, spec: Array, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the array (`shape`) that the frame `data` holds: a read-only view on it, its values checked."""
    dtype = DTYPES[spec.dtype]
    wanted = dtype.itemsize
    for length in shape:
        wanted *= length
    if len(data) != wanted:
        raise WireError("size", f"{spec.name} {shape} has {len(data)} bytes, must have {wanted}")
    values: npt.NDArray[Any] = np.frombuffer(data, "|u1" if spec.dtype == "|b1" else dtype)
    if wanted:
        check_values(spec, values)
    if spec.dtype == "|b1":
        values = values.view(np.bool_)
    if values.flags.writeable:
        values.flags.writeable = False
    return values if len(shape) == 1 else values.reshape(shape)


def check_values(spec: Array, values: npt.NDArray[Any]) -> None:
    """Raise WireError unless all `values` (N,), N > 0, are finite as declared and within the declared range."""
    if spec.dtype == "<f4":
        wrong = np.isinf(values).any() if spec.nan else not np.isfinite(values).all()
        if wrong:
            raise WireError("nonfinite", f"{spec.name} holds NaN or infinity")
    if spec.low is not None and np.minimum.reduce(values) < spec.low:
        raise WireError("range", f"{spec.name} holds {values.min()}, must be at least {spec.low}")
    if spec.high is not None and np.maximum.reduce(values) > spec.high:
        raise WireError("range", f"{spec.name} holds {values.max()}, must be at most {spec.high}")


def split_names(data: bytes, offsets: npt.NDArray[np.uint32], name: str) -> tuple[str, ...]:
    """Return the U texts between neighbouring `offsets` (U + 1,) of the UTF-8 text `data`, each at most 256 bytes."""
    if offsets[0] != 0 or offsets[-1] != len(data):
        raise WireError("text", f"{name} offsets must run from 0 to {len(data)}")
    if len(offsets) > 1:
        lengths = np.diff(offsets.astype(np.int64))
        if lengths.min() < 0 or lengths.max() > MAX_TEXT_BYTES:
            raise WireError("text", f"{name} offsets must rise by 0 to {MAX_TEXT_BYTES} bytes each")
    ends = pairwise(offsets.tolist())
    try:
        whole = data.decode()
        reject_control(whole, name)
        if len(whole) == len(data):
            return tuple([whole[a:b] for a, b in ends])
        return tuple([data[a:b].decode() for a, b in ends])
    except UnicodeDecodeError as error:
        raise WireError("text", f"{name} are not valid UTF-8") from error


def check_stream(stream: str, layout: Layout) -> str:
    """Return the stream's name if a message of this layout may carry it."""
    if layout.stream == "none" and stream:
        raise WireError("text", f"{layout.kind} messages belong to no stream")
    return short_text(stream, "stream", MAX_TEXT_BYTES, 1 if layout.stream == "must" else 0)


def check_order(values: Mapping[str, Any]) -> None:
    """Raise WireError if a stretch of samples ends before it starts."""
    if "stop" in values and values["start"] > values["stop"]:
        raise WireError("range", f"start {values['start']} lies behind stop {values['stop']}")


def check_bytes(layout: Layout, frames: Sequence[bytes | memoryview]) -> None:
    """Raise WireError if the message is larger than its kind may be."""
    total = sum(map(len, frames))
    if total > layout.limit:
        raise WireError("size", f"{layout.kind} message of {total} bytes, at most {layout.limit} fit")
