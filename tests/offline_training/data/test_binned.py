"""Which stretches of imaged recordings a view may come from: those that the running normaliser has a scale for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nuclr_stream.recordings.traces import TraceRecording
from offline_training.config import TrainConfig
from offline_training.data.binned import bin_recording
from offline_training.pretraining.views import ViewSampler
from tests.nuclr_stream.recordings.test_traces import trace_recording

BINS = 16


def config_of(warm_up_frames: int) -> TrainConfig:
    """Windows of 16 frames, divided by the running 0.9 quantile."""
    normaliser = {"quantile": 0.9, "warm_up_frames": warm_up_frames, "trained_with": "running"}
    window = {"bins_per_second": "6250/1459", "bins_per_patch": 4, "patches": 4, "hop_s": 4 * 0.23344}
    return TrainConfig.parse(
        {
            "name": "t",
            "window": {**window, "input_kind": "traces", "normaliser": normaliser},
            "rules": {"min_population": 4},
            "training": {"steps": 2, "batch_windows": 2},
        }
    )


def dark_until(frame: int, recording: TraceRecording) -> TraceRecording:
    """The recording with nothing above 0 before a frame."""
    return replace(recording, traces=np.where(np.arange(recording.num_samples) < frame, 0, recording.traces))


def test_frames_that_were_not_recorded_warm_nothing_up() -> None:
    recording = replace(trace_recording(), gap_samples=np.array([[0, 10]]))
    assert bin_recording(recording, config_of(20)).intervals.tolist() == [[30, 120]]


def test_no_view_is_divided_by_a_scale_of_zero() -> None:
    recording = dark_until(40, trace_recording())
    binned = bin_recording(recording, config_of(0))
    ((first, end),) = binned.intervals.tolist()
    assert first > 40 and end == 120
    assert binned.scales is not None and (binned.scales[first + 1 :] > 0).all() and binned.scales[first] == 0
    views = ViewSampler([recording], config_of(0)).batch(0, 0)
    assert views is not None and np.isfinite(views.counts1).all() and np.isfinite(views.counts2).all()
