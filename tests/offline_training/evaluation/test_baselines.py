"""Training-free features: the same definitions over any stretch, and what the neighbours of a unit add."""

from __future__ import annotations

import numpy as np
import pytest

from nuclr_stream.features.spike_statistics import IsiHistogram
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import WindowSpec, rational
from offline_training.evaluation.baselines.aggregated import NEIGHBOURS, Aggregated, nearest
from offline_training.evaluation.baselines.single_unit import CountedSteps, isi_steps, rate_steps
from offline_training.simulation.animals import simulate

SPEC = WindowSpec(rational(50), bins_per_patch=25, patches=4, hop_bins=50)  # 2 s windows


@pytest.fixture(scope="module")
def recording() -> Recording:
    return simulate(11, units=16, duration_s=10.0)


def test_all_steps_together_are_the_histogram_of_the_recording(recording: Recording):
    whole = IsiHistogram(16, recording.sample_rate)
    whole.push(recording.spike_samples, recording.spike_units)
    found = isi_steps(recording, SPEC).snapshot(0, 5)
    np.testing.assert_array_equal(found.features["isi"], whole.normalised())
    assert found.exposure.max() == 5
    assert ((found.exposure > 0) == found.has["isi"]).all()


def test_steps_end_with_their_window(recording: Recording):
    assert isi_steps(recording, SPEC).end_s.tolist() == [2.0, 4.0, 6.0, 8.0, 10.0]


def test_the_rate_is_that_of_the_stretch(recording: Recording):
    found = rate_steps(recording, SPEC).snapshot(1, 3)
    inside = (recording.spike_samples >= 2 * 30000) & (recording.spike_samples < 6 * 30000)
    spikes = np.bincount(recording.spike_units[inside], minlength=16)
    np.testing.assert_allclose(found.features["rate"][:, 0], np.log((spikes + 0.5) / 4), rtol=1e-6)
    assert (found.has["rate"] == (spikes > 0)).all()


def given(values: list[float], fired: list[bool]) -> CountedSteps:
    """A feature with these values (U,), of one step of ten seconds in which these units fired (U,)."""
    counts, ten_s = np.array(values, dtype=np.int64)[None, :, None], np.array([10.0])
    return CountedSteps(
        name="made",
        recording_id="r",
        subject_id="s",
        end_s=ten_s,
        counts=counts,
        fired=np.array(fired)[None],
        finish=lambda total, seconds: total.astype(np.float32),
    )


def test_neighbours_are_those_that_rise_and_fall_together():
    rng = np.random.default_rng(0)
    drive = rng.normal(size=(2, 200))
    counts = np.repeat(drive, 12, axis=0) + 0.1 * rng.normal(size=(24, 200))
    near = nearest(counts.astype(np.float32))
    assert near.shape == (24, NEIGHBOURS)
    assert (near[:12] < 12).all() and (near[12:] >= 12).all()
    assert not (near == np.arange(24)[:, None]).any()


def test_aggregation_joins_own_neighbours_and_population():
    counts = np.array([[1, 2, 3, 4, 5] * 2, [1, 2, 3, 4, 5] * 2, [0, 0, 9, 0, 0] * 2], dtype=np.float32)
    found = Aggregated(given([1, 3, 8], [True] * 3), counts).snapshot(0, 1)
    values = found.features["made_aggregated"]
    np.testing.assert_allclose(values[:, 0], [1, 3, 8])
    np.testing.assert_allclose(values[:, 1], [5.5, 4.5, 2])  # fewer than NEIGHBOURS others: all of them
    np.testing.assert_allclose(values[:, 2], [4, 4, 4])
    assert found.exposure.tolist() == [1, 1, 1]


def test_a_unit_that_was_not_seen_is_no_neighbour():
    counts = np.ones((3, 10), dtype=np.float32)
    found = Aggregated(given([1, 3, 800], [True, True, False]), counts).snapshot(0, 1)
    values = found.features["made_aggregated"]
    assert values[:2].max() == 3
    assert not values[2].any() and not found.has["made_aggregated"][2]


def test_a_lone_unit_is_its_own_neighbour():
    found = Aggregated(given([7], [True]), np.ones((1, 10), dtype=np.float32)).snapshot(0, 1)
    assert found.features["made_aggregated"].tolist() == [[7, 7, 7]]
