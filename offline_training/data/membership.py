"""Which units of a recording are used at all: the rules of a config's `[recordings]`, applied when it is read.

They go into the bundle's manifest beside the rules about windows. A daemon cannot apply them: while units are being
recorded, their quality is not checked and their region is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nuclr_stream.errors import ConfigError, RecordingError
from nuclr_stream.recordings.readers import AnyRecording, open_recordings
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import BoolArray
from offline_training.config import RecordingSettings


@dataclass(frozen=True)
class LeftOut:
    """Units that a rule leaves out, and the rule in words. A unit is counted where it fails first."""

    why: str
    unit_ids: tuple[str, ...]


@dataclass(frozen=True)
class Selected:
    """What the rules leave of a recording, None when it is nothing, and what they leave out."""

    recording_id: str
    recording: AnyRecording | None
    left_out: tuple[LeftOut, ...]

    def __str__(self) -> str:
        kept = len(self.recording.unit_ids) if self.recording else 0
        reasons = "; ".join(f"{len(each.unit_ids)} left out: {each.why}" for each in self.left_out)
        return f"{self.recording_id}: {kept} units used; {reasons or 'none left out'}"


def select_units(recording: AnyRecording, settings: RecordingSettings | None) -> Selected:
    """Apply the rules to a recording; without settings every unit is used.

    Raises ConfigError when a rule names a column that the recording lacks, or values of another type than it has.
    """
    keep = np.ones(len(recording.unit_ids), dtype=bool)
    left_out = []
    for why, passes in _rules(recording, settings) if settings is not None else ():
        fails = keep & ~passes  # a unit counts where it fails first, so that the numbers add up
        if fails.any():
            left_out.append(LeftOut(why, tuple(recording.unit_ids[fails].tolist())))
        keep &= passes
    return Selected(recording.recording_id, only_units(recording, keep), tuple(left_out))


def load_selected(path: Path, settings: RecordingSettings | None) -> list[Selected]:
    """Read every recording at `path` and apply the rules. Raises RecordingError when they leave no unit at all."""
    population_by = settings.population_by if settings is not None else ""
    found = [select_units(recording, settings) for recording in open_recordings(path, population_by=population_by)]
    if not any(each.recording for each in found):
        raise RecordingError(f"{path}: the rules of [recordings] leave no unit ({found[0]}); loosen them")
    return found


def recordings_of(selected: Sequence[Selected]) -> list[AnyRecording]:
    """The recordings of which something is left."""
    return [each.recording for each in selected if each.recording is not None]


def _rules(recording: AnyRecording, settings: RecordingSettings) -> list[tuple[str, BoolArray]]:
    """Every rule that is set: the reason that it gives for leaving units out, and which units (U,) pass."""
    rules = []
    if settings.quality_column is not None:
        values = ", ".join(str(value) for value in settings.quality_keep)
        passes = _one_of(recording, settings.quality_column, settings.quality_keep)
        rules.append((f"{settings.quality_column} is not {values}", passes))
    if settings.excluded_regions:
        regions = ", ".join(settings.excluded_regions)
        excluded = _one_of(recording, settings.region_column, settings.excluded_regions)
        rules.append((f"{settings.region_column} is {regions}", ~excluded))
    if settings.min_rate_hz:
        if not isinstance(recording, Recording):
            raise ConfigError(
                f"recordings: min_rate_hz = {settings.min_rate_hz:g}: {recording.recording_id} holds no spikes"
            )
        rules.append((f"below {settings.min_rate_hz:g} Hz", rates_hz(recording) >= settings.min_rate_hz))
    return rules


def rates_hz(recording: Recording) -> np.ndarray:
    """Mean rate of every unit (U,) over what was recorded, gaps left out; 0 where nothing was."""
    seconds = observed_s(recording)
    return recording.spikes_per_unit / seconds if seconds else np.zeros(len(recording.unit_ids))


def observed_s(recording: AnyRecording) -> float:
    """Seconds of a recording that were recorded, gaps left out."""
    rate = recording.sample_rate
    missing, at = 0, 0
    for start, stop in sorted(recording.gap_samples.tolist()):
        missing += max(0, min(stop, recording.num_samples) - max(start, at))
        at = max(at, stop)
    return float((recording.num_samples - missing) / rate)


def _one_of(recording: AnyRecording, column: str, values: Sequence[bool | float | str]) -> BoolArray:
    if column not in recording.units:
        raise ConfigError(
            f"recordings: {recording.recording_id} has no column {column!r}, but {', '.join(recording.units) or 'none'}"
        )
    found = recording.units[column]
    textual = found.dtype.kind in "US"
    if found.ndim != 1 or any(isinstance(value, str) != textual for value in values):
        raise ConfigError(
            f"recordings: column {column!r} of {recording.recording_id} is {found.dtype} {found.shape}, such as "
            f"{found[0]!r}; {list(values)} can not be among its values"
        )
    return np.isin(found if textual else found.astype(np.float64), np.array(values, dtype=None if textual else float))


def only_units(recording: AnyRecording, keep: BoolArray) -> AnyRecording | None:
    """The recording with the units to keep (U,) only; None where none is left."""
    if keep.all():
        return recording
    if not keep.any():
        return None
    unit_ids = recording.unit_ids[keep]
    units = {name: values[keep] for name, values in recording.units.items()}
    if not isinstance(recording, Recording):
        return replace(recording, traces=recording.traces[keep], unit_ids=unit_ids, units=units)
    new_row = np.cumsum(keep, dtype=np.int32) - 1
    spikes = keep[recording.spike_units]
    return replace(
        recording,
        spike_samples=recording.spike_samples[spikes],
        spike_units=new_row[recording.spike_units[spikes]].astype(np.int32),
        unit_ids=unit_ids,
        units=units,
    )
