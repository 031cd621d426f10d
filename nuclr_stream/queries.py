"""Answers to clients, from the latest results. No sockets here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from nuclr_stream.binning import Float32Array, active_units
from nuclr_stream.errors import NonFiniteError
from nuclr_stream.inference import Model
from nuclr_stream.streams import Stream, Streams
from nuclr_stream.wire import (
    DaemonState,
    EmbeddingsReply,
    EmbeddingsRequest,
    EmbedWindowReply,
    EmbedWindowRequest,
    ErrorReply,
    Predictions,
    SnapshotReply,
    SnapshotRequest,
    StatusReply,
    StatusRequest,
    StreamState,
    TaskPredictions,
)


def snapshot(request: SnapshotRequest, streams: Streams, daemon: DaemonState) -> SnapshotReply:
    """Return everything now: states and last predictions of one stream or of all, and the daemon's state."""
    messages: list[Predictions | StreamState | DaemonState] = [daemon]
    for stream in streams:
        if request.stream in ("", stream.name):
            messages.append(stream.state)
            if stream.current is not None:
                messages.append(stream.current.predictions)
    return SnapshotReply(request_id=request.request_id, messages=tuple(messages))


def embeddings(request: EmbeddingsRequest, stream: Stream | None) -> EmbeddingsReply | ErrorReply:
    """Return mean and last embeddings of the units that were named, or of all; unknown ones are left out."""
    if stream is None:
        return _error(request.request_id, "unknown_stream", f"no stream {request.stream!r}")
    if (latest := stream.current) is None:
        return _error(request.request_id, "warming_up", "no window is complete yet")
    said = latest.predictions
    row_of = {unit_id: row for row, unit_id in enumerate(said.unit_ids) if said.windows[row]}
    names = [name for name in request.unit_ids or said.unit_ids if name in row_of]
    rows = np.array([row_of[name] for name in names], dtype=np.int64)
    return EmbeddingsReply(
        request_id=request.request_id,
        stream=stream.name,
        epoch=said.epoch,
        end_sample=said.end_sample,
        unit_ids=tuple(names),
        windows=said.windows[rows],
        mean=latest.mean[rows],
        last=latest.last[rows],
    )


def window_refusal(request: EmbedWindowRequest, model: Model) -> ErrorReply | None:
    """Return why a client's window cannot be embedded, or None."""
    units, bins = request.counts.shape
    spec, most = model.manifest.spec, model.manifest.max_units
    if bins != spec.bins:
        return _error(request.request_id, "window_shape", f"{bins} bins; a window has {spec.bins}")
    if units > most:
        return _error(request.request_id, "too_many_units", f"{units} units; at most {most}")
    return None


def embed_window(request: EmbedWindowRequest, model: Model) -> EmbedWindowReply | ErrorReply:
    """Return the embeddings of a client's window, zeros for silent units, and what one window says about each unit."""
    active = active_units(request.counts, model.manifest.spec.input_kind)
    embedding = np.zeros((len(active), model.manifest.embedding_dim), dtype=np.float32)
    try:
        embedding[active] = model.embed(request.counts, active)
        tasks = tuple(_task(model, name, embedding, active.astype(np.float32)) for name in model.task_names)
    except NonFiniteError as error:
        return _error(request.request_id, "nonfinite", str(error))
    return EmbedWindowReply(request_id=request.request_id, embedding=embedding, tasks=tasks)


def _task(model: Model, name: str, embedding: Float32Array, evidence: Float32Array) -> TaskPredictions:
    part = model.task(name)
    probabilities = model.probabilities(name, embedding, evidence)
    abstained = part.calibration.abstains(probabilities, evidence)
    return TaskPredictions(name=name, classes=part.classes, probabilities=probabilities, abstained=abstained)


def status(request: StatusRequest, document: Mapping[str, Any]) -> StatusReply:
    """Return the document of /status."""
    return StatusReply(request_id=request.request_id, status=json.dumps(document))


def busy(request: EmbedWindowRequest) -> ErrorReply:
    """Return the refusal of a window for which there is no place in the queue."""
    return _error(request.request_id, "busy", "too many windows wait already; ask again")


def _error(request_id: int, reason: str, detail: str) -> ErrorReply:
    return ErrorReply(request_id=request_id, reason=reason, detail=detail)
