"""What each kind of message is made of: the keys of its header and its frames, in order. docs/protocol.md shows it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from nuclr_stream.windows.binning import MAX_SAMPLE
from nuclr_stream.wire import inspection
from nuclr_stream.wire import messages as m
from nuclr_stream.wire.codes import Abstained, UnitAction
from nuclr_stream.wire.fields import (
    MAX_BINS,
    MAX_CAUSE_BYTES,
    MAX_CLASSES,
    MAX_DIM,
    MAX_LIST,
    MAX_MESSAGE_BYTES,
    MAX_NS,
    MAX_REPLY_BYTES,
    MAX_SPIKES,
    MAX_TRACE_FRAMES,
    MAX_UNITS,
    MAX_WINDOW_BYTES,
    Field,
    choice,
    counters,
    detail,
    flag,
    integer,
    rate,
    real,
    sample,
    text,
    words,
)


class Array(NamedTuple):
    """One frame: little-endian `dtype` of shape `dims`, named sizes of the header, values within [low, high].

    Floats are finite, or NaN where `nan` says so.
    """

    name: str
    dtype: str
    dims: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    nan: bool = False


class Names(NamedTuple):
    """Two frames: byte offsets uint32 (dim + 1,) into the UTF-8 text of the second frame."""

    name: str
    dim: str


class Text(NamedTuple):
    """One frame of UTF-8 text."""

    name: str


class Tasks(NamedTuple):
    """Six frames a task: class names (offsets, text), then TASK_ARRAYS. The header lists name, classes, flips."""

    name: str


class Parts(NamedTuple):
    """Whole messages, one behind the other; the header lists how many frames each has."""

    name: str


Frame = Array | Names | Text | Tasks | Parts


class Layout(NamedTuple):
    """One kind of message. `stream` says whether the topic must, may or must not name one."""

    kind: str
    build: type[Any]
    fields: tuple[Field, ...]
    frames: tuple[Frame, ...] = ()
    sizes: tuple[Field, ...] = ()
    limit: int = MAX_REPLY_BYTES
    stream: Literal["must", "may", "none"] = "must"


def size(name: str, high: int) -> Field:
    """Return a header key that holds a length of arrays."""
    return integer(name, 0, high, "size")


UNITS = size("units", MAX_UNITS)
ROWS = size("rows", MAX_UNITS)
SOURCE = (integer("epoch"), integer("seq"), rate("sample_rate"), sample("origin"))
STRETCH = (sample("start"), sample("stop"))
REQUEST_ID = integer("request_id")
WITHIN = integer("within_ms", 0, 2**31)
STATE = choice("state", ("ready", "warming_up", "degraded", "ended"))
TASK_NAME = text("name", low=1)
TASK_FIELD = text("task", low=1)
CLASSES = size("classes", MAX_CLASSES)
FLIPS = integer("flips", 0, MAX_UNITS)
TASK_ARRAYS = (
    Array("probabilities", "<f4", ("units", "classes"), 0, 1),
    Array("sets", "|b1", ("units", "classes"), 0, 1),
    Array("why", "|u1", ("units",), min(Abstained), max(Abstained)),
    Array("stable_since", "<i8", ("units",), -MAX_SAMPLE, MAX_SAMPLE),
)
MAX_EVENT_ID_BYTES = 1024
"""Bytes of an event's id: rule, stream, epoch and subject."""
OFFSETS = Array("offsets", "<u4", ("names",))
IN_SNAPSHOT = frozenset({b"predictions", b"state", b"daemon"})

INPUTS = (
    Layout(
        "spikes",
        m.SpikeBatch,
        (*SOURCE, *STRETCH, integer("table_version")),
        (Array("samples", "<i8", ("spikes",), -MAX_SAMPLE, MAX_SAMPLE), Array("units", "<u4", ("spikes",))),
        (size("spikes", MAX_SPIKES),),
        MAX_MESSAGE_BYTES,
    ),
    Layout(
        "traces",
        m.TraceBatch,
        (*SOURCE, sample("first_frame"), integer("table_version")),
        (Array("units", "<u4", ("units",)), Array("values", "<f4", ("units", "frames"))),
        (UNITS, size("frames", MAX_TRACE_FRAMES)),
        MAX_MESSAGE_BYTES,
    ),
    Layout(
        "units",
        m.UnitTable,
        (
            *SOURCE,
            integer("version"),
            flag("full"),
            sample("sample"),
            flag("continues"),
        ),
        (
            Array("action", "|u1", ("rows",), min(UnitAction), max(UnitAction)),
            Array("index", "<u4", ("rows",)),
            Array("into", "<u4", ("rows",)),
            Array("added", "<i8", ("rows",), -MAX_SAMPLE, MAX_SAMPLE),
            Array("shank", "<i4", ("rows",), -1, None),
            Array("x_um", "<f4", ("rows",), nan=True),
            Array("depth_um", "<f4", ("rows",), nan=True),
            Array("channel", "<i4", ("rows",), -1, None),
            Names("unit_ids", "rows"),
        ),
        (ROWS,),
        MAX_MESSAGE_BYTES,
    ),
    Layout(
        "mask",
        m.MaskInterval,
        (*SOURCE, *STRETCH, text("cause", MAX_CAUSE_BYTES, low=1)),
        limit=MAX_MESSAGE_BYTES,
    ),
    Layout("heartbeat", m.Heartbeat, (*SOURCE, *STRETCH), limit=MAX_MESSAGE_BYTES),
    Layout("end", m.End, (*SOURCE, sample("sample")), limit=MAX_MESSAGE_BYTES),
)
OUTPUTS = (
    Layout(
        "predictions",
        m.Predictions,
        (
            integer("epoch"),
            integer("step"),
            integer("seq"),
            integer("instance"),
            sample("end_sample"),
            rate("sample_rate"),
            sample("origin"),
            integer("closed_ns", 0, MAX_NS),
            integer("published_ns", 0, MAX_NS),
            STATE,
            words("reasons"),
            real("missing", 0, 1),
            integer("active_units"),
            integer("skipped_steps"),
            text("bundle"),
            real("hop_s"),
            real("window_s"),
        ),
        (
            Array("unit_index", "<u4", ("units",)),
            Names("unit_ids", "units"),
            Array("windows", "<u4", ("units",)),
            Array("exposure", "<f4", ("units",), 0, None),
            Array("ood_score", "<f4", ("units",), 0, None),
            Array("flags", "|u1", ("units",)),
            Tasks("tasks"),
        ),
        (UNITS,),
    ),
    Layout(
        "state",
        m.StreamState,
        (
            integer("epoch"),
            integer("instance"),
            STATE,
            words("reasons"),
            real("progress", 0, 1),
            integer("units"),
            integer("step", -1),
            sample("end_sample"),
            sample("watermark"),
            integer("skipped_steps"),
            counters("counters"),
        ),
    ),
    Layout(
        "daemon",
        m.DaemonState,
        (
            integer("instance"),
            real("uptime_s"),
            text("provider"),
            text("bundle"),
            words("streams"),
            counters("counters"),
        ),
        stream="none",
    ),
    Layout(
        "event",
        m.Event,
        (
            text("kind", low=1),
            detail(),
            integer("epoch"),
            sample("sample"),
            integer("monotonic_ns", 0, MAX_NS),
        ),
        stream="may",
    ),
    Layout(
        "rule",
        m.RuleFired,
        (
            text("event_id", MAX_EVENT_ID_BYTES, low=1),
            text("rule", low=1),
            text("subject"),
            real("value"),
            integer("epoch"),
            integer("step"),
            sample("end_sample"),
            integer("closed_ns", 0, MAX_NS),
            integer("fired_ns", 0, MAX_NS),
        ),
    ),
)
REQUESTS = (
    Layout("snapshot", m.SnapshotRequest, (REQUEST_ID,), limit=MAX_MESSAGE_BYTES, stream="may"),
    Layout(
        "embeddings",
        m.EmbeddingsRequest,
        (REQUEST_ID,),
        (Names("unit_ids", "units"),),
        (UNITS,),
        MAX_MESSAGE_BYTES,
    ),
    Layout(
        "embed_window",
        m.EmbedWindowRequest,
        (REQUEST_ID, WITHIN),
        (Array("counts", "<f4", ("units", "bins"), 0, None),),
        (UNITS, size("bins", MAX_BINS)),
        MAX_WINDOW_BYTES,
        "none",
    ),
    Layout("status", m.StatusRequest, (REQUEST_ID,), limit=MAX_MESSAGE_BYTES, stream="none"),
    Layout(
        "placement",
        m.PlacementRequest,
        (REQUEST_ID, TASK_FIELD, WITHIN),
        (Names("regions", "regions"), Array("from_um", "<f4", ("regions",)), Array("to_um", "<f4", ("regions",))),
        (size("regions", MAX_LIST),),
        MAX_MESSAGE_BYTES,
    ),
    Layout("received", m.ReceivedRequest, (REQUEST_ID,), limit=MAX_MESSAGE_BYTES),
    Layout("activity", inspection.ActivityRequest, (REQUEST_ID, flag("counts")), limit=MAX_MESSAGE_BYTES),
    Layout(
        "evidence",
        inspection.EvidenceRequest,
        (REQUEST_ID,),
        (Names("unit_ids", "units"),),
        (UNITS,),
        MAX_MESSAGE_BYTES,
    ),
)
REPLIES = (
    Layout("snapshot_reply", m.SnapshotReply, (REQUEST_ID,), (Parts("messages"),), stream="none"),
    Layout(
        "embeddings_reply",
        m.EmbeddingsReply,
        (REQUEST_ID, integer("epoch"), sample("end_sample")),
        (
            Names("unit_ids", "units"),
            Array("windows", "<u4", ("units",)),
            Array("mean", "<f4", ("units", "dim")),
            Array("last", "<f4", ("units", "dim")),
        ),
        (UNITS, size("dim", MAX_DIM)),
    ),
    Layout(
        "embed_window_reply",
        m.EmbedWindowReply,
        (REQUEST_ID,),
        (Array("embedding", "<f4", ("units", "dim")),),
        (UNITS, size("dim", MAX_DIM)),
        stream="none",
    ),
    Layout("status_reply", m.StatusReply, (REQUEST_ID,), (Text("status"),), stream="none"),
    Layout("placement_reply", m.PlacementReply, (REQUEST_ID,), (Text("placement"),)),
    Layout(
        "received_reply",
        m.ReceivedReply,
        (
            REQUEST_ID,
            integer("instance"),
            flag("known"),
            integer("epoch"),
            integer("next_seq"),
            sample("watermark"),
        ),
    ),
    Layout(
        "activity_reply",
        inspection.ActivityReply,
        (REQUEST_ID, integer("epoch"), integer("version", -1), sample("end_sample"), real("scale", 0)),
        (
            Array("unit_index", "<u4", ("units",)),
            Array("shank", "<i4", ("units",), -1, None),
            Array("x_um", "<f4", ("units",), nan=True),
            Array("depth_um", "<f4", ("units",), nan=True),
            Array("channel", "<i4", ("units",), -1, None),
            Names("unit_ids", "units"),
            Array("counts", "|u1", ("units", "bins")),
            Array("observed", "|b1", ("bins",), 0, 1),
        ),
        (UNITS, size("bins", MAX_BINS)),
    ),
    Layout("evidence_reply", inspection.EvidenceReply, (REQUEST_ID,), (Text("evidence"),)),
    Layout("error", m.ErrorReply, (REQUEST_ID, text("reason", low=1), detail()), stream="none"),
)
LAYOUTS = (*INPUTS, *OUTPUTS, *REQUESTS, *REPLIES)
LAYOUT_OF_KIND = {layout.kind.encode(): layout for layout in LAYOUTS}
LAYOUT_OF_TYPE: dict[type[Any], Layout] = {layout.build: layout for layout in LAYOUTS}
