"""What travels between sources, the daemon and clients, as frozen values; docs/protocol.md is the same in prose.

Arrays of a decoded message are read-only views on the received frames: copy what outlives the message. Shape letters
are those of `nuclr_stream.windows.binning`; N is spikes of a message, F frames, M rows of a unit
table. A stream is one hardware probe and one population; its name is the probe's id. Sample numbers lie within +-2**53.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array
from nuclr_stream.wire.codes import OOD_FLAGS, Abstained
from nuclr_stream.wire.inspection import InspectReply, InspectRequest

UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]
Int32Array = npt.NDArray[np.int32]
StreamStatus = Literal["ready", "warming_up", "degraded", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHeader:
    """What every message of a source carries.

    `epoch` is chosen by the source, larger is newer (Unix ms when acquisition started, say). `seq` is one counter per
    stream and epoch over all kinds of messages: 0, 1, 2, ... `origin` is the sample at which bin 0 begins, and neither
    it nor `sample_rate` (samples a second, exact) changes within an epoch.
    """

    stream: str
    epoch: int
    seq: int
    sample_rate: Fraction
    origin: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpikeBatch(SourceHeader):
    """All spikes of samples [start, stop): `stop` is the watermark, nothing before it is still to come.

    `samples` (N,) int64 in any order, `units` (N,) uint32 indices given by table `table_version`. That samples lie
    within [start, stop) is for the receiver to check and to count.
    """

    start: int
    stop: int
    table_version: int
    samples: Int64Array
    units: UInt32Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TraceBatch(SourceHeader):
    """Frames [first_frame, first_frame + F) of traces such as calcium; the frame clock is `sample_rate`.

    `units` (U,) uint32 indices given by table `table_version`, `values` (U, F) float32, finite.
    """

    first_frame: int
    table_version: int
    units: UInt32Array
    values: Float32Array

    @property
    def start(self) -> int:
        """The first frame."""
        return self.first_frame

    @property
    def stop(self) -> int:
        """The frame after the last one."""
        return self.first_frame + int(self.values.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitTable(SourceHeader):
    """The units of a stream, whole (`full`: units without a row are retired) or as changes to table `version` - 1.

    It takes effect at `sample`. `continues` counts on the first table of a new epoch only: units keep their exposure
    by unit id. M rows, in order: `action` (M,) uint8 of UnitAction, `index` (M,) uint32 never reused in an epoch,
    `into` (M,) uint32 the target of a merge, else 0, `added` (M,) int64 the sample since which an added unit exists,
    `shank` (M,) int32 (-1 unknown), `x_um` and `depth_um` (M,) float32 (NaN unknown), `channel` (M,) int32
    (-1 unknown), `unit_ids` M names.
    """

    version: int
    full: bool
    sample: int
    continues: bool = False
    action: UInt8Array
    index: UInt32Array
    into: UInt32Array
    added: Int64Array
    shank: Int32Array
    x_um: Float32Array
    depth_um: Float32Array
    channel: Int32Array
    unit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskInterval(SourceHeader):
    """Samples [start, stop) hold no usable data; `cause` is "stimulation", "artefact" or a word of the source's own."""

    start: int
    stop: int
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(SourceHeader):
    """Samples [start, stop) were observed and no unit fired; start == stop says only that the source is alive."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class End(SourceHeader):
    """The stream is complete up to `sample` and nothing follows in this epoch."""

    sample: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskPredictions:
    """One task's answer for the U units of the message around it.

    `classes` C names, `probabilities` (U, C) float32. `sets` (U, C) bool, the classes that the bundle's conformal
    threshold does not rule out; a bundle without one rules out none. `why` (U,) uint8 of Abstained. `stable_since` (U,)
    int64, the device sample at the end of the window since which the top class is the same, -1 for a unit without
    a prediction. `flips` is how many units changed theirs in this step.
    """

    name: str
    classes: tuple[str, ...]
    probabilities: Float32Array
    sets: BoolArray
    why: UInt8Array
    stable_since: Int64Array
    flips: int

    @property
    def abstained(self) -> BoolArray:
        """Of which units (U,) no class is named."""
        abstained: BoolArray = self.why != Abstained.NO
        return abstained


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Everything known about the units of one stream when a window closed.

    `step` counts closed windows of this stream and epoch, skipped ones included; `seq` the messages that the daemon
    published on this stream since it started as `instance` (larger is newer). `end_sample` is the device sample at the
    window's end, `closed_ns` and `published_ns` are CLOCK_MONOTONIC of the daemon's host. `missing` is the fraction of
    the window without data, `skipped_steps` how many steps of this epoch were overtaken by newer ones.

    `unit_index` (U,) uint32, `unit_ids` U names, `windows` (U,) uint32 windows behind the mean, `exposure` (U,) float32
    the same as non-overlapping windows. `ood_score` (U,) float32 is how far a unit is from those of training, its
    largest distance over the bundle's limit: above 1 it is out of distribution, 0 where the bundle sets no limit or
    nothing is known yet. `flags` (U,) uint8 of UnitFlag.
    """

    stream: str
    epoch: int
    step: int
    seq: int = 0
    instance: int = 0
    end_sample: int
    sample_rate: Fraction
    origin: int
    closed_ns: int
    published_ns: int = 0
    state: StreamStatus
    reasons: tuple[str, ...] = ()
    missing: float
    active_units: int
    skipped_steps: int
    bundle: str
    hop_s: float
    window_s: float
    unit_index: UInt32Array
    unit_ids: tuple[str, ...]
    windows: UInt32Array
    exposure: Float32Array
    ood_score: Float32Array
    flags: UInt8Array
    tasks: tuple[TaskPredictions, ...]

    @property
    def out_of_distribution(self) -> BoolArray:
        """Which units (U,) are unlike those of training in any respect that the flags name."""
        out_of_distribution: BoolArray = (self.flags & np.uint8(OOD_FLAGS)) != 0
        return out_of_distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """How one stream is doing; published once a second or so, and on change.

    `progress` is 0 to 1 towards the first window, `step`, `skipped_steps` and `end_sample` are those of the last
    predictions (step -1 before them), `watermark` is the sample up to which data are complete, `counters` whatever was
    received, dropped or repaired, by reason.
    """

    stream: str
    epoch: int
    instance: int = 0
    state: StreamStatus
    reasons: tuple[str, ...] = ()
    progress: float
    units: int
    step: int
    end_sample: int
    watermark: int
    skipped_steps: int
    counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonState:
    """How the daemon is doing; `counters` are those that belong to no stream, such as malformed messages by reason."""

    instance: int
    uptime_s: float
    provider: str
    bundle: str
    streams: tuple[str, ...]
    counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something happened: `kind` is one word ("new_epoch", "gap", "ended", "units_changed", "bye", "reload", ...).

    `stream` is empty for what concerns the whole daemon; `monotonic_ns` is CLOCK_MONOTONIC of the daemon's host.
    """

    stream: str
    kind: str
    detail: str = ""
    epoch: int = 0
    sample: int = 0
    monotonic_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFired:
    """A rule of the daemon's config fired, once for its subject in this epoch: `event_id` never comes twice.

    `subject` is the id of a unit, "shank 0" or empty, `value` its probability or number. The window is that of `step`,
    ending with `end_sample`; `closed_ns` and `fired_ns` are CLOCK_MONOTONIC of the daemon's host when its last bin
    closed, and when the event was handed to the socket and to the sinks.
    """

    stream: str
    event_id: str
    rule: str
    subject: str = ""
    value: float
    epoch: int
    step: int
    end_sample: int
    closed_ns: int
    fired_ns: int

    @property
    def latency_s(self) -> float:
        """Seconds from the close of the last bin to the event."""
        return (self.fired_ns - self.closed_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRequest:
    """Ask for the last predictions and states of `stream`, or of all streams and the daemon when it is empty."""

    request_id: int
    stream: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsRequest:
    """Ask for the embeddings of the named units of `stream`; no names ask for all of them."""

    request_id: int
    stream: str
    unit_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbedWindowRequest:
    """Ask for the embedding of one window: `counts` (U, T) float32, finite, not negative, T bins of the bundle.

    It is computed when no live step waits. After `within_ms` (from its arrival; 0: never) the error is "expired".
    """

    request_id: int
    counts: Float32Array
    within_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRequest:
    """Ask for the daemon's status, the same JSON document as HTTP /status."""

    request_id: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacementRequest:
    """Ask where the units of `stream` lie along the probe, by the classes of `task`.

    `regions` R names with `from_um` and `to_um` (R,) float32 are a planned trajectory to compare with, if any.
    `within_ms` is as for `EmbedWindowRequest`.
    """

    request_id: int
    stream: str
    task: str = "brain_region"
    within_ms: int = 0
    regions: tuple[str, ...] = ()
    from_um: Float32Array = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    to_um: Float32Array = field(default_factory=lambda: np.zeros(0, dtype=np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """Ask what has arrived of `stream`: its source sends again what has not, after a crash or a lost connection."""

    request_id: int
    stream: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SnapshotReply:
    """Everything now. Drop predictions that arrive with the same `instance` and a `seq` not above the one in here."""

    request_id: int
    messages: tuple[Predictions | StreamState | DaemonState, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbeddingsReply:
    """Embeddings of the units that are known, in the order asked for; units without a window yet are left out.

    `unit_ids` U names, `windows` (U,) uint32, `mean` and `last` (U, D) float32: the running mean over all windows and
    the embedding of the last window in which the unit was active, up to device sample `end_sample`.
    """

    request_id: int
    stream: str
    epoch: int
    end_sample: int
    unit_ids: tuple[str, ...]
    windows: UInt32Array
    mean: Float32Array
    last: Float32Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbedWindowReply:
    """`embedding` (U, D) float32 of the window that was sent; zeros for units that did not fire in it."""

    request_id: int
    embedding: Float32Array


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReply:
    """`status` is a JSON document."""

    request_id: int
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementReply:
    """`placement` is a JSON document: segments and borders of every shank, the region at the depth of every unit."""

    request_id: int
    stream: str
    placement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedReply:
    """What has arrived of a stream: of `epoch` every message before `next_seq`, but those that were lost on the way.

    `known` is false for a stream of which this daemon, started as `instance`, has nothing. `watermark` is the sample up
    to which data are applied, 0 before any.
    """

    request_id: int
    stream: str
    instance: int
    known: bool
    epoch: int = 0
    next_seq: int = 0
    watermark: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    """The request could not be served: `reason` is one stable word, `detail` says it for people."""

    request_id: int
    reason: str
    detail: str = ""


Input = SpikeBatch | TraceBatch | UnitTable | MaskInterval | Heartbeat | End
Output = Predictions | StreamState | DaemonState | Event | RuleFired
Request = (
    SnapshotRequest
    | EmbeddingsRequest
    | EmbedWindowRequest
    | StatusRequest
    | PlacementRequest
    | ReceivedRequest
    | InspectRequest
)
Reply = (
    SnapshotReply
    | EmbeddingsReply
    | EmbedWindowReply
    | StatusReply
    | PlacementReply
    | ReceivedReply
    | InspectReply
    | ErrorReply
)
Message = Input | Output | Request | Reply
