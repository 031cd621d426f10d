"""Messages -> frames, under the same rules as the way back: what is sent can be read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import WireError
from nuclr_stream.wire.fields import MAX_HEADER_BYTES, MAX_LIST, MAX_TASKS, PROTOCOL_VERSION, Field
from nuclr_stream.wire.frames import DTYPES, check_bytes, check_order, check_stream, check_values, split_names
from nuclr_stream.wire.layout import (
    CLASSES,
    FLIPS,
    LAYOUT_OF_TYPE,
    TASK_ARRAYS,
    TASK_NAME,
    Array,
    Frame,
    Names,
    Parts,
    Tasks,
)
from nuclr_stream.wire.messages import DaemonState, Message, Predictions, StreamState, TaskPredictions


def topic(kind: type[Any], stream: str = "") -> bytes:
    """Return the first frame of messages of this type; without a stream, the prefix to subscribe to for all of them.

    ZeroMQ matches prefixes: a subscription to stream "probe1" delivers "probe10" too.
    """
    return f"{LAYOUT_OF_TYPE[kind].kind}/{stream}".encode()


def encode(message: Message) -> list[bytes]:
    """Return the frames of a message. Arrays must have the declared dtype or convert to it without loss.

    Raises WireError wherever `decode` would.
    """
    layout = LAYOUT_OF_TYPE.get(type(message))
    if layout is None:
        raise WireError("kind", f"{type(message).__name__} is no message")
    stream = check_stream(getattr(message, "stream", ""), layout)
    header: dict[str, Any] = {"v": PROTOCOL_VERSION}
    for field in layout.fields:
        header[field.name] = _plain(field, getattr(message, field.name))
    check_order(header)
    writer = _Writer()
    for spec in layout.frames:
        writer.put(spec, getattr(message, spec.name))
    for size in layout.sizes:
        header[size.name] = size.read(writer.sizes[size.name])
    packed = msgpack.packb(header | writer.header)
    if len(packed) > MAX_HEADER_BYTES:
        raise WireError("size", f"the header has {len(packed)} bytes, at most {MAX_HEADER_BYTES} fit")
    frames = [topic(layout.build, stream), packed, *writer.frames]
    check_bytes(layout, frames)
    return frames


def answering(frames: Sequence[bytes], request_id: int) -> list[bytes]:
    """Return the frames of an encoded reply as the answer to another request: all but its number is as it was."""
    header = msgpack.unpackb(frames[1])
    return [frames[0], msgpack.packb(header | {"request_id": request_id}), *frames[2:]]


def _plain(field: Field, value: Any) -> Any:
    try:
        plain = field.write(value)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise WireError("header", f"{field.name}: {error}") from error
    field.read(plain)
    return plain


def _utf8(value: str, name: str) -> bytes:
    try:
        return value.encode()
    except (UnicodeEncodeError, AttributeError) as error:
        raise WireError("text", f"{name} must be valid Unicode text") from error


class _Writer:
    """Appends one frame after the other; `sizes` are the named lengths found on the way."""

    def __init__(self) -> None:
        self.header: dict[str, Any] = {}
        self.sizes: dict[str, int] = {}
        self.frames: list[bytes] = []

    def put(self, spec: Frame, value: Any) -> None:
        if isinstance(spec, Array):
            self.array(spec, value)
        elif isinstance(spec, Names):
            self.length(spec.name, spec.dim, len(value))
            self.names(spec.name, value)
        elif isinstance(spec, Tasks):
            self.tasks(value)
        elif isinstance(spec, Parts):
            self.parts(value)
        else:
            self.frames.append(_utf8(value, spec.name))

    def length(self, name: str, dim: str, length: int) -> None:
        if self.sizes.setdefault(dim, length) != length:
            raise WireError("size", f"{name} has {length} {dim}, must have {self.sizes[dim]}")

    def array(self, spec: Array, value: npt.ArrayLike) -> None:
        try:
            values = np.asarray(value)
        except ValueError as error:
            raise WireError("header", f"{spec.name} is no array: {error}") from error
        if not np.can_cast(values.dtype, DTYPES[spec.dtype], "safe") or values.ndim != len(spec.dims):
            raise WireError("header", f"{spec.name} must be {spec.dtype} of shape {spec.dims}, got {values.dtype}")
        for dim, length in zip(spec.dims, values.shape, strict=True):
            self.length(spec.name, dim, length)
        values = values.astype(DTYPES[spec.dtype], copy=False)
        if values.size:
            check_values(spec, values.ravel())
        self.frames.append(values.tobytes())

    def names(self, name: str, names: Sequence[str]) -> None:
        parts = [_utf8(text, name) for text in names]
        offsets = np.array([0, *accumulate(map(len, parts))], dtype="<u4")
        data = b"".join(parts)
        split_names(data, offsets, name)
        self.frames += [offsets.tobytes(), data]

    def tasks(self, tasks: Sequence[TaskPredictions]) -> None:
        if len(tasks) > MAX_TASKS:
            raise WireError("size", f"{len(tasks)} tasks, at most {MAX_TASKS} fit")
        self.header["tasks"] = []
        for task in tasks:
            classes = CLASSES.read(len(task.classes))
            self.sizes["classes"] = classes
            fields = {"name": TASK_NAME.read(task.name), "classes": classes, "flips": _plain(FLIPS, task.flips)}
            self.header["tasks"].append(fields)
            self.names("classes", task.classes)
            for spec in TASK_ARRAYS:
                self.array(spec, getattr(task, spec.name))

    def parts(self, messages: Sequence[Predictions | StreamState | DaemonState]) -> None:
        if len(messages) > MAX_LIST:
            raise WireError("size", f"{len(messages)} messages, at most {MAX_LIST} fit")
        parts = [encode(message) for message in messages]
        self.header["parts"] = [len(part) for part in parts]
        self.frames += [frame for part in parts for frame in part]
