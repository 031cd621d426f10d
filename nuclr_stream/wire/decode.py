"""Frames -> messages. Every frame is untrusted: whoever can reach the port can send any bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from nuclr_stream.errors import WireError
from nuclr_stream.wire.fields import (
    MAX_FRAMES,
    MAX_HEADER_BYTES,
    MAX_LIST,
    MAX_TASKS,
    MAX_TEXT_BYTES,
    MAX_TOPIC_BYTES,
    PROTOCOL_VERSION,
    integer,
    mistyped,
)
from nuclr_stream.wire.frames import check_bytes, check_order, check_stream, split_names, view
from nuclr_stream.wire.layout import (
    CLASSES,
    FLIPS,
    IN_SNAPSHOT,
    INPUTS,
    LAYOUT_OF_KIND,
    OFFSETS,
    TASK_ARRAYS,
    TASK_NAME,
    Array,
    Frame,
    Layout,
    Names,
    Parts,
    Tasks,
)
from nuclr_stream.wire.messages import DaemonState, Message, Predictions, StreamState, TaskPredictions

_INPUT_KINDS = frozenset(layout.kind for layout in INPUTS)
_FRAMES_OF_PART = integer("parts", 2, MAX_FRAMES, "frames")


def decode(frames: Sequence[bytes | memoryview]) -> Message:
    """Return the message that these frames hold. Its arrays are read-only views on the frames: no array is copied.

    Raises WireError, its reason one of `REASONS`, and nothing else whatever bytes come in.
    """
    if not 2 <= len(frames) <= MAX_FRAMES:
        raise WireError("frames", f"{len(frames)} frames, must be 2 to {MAX_FRAMES}")
    layout, stream = _topic(frames[0])
    check_bytes(layout, frames)
    header = _header(frames[1], layout)
    values: dict[str, Any] = {} if layout.stream == "none" else {"stream": stream}
    try:
        for name, read, _ in layout.fields:
            values[name] = read(header[name])
        sizes = {size.name: size.read(header[size.name]) for size in layout.sizes}
    except KeyError as error:
        raise WireError("header", f"{error.args[0]} is missing") from error
    check_order(values)
    reader = _Reader(header, sizes, frames)
    for spec in layout.frames:
        values[spec.name] = reader.take(spec)
    if reader.position != len(frames):
        raise WireError("frames", f"{len(frames)} frames, must be {reader.position}")
    message: Message = layout.build(**values)
    return message


def input_stream(topic: bytes) -> str:
    """Return the stream that a source's message with this first frame belongs to, before anything else of it is read.

    Raises WireError as `decode` would: for what is no topic, and for one that no source may send.
    """
    layout, stream = _topic(topic)
    if layout.kind not in _INPUT_KINDS:
        raise WireError("kind", f"{layout.kind} is no message of a source")
    return stream


def _topic(frame: bytes | memoryview) -> tuple[Layout, str]:
    if len(frame) > MAX_TOPIC_BYTES:
        raise WireError("kind", f"the topic has {len(frame)} bytes")
    kind, slash, name = bytes(frame).partition(b"/")
    layout = LAYOUT_OF_KIND.get(kind)
    if layout is None or not slash:
        raise WireError("kind", "the topic names no known kind of message")
    try:
        return layout, check_stream(name.decode(), layout)
    except UnicodeDecodeError as error:
        raise WireError("text", "the stream is not valid UTF-8") from error


def _header(frame: bytes | memoryview, layout: Layout) -> dict[str, Any]:
    if len(frame) > MAX_HEADER_BYTES:
        raise WireError("size", f"the header has {len(frame)} bytes, at most {MAX_HEADER_BYTES} fit")
    try:
        header = msgpack.unpackb(
            frame,
            raw=False,
            strict_map_key=True,
            max_array_len=MAX_LIST,
            max_map_len=MAX_LIST,
            max_str_len=MAX_TEXT_BYTES,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError("header", f"not msgpack within the bounds: {type(error).__name__}") from error
    if type(header) is not dict:
        raise mistyped("the header", "a map", header)
    version = header.get("v")
    if type(version) is not int or version != PROTOCOL_VERSION:
        other = version if type(version) is int else type(version).__name__
        raise WireError(
            "version", f"{layout.kind} of version {other}; this side has version {PROTOCOL_VERSION}: use one release"
        )
    return header


class _Reader:
    """Takes one frame after the other; `sizes` are the named lengths that the header declared."""

    def __init__(self, header: dict[str, Any], sizes: dict[str, int], frames: Sequence[bytes | memoryview]) -> None:
        self.header = header
        self.sizes = sizes
        self.frames = frames
        self.position = 2

    def next(self) -> bytes | memoryview:
        if self.position >= len(self.frames):
            raise WireError("frames", f"{len(self.frames)} frames are too few")
        self.position += 1
        return self.frames[self.position - 1]

    def take(self, spec: Frame) -> Any:
        if isinstance(spec, Array):
            return view(self.next(), spec, tuple([self.sizes[dim] for dim in spec.dims]))
        if isinstance(spec, Names):
            return self.names(spec.name, self.sizes[spec.dim])
        if isinstance(spec, Tasks):
            return tuple([self.task(entry) for entry in self.entries("tasks", MAX_TASKS)])
        if isinstance(spec, Parts):
            return tuple([self.part(entry) for entry in self.entries("parts", MAX_LIST)])
        try:
            return str(self.next(), "utf-8")
        except UnicodeDecodeError as error:
            raise WireError("text", f"{spec.name} is not valid UTF-8") from error

    def names(self, name: str, count: int) -> tuple[str, ...]:
        offsets = view(self.next(), OFFSETS, (count + 1,))
        return split_names(bytes(self.next()), offsets, name)

    def entries(self, name: str, limit: int) -> list[Any]:
        entries = self.header.get(name)
        if type(entries) is not list:
            raise mistyped(name, "a list", entries)
        if len(entries) > limit:
            raise WireError("size", f"{name} has {len(entries)} entries, at most {limit} fit")
        return entries

    def task(self, entry: Any) -> TaskPredictions:
        if type(entry) is not dict:
            raise mistyped("a task", "a map", entry)
        name, classes, flips = [field.read(entry.get(field.name)) for field in (TASK_NAME, CLASSES, FLIPS)]
        names = self.names("classes", classes)
        shape = (self.sizes["units"], classes)
        arrays = {spec.name: view(self.next(), spec, shape[: len(spec.dims)]) for spec in TASK_ARRAYS}
        return TaskPredictions(name=name, classes=names, flips=flips, **arrays)

    def part(self, entry: Any) -> Predictions | StreamState | DaemonState:
        start = self.position
        self.position += _FRAMES_OF_PART.read(entry)
        if self.position > len(self.frames):
            raise WireError("frames", "parts have more frames than the message")
        if bytes(self.frames[start][:16]).partition(b"/")[0] not in IN_SNAPSHOT:
            raise WireError("kind", "this kind of message cannot be part of a snapshot")
        message = decode(self.frames[start : self.position])
        assert isinstance(message, Predictions | StreamState | DaemonState)
        return message
