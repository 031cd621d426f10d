"""What is known of a recording's units in the end, in the one form that every export starts from.

Shapes: U units, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.bundle.manifest import Manifest
from nuclr_stream.errors import RecordingError
from nuclr_stream.outputs.rows import REASONS
from nuclr_stream.placement.report import TASK, placement_report
from nuclr_stream.prediction.stability import NEVER
from nuclr_stream.recordings.recorded import Recorded
from nuclr_stream.recordings.recording import Recording, require_fit
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.stream.labeler import Labeler, Labelled
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.windows.binning import Float32Array, grid_of
from nuclr_stream.wire import Abstained, Predictions, TaskPredictions

AnyRecording = Recording | TraceRecording


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The last predictions of one recording, and where its units are.

    `predictions` holds all units, with the prior and "no_data" where no window was complete. `mean` (U, D) are their
    mean embeddings, zeros without a window. `geometry` holds `shank` (-1 unknown), `x_um`, `depth_um` (NaN unknown) and
    `channel` (U,). `placement` is the document of `placement_report`, None without a task about regions. `source` is
    the file that the recording is from, if any, `note` why there cannot be any prediction, if so.
    """

    recording_id: str
    duration_s: float
    predictions: Predictions
    mean: Float32Array
    geometry: Mapping[str, Float32Array]
    placement: Mapping[str, Any] | None = None
    recording: AnyRecording | None = None
    source: Path | None = None
    note: str = ""

    def reason(self, why: int) -> str:
        """Return in words why a class is abstained from, empty where it is not."""
        return self.note if self.note and why == Abstained.NO_DATA else REASONS[Abstained(why)]

    @property
    def depth_regions(self) -> tuple[list[str], Float32Array]:
        """The region (U,) at the depth of every unit, "" where unknown, and its probability (U,), NaN where unknown."""
        at = {unit["unit_id"]: unit for unit in (self.placement or {}).get("units", ())}
        found = [at.get(unit_id, {}) for unit_id in self.predictions.unit_ids]
        probability = [one.get("probability") for one in found]
        filled = [np.nan if value is None else value for value in probability]
        return [one.get("region") or "" for one in found], np.array(filled, dtype=np.float32)


def labelled(recording: AnyRecording, labeler: Labeler) -> Iterator[Labelled]:
    """Yield what every window of a recording leads to. `labeler` is one that has taken nothing yet.

    Raises RecordingError for a recording that the bundle cannot take.
    """
    model, most = labeler.model, labeler.population.units.max_units
    require_fit(recording, model.manifest.spec)
    if len(recording.unit_ids) > most:
        raise RecordingError(
            f"{recording.recording_id}: {len(recording.unit_ids)} units; bundle {model.bundle_id} takes at most {most}"
        )
    block_samples = max(1, int(recording.sample_rate))
    for message in recording_messages(recording, stream=labeler.stream, block_samples=block_samples):
        labeler.push(message)
        while (found := labeler.step()) is not None:
            yield found


def before_any_window(recording: Recorded, labeler: Labeler) -> Predictions:
    """Return what is known of the units before the first window: the class prior, and abstention from every class."""
    units = len(recording.unit_ids)
    tasks = [
        TaskPredictions(
            name=name,
            classes=labeler.model.task(name).classes,
            probabilities=np.tile(np.array(labeler.priors[name], dtype=np.float32), (units, 1)),
            sets=np.ones((units, len(labeler.model.task(name).classes)), dtype=np.bool_),
            why=np.full(units, Abstained.NO_DATA, dtype=np.uint8),
            stable_since=np.full(units, NEVER, dtype=np.int64),
            flips=0,
        )
        for name in labeler.model.task_names
    ]
    return Predictions(
        stream=labeler.stream,
        epoch=0,
        step=0,
        end_sample=0,
        sample_rate=Fraction(recording.sample_rate),
        origin=0,
        closed_ns=0,
        state="warming_up",
        missing=0.0,
        active_units=0,
        skipped_steps=0,
        bundle=labeler.model.bundle_id,
        hop_s=labeler.spec.hop_s,
        window_s=labeler.spec.window_s,
        unit_index=np.arange(units, dtype=np.uint32),
        unit_ids=tuple(str(unit_id) for unit_id in recording.unit_ids),
        windows=np.zeros(units, dtype=np.uint32),
        exposure=np.zeros(units, dtype=np.float32),
        ood_score=np.zeros(units, dtype=np.float32),
        flags=np.zeros(units, dtype=np.uint8),
        tasks=tuple(tasks),
    )


def too_short(recording: Recorded, labeler: Labeler) -> str:
    """Return that a recording cannot hold a window, or an empty string."""
    spec = labeler.spec
    if grid_of(recording.sample_rate, spec).complete_bins(recording.num_samples) >= spec.bins:
        return ""
    return f"recording of {recording.duration_s:g} s is shorter than a window of {spec.window_s:g} s"


def result_of(
    recording: AnyRecording, labeler: Labeler, latest: Labelled | None, *, source: Path | None = None
) -> Result:
    """Return the end of a recording that `labeler` has taken: `latest` is what its last window led to, if any."""
    manifest, units = labeler.model.manifest, labeler.population.units
    nothing = np.zeros((len(recording.unit_ids), manifest.embedding_dim), dtype=np.float32)
    predictions = before_any_window(recording, labeler) if latest is None else latest.predictions
    return Result(
        recording_id=recording.recording_id,
        duration_s=recording.duration_s,
        predictions=predictions,
        mean=nothing if latest is None else latest.mean,
        geometry=units.geometry,
        placement=_placed(manifest, predictions, units.geometry),
        recording=recording,
        source=source,
        note=too_short(recording, labeler),
    )


def _placed(
    manifest: Manifest, predictions: Predictions, geometry: Mapping[str, Float32Array]
) -> Mapping[str, Any] | None:
    part = next((part for part in manifest.tasks if part.name == TASK), None)
    if part is None or not len(predictions.unit_ids):
        return None
    return placement_report(predictions, part, depth_um=geometry["depth_um"], shank=geometry["shank"])
