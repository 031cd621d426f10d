"""Requests about units, and their replies: where they lie and what they did, and what their predictions rest on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nuclr_stream.windows.binning import BoolArray, Float32Array


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityRequest:
    """Ask for the units of `stream` as the table has them now; with `counts` also for the last window of each."""

    request_id: int
    stream: str
    counts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivityReply:
    """The units of a stream by ascending index, and the counts of the last labelled window.

    `version` is that of the unit table (-1 before one), `unit_index` (U,) uint32, `shank` and `channel` (U,) int32 (-1
    unknown), `x_um` and `depth_um` (U,) float32 (NaN unknown), `unit_ids` U names. `counts` (U, T) uint8 in T bins up
    to device sample `end_sample`, to be multiplied by `scale`; zeros for a unit that came after the window. `observed`
    (T,) bool, the bins that hold data throughout. T is 0 before the first window and when no counts were asked for.
    """

    request_id: int
    stream: str
    epoch: int
    version: int
    end_sample: int
    scale: float
    unit_index: npt.NDArray[np.uint32]
    shank: npt.NDArray[np.int32]
    x_um: Float32Array
    depth_um: Float32Array
    channel: npt.NDArray[np.int32]
    unit_ids: tuple[str, ...]
    counts: npt.NDArray[np.uint8]
    observed: BoolArray


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRequest:
    """Ask what the last predictions of the named units of `stream` rest on; unknown ones are left out."""

    request_id: int
    stream: str
    unit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceReply:
    """`evidence` is a JSON document: of each unit what every feature set predicts, its weight and the thresholds."""

    request_id: int
    stream: str
    evidence: str


InspectRequest = ActivityRequest | EvidenceRequest
InspectReply = ActivityReply | EvidenceReply
