"""Intervals and coupling of a stream are those of its file, also around gaps, masks and windows that are excluded."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.features.accumulator import FeatureAccumulator, FeatureSnapshot
from nuclr_stream.recordings.recording import RecordedWindow, Recording, recorded_windows
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.stream.population import Population
from nuclr_stream.stream.window import Window
from nuclr_stream.windows.binning import WindowRules, WindowSpec
from tests.nuclr_stream.streams import random_recording

SPEC, RULES = WindowSpec(Fraction(50), 50, 10, 50), WindowRules()
DIM = 4


def live_windows(recording: Recording, spec: WindowSpec, *, block: int) -> dict[int, Window]:
    """The windows that the daemon cuts from a recording played in blocks, by their end."""
    population, found = Population(spec, RULES, stream="r", max_units=64), {}
    for message in recording_messages(recording, stream="r", block_samples=block):
        population.push(message)
        while (window := population.cut(0)) is not None:
            found[window.end_bin] = window
    return found


def file_windows(recording: Recording, spec: WindowSpec) -> dict[int, RecordedWindow]:
    """The windows that training cuts from the file, by their end."""
    return {window.end_bin: window for window in recorded_windows(recording, spec, RULES)}


def add(features: FeatureAccumulator, window: Window | RecordedWindow, units: int) -> FeatureSnapshot:
    """Take in a window, if it may be, as `Labeler` and `Embedded` do, and return all that is known then."""
    everyone = np.arange(units)
    if not window.exclusion:
        features.add_activity(
            everyone,
            window.counts,
            end_bin=window.end_bin,
            eligible=np.ones(units, dtype=bool),
            intervals=window.intervals,
            coupling=window.coupling,
        )
    return features.snapshot(everyone)


def with_gap(start_s: float, stop_s: float, *, seconds: int = 40) -> Recording:
    """A recording in which nothing was observed for a while."""
    recording = random_recording(1, seconds=seconds)
    start, stop = round(start_s * 30_000), round(stop_s * 30_000)
    keep = (recording.spike_samples < start) | (recording.spike_samples >= stop)
    return replace(
        recording,
        spike_samples=recording.spike_samples[keep],
        spike_units=recording.spike_units[keep],
        gap_samples=np.array([[start, stop]]),
    )


@settings(max_examples=12)
@given(
    seed=st.integers(0, 5),
    block=st.sampled_from([600, 7_001, 45_000]),
    hop=st.sampled_from([25, 50, 500, 700]),
    rate=st.sampled_from([30_000, Fraction(30_000 * 3, 7), 1_000]),
)
def test_windows_hold_the_same_intervals_and_coupling(seed: int, block: int, hop: int, rate: Fraction):
    recording = random_recording(seed, seconds=25, rate=rate, gap=seed % 2 == 1, mask=True)
    spec = replace(SPEC, hop_bins=hop)
    live, of_file = live_windows(recording, spec, block=block), file_windows(recording, spec)
    assert live.keys() == of_file.keys()
    for end, window in live.items():
        assert np.array_equal(window.intervals, of_file[end].intervals), end
        assert np.array_equal(window.coupling, of_file[end].coupling), end


@pytest.mark.parametrize("hop", [25, 50, 250, 500])
@pytest.mark.parametrize("gap_s", [(12.0, 15.0), (12.3, 27.0), (11.99, 23.017)])
def test_a_gap_that_is_longer_than_a_window_leaves_the_same_features(gap_s: tuple[float, float], hop: int):
    """The daemon cuts no window without any data, the file has them all: what follows must not depend on it."""
    recording, spec = with_gap(*gap_s), replace(SPEC, hop_bins=hop)
    live, of_file = live_windows(recording, spec, block=9_001), file_windows(recording, spec)
    assert live.keys() <= of_file.keys()
    assert any(window.exclusion == "gap" for window in of_file.values())
    units = len(recording.unit_ids)
    streamed, offline = FeatureAccumulator(spec, DIM), FeatureAccumulator(spec, DIM)
    after = 0
    for end, window in of_file.items():
        expected = add(offline, window, units)
        if end not in live:
            assert window.missing == 1 and window.exclusion
            continue
        found = add(streamed, live[end], units)
        assert live[end].exclusion == window.exclusion
        for name, values in expected.features.items():
            assert np.array_equal(found.features[name], values), (end, name)
        assert np.array_equal(found.observed, expected.observed)
        after += end / 50 > gap_s[1] + 10 and not window.exclusion
    assert after, "windows were accepted behind the gap"


def test_what_falls_into_the_hop_of_an_excluded_window_is_in_no_interval_and_no_coupling():
    """Seconds come with the first accepted window that holds them; intervals and coupling come hop by hop, once."""
    recording = replace(random_recording(2, seconds=32), mask_samples=np.array([[330_000, 330_300]]))
    windows = file_windows(recording, SPEC)
    excluded = [window for window in windows.values() if window.exclusion]
    assert [window.end_bin for window in excluded] == list(range(600, 1_051, 50)), "ten windows hold 11.0 s"
    units = len(recording.unit_ids)
    features, everyone = FeatureAccumulator(SPEC, DIM), np.arange(units)
    for window in windows.values():
        add(features, window, units)
    assert (features.statistics.seconds(everyone) == 31).all(), "all but the second of the mask"
    accepted = [window for window in windows.values() if not window.exclusion]
    assert np.array_equal(features.statistics.intervals(everyone), sum(window.intervals for window in accepted))
    assert np.array_equal(features.coupling.spikes(everyone), sum(window.coupling[:, -3] for window in accepted))
    lost = sum(window.intervals.sum() for window in excluded)
    assert 0.28 < lost / sum(window.intervals.sum() for window in windows.values()) < 0.35, "10 of 32 s"
