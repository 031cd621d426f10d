"""Answers to clients, from the latest results. No sockets here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from nuclr_stream.daemon.asks import NEVER_NS, Answer, Ask
from nuclr_stream.daemon.streams import Stream, Streams
from nuclr_stream.errors import NonFiniteError, PlacementError
from nuclr_stream.inference.model import Model
from nuclr_stream.placement.report import placement_report
from nuclr_stream.placement.trajectory import Planned
from nuclr_stream.stream.labeler import Labelled
from nuclr_stream.windows.binning import Float32Array, active_units
from nuclr_stream.wire import (
    MAX_MESSAGE_BYTES,
    MAX_WINDOW_BYTES,
    ActivityReply,
    ActivityRequest,
    DaemonState,
    EmbeddingsReply,
    EmbeddingsRequest,
    EmbedWindowReply,
    EmbedWindowRequest,
    ErrorReply,
    EvidenceReply,
    EvidenceRequest,
    PlacementReply,
    PlacementRequest,
    Predictions,
    ReceivedReply,
    ReceivedRequest,
    SnapshotReply,
    SnapshotRequest,
    StatusReply,
    StatusRequest,
    StreamState,
    answering,
    encode,
)

Compute: TypeAlias = Callable[[], Answer]


def snapshot(request: SnapshotRequest, streams: Streams, daemon: DaemonState) -> SnapshotReply:
    """Return everything now: states and last predictions of one stream or of all, and the daemon's state."""
    messages: list[Predictions | StreamState | DaemonState] = [daemon]
    for stream in streams:
        if request.stream in ("", stream.name):
            messages.append(stream.state)
            if stream.current is not None:
                messages.append(stream.current.predictions)
    return SnapshotReply(request_id=request.request_id, messages=tuple(messages))


class EncodedEmbeddings:
    """Replies with all embeddings of a stream, encoded once a step: clients ask far more often than they change."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Labelled, list[bytes]]] = {}

    def reply(self, request: EmbeddingsRequest, stream: Stream) -> list[bytes] | None:
        """Return the frames of the reply; None where the request names units, or there is nothing to answer with."""
        latest = stream.current
        if latest is None or request.unit_ids:
            return None
        cached = self._of.get(stream.name)
        if cached is None or cached[0] is not latest:
            cached = self._of[stream.name] = latest, encode(embeddings(request, stream))
        return answering(cached[1], request.request_id)

    def keep(self, names: Collection[str]) -> None:
        """Forget all streams but these."""
        self._of = {name: encoded for name, encoded in self._of.items() if name in names}


def embeddings(request: EmbeddingsRequest, stream: Stream | None) -> EmbeddingsReply | ErrorReply:
    """Return mean and last embeddings of the units that were named, or of all; unknown ones are left out."""
    if stream is None:
        return _error(request.request_id, "unknown_stream", f"no stream {request.stream!r}")
    if (latest := stream.current) is None:
        return _error(request.request_id, "warming_up", "no window is complete yet")
    predictions = latest.predictions
    row_of = {unit_id: row for row, unit_id in enumerate(predictions.unit_ids) if predictions.windows[row]}
    names = [name for name in request.unit_ids or predictions.unit_ids if name in row_of]
    rows = np.array([row_of[name] for name in names], dtype=np.int64)
    return EmbeddingsReply(
        request_id=request.request_id,
        stream=stream.name,
        epoch=predictions.epoch,
        end_sample=predictions.end_sample,
        unit_ids=tuple(names),
        windows=predictions.windows[rows],
        mean=latest.mean[rows],
        last=latest.last[rows],
    )


def activity(request: ActivityRequest, stream: Stream | None) -> ActivityReply | ErrorReply:
    """Return the units of a stream as they are now and, if asked for, what they did in the last labelled window."""
    if stream is None:
        return _error(request.request_id, "unknown_stream", f"no stream {request.stream!r}")
    population, latest = stream.labeler.population, stream.current
    units = population.units
    geometry = units.geometry
    counts, observed, scale = np.zeros((len(units.index), 0), dtype=np.uint8), np.zeros(0, dtype=np.bool_), 1.0
    if request.counts and latest is not None and (window := latest.window) is not None:
        if stream.labeler.spec.input_kind == "traces":  # values of traces go in steps of 1/255 of the largest
            scale = float(max(window.counts.max(initial=0), 1e-6)) / 255
        rows = units.rows(window.unit_index)
        counts = np.zeros((len(units.index), window.counts.shape[1]), dtype=np.uint8)
        counts[rows[rows >= 0]] = np.clip(np.round(window.counts[rows >= 0] / scale), 0, 255)
        observed = window.observed
    return ActivityReply(
        request_id=request.request_id,
        stream=stream.name,
        epoch=population.epoch or 0,
        version=units.version,
        end_sample=0 if latest is None else latest.predictions.end_sample,
        scale=scale,
        unit_index=units.index.astype(np.uint32),
        shank=geometry["shank"].astype(np.int32),
        x_um=geometry["x_um"],
        depth_um=geometry["depth_um"],
        channel=geometry["channel"].astype(np.int32),
        unit_ids=units.ids,
        counts=counts,
        observed=observed,
    )


def evidence(request: EvidenceRequest, stream: Stream | None) -> EvidenceReply | ErrorReply:
    """Return what the last predictions of the named units rest on: every feature set's prediction and its weight."""
    if stream is None:
        return _error(request.request_id, "unknown_stream", f"no stream {request.stream!r}")
    if (latest := stream.current) is None:
        return _error(request.request_id, "warming_up", "no window is complete yet")
    predictions = latest.predictions
    row_of = {unit_id: row for row, unit_id in enumerate(predictions.unit_ids)}
    document = {
        "stream": stream.name,
        "epoch": predictions.epoch,
        "step": predictions.step,
        "end_sample": predictions.end_sample,
        "bundle": predictions.bundle,
        "classes": {task.name: list(task.classes) for task in predictions.tasks},
        "units": [
            {
                "unit_id": name,
                "tasks": {task: found.document(row_of[name]) for task, found in latest.evidence.items()},
            }
            for name in request.unit_ids
            if name in row_of
        ],
    }
    return EvidenceReply(request_id=request.request_id, stream=stream.name, evidence=json.dumps(document))


def placement(request: PlacementRequest, stream: Stream | None, model: Model) -> Compute | ErrorReply:
    """Return what will place the units of a stream, to be called in another thread, or why they cannot be placed."""
    if stream is None:
        return _error(request.request_id, "unknown_stream", f"no stream {request.stream!r}")
    if request.task not in model.task_names:
        return _error(request.request_id, "unknown_task", f"the bundle has {', '.join(model.task_names)}")
    if (latest := stream.current) is None:
        return _error(request.request_id, "warming_up", "no window is complete yet")
    depth_um, shank = places(stream, latest.predictions)
    plan = [
        Planned(region, float(low), float(high))
        for region, low, high in zip(request.regions, request.from_um, request.to_um, strict=True)
    ]

    def report() -> Answer:
        part = model.task(request.task)
        try:
            document = placement_report(latest.predictions, part, depth_um=depth_um, shank=shank, plan=plan)
        except PlacementError as error:
            return _error(request.request_id, "plan", str(error))
        return PlacementReply(request_id=request.request_id, stream=request.stream, placement=json.dumps(document))

    return report


def places(stream: Stream, predictions: Predictions) -> tuple[Float32Array, Float32Array]:
    """Return depth_um and shank (U,) of predicted units, by the unit table as it is now; unknown if retired."""
    units = stream.labeler.population.units
    geometry = units.geometry
    rows = units.rows(predictions.unit_index)
    depth_um = np.append(geometry["depth_um"], np.float32(np.nan))[rows]
    shank = np.append(geometry["shank"], np.float32(-1))[rows]
    return depth_um, shank


def window(request: EmbedWindowRequest, model: Model) -> Compute | ErrorReply:
    """Return what will embed a client's window, to be called in another thread, or why it cannot be embedded."""
    return request_error(request, model) or partial(embed_window, request, model)


def request_error(request: EmbedWindowRequest, model: Model) -> ErrorReply | None:
    """Return why a client's window cannot be embedded, or None."""
    units, bins = request.counts.shape
    spec, most = model.manifest.spec, model.manifest.max_units
    if bins != spec.bins:
        return _error(request.request_id, "window_shape", f"{bins} bins; a window has {spec.bins}")
    if units > most:
        return _error(request.request_id, "too_many_units", f"{units} units; at most {most}")
    return None


def embed_window(request: EmbedWindowRequest, model: Model) -> EmbedWindowReply | ErrorReply:
    """Return the embeddings of a client's window, zeros for silent units.

    There are no predictions for it: those rest on all windows of a unit and on the population around it, so they are
    made from streams alone.
    """
    active = active_units(request.counts, model.manifest.spec.input_kind)
    embedding = np.zeros((len(active), model.manifest.embedding_dim), dtype=np.float32)
    try:
        embedding[active] = model.embed(request.counts, active)
    except NonFiniteError as error:
        return _error(request.request_id, "nonfinite", str(error))
    return EmbedWindowReply(request_id=request.request_id, embedding=embedding)


def received(request: ReceivedRequest, stream: Stream | None, *, instance: int) -> ReceivedReply:
    """Return what has arrived of a stream: its source sends again what comes after it."""
    if stream is None or (epoch := stream.labeler.population.epoch) is None:
        return ReceivedReply(request_id=request.request_id, stream=request.stream, instance=instance, known=False)
    population = stream.labeler.population
    return ReceivedReply(
        request_id=request.request_id,
        stream=request.stream,
        instance=instance,
        known=True,
        epoch=epoch,
        next_seq=population.next_seq,
        watermark=population.watermark or 0,
    )


def status(request: StatusRequest, document: Mapping[str, Any]) -> StatusReply:
    """Return the document of /status."""
    return StatusReply(request_id=request.request_id, status=json.dumps(document))


def busy(request_id: int) -> ErrorReply:
    """Return the error for a request that finds no place in the queue."""
    return _error(request_id, "busy", "too many requests wait already; ask again")


def _error(request_id: int, reason: str, detail: str) -> ErrorReply:
    return ErrorReply(request_id=request_id, reason=reason, detail=detail)


def ask(identity: bytes, request: EmbedWindowRequest | PlacementRequest, compute: Compute) -> Ask:
    """Return a client's request as the worker takes it: what computes the answer, and until when it is wanted."""
    now_ns = time.monotonic_ns()
    until_ns = now_ns + request.within_ms * 1_000_000 if request.within_ms else NEVER_NS
    units = len(request.counts) if isinstance(request, EmbedWindowRequest) else 0
    return Ask(identity, request.request_id, compute, units=units, asked_ns=now_ns, until_ns=until_ns)


def window_bytes(model: Model) -> int:
    """Return the size of the largest request: a window of as many units as the bundle takes, and a quarter more."""
    units = model.manifest.max_units
    return min(max(5 * units * model.manifest.spec.bins, MAX_MESSAGE_BYTES), MAX_WINDOW_BYTES)
