"""Training-free features: the same definitions over any stretch, and what the company of a unit adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from nuclr_stream.features.spike_statistics import IsiHistogram
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import WindowSpec, rational
from offline_training.evaluation.baselines.aggregated import NEIGHBOURS, Pooled, nearest
from offline_training.evaluation.baselines.single_unit import isi_steps, rate_steps, statistics_steps
from offline_training.simulation.animals import simulate

SPEC = WindowSpec(rational(50), bins_per_patch=25, patches=4, hop_bins=50)  # 2 s windows


@pytest.fixture(scope="module")
def recording() -> Recording:
    return simulate(11, units=16, duration_s=10.0)


def test_all_steps_together_are_the_histogram_of_the_recording(recording: Recording):
    whole = IsiHistogram(16, recording.sample_rate)
    whole.push(recording.spike_samples, recording.spike_units)
    values, steps = isi_steps(recording, SPEC).between(0, 5)
    np.testing.assert_array_equal(values, whole.normalised())
    assert steps.max() == 5


def test_steps_end_with_their_window(recording: Recording):
    assert isi_steps(recording, SPEC).end_s.tolist() == [2.0, 4.0, 6.0, 8.0, 10.0]


def test_the_rate_is_that_of_the_stretch(recording: Recording):
    values, fired = rate_steps(recording, SPEC).between(1, 3)
    inside = (recording.spike_samples >= 2 * 30000) & (recording.spike_samples < 6 * 30000)
    spikes = np.bincount(recording.spike_units[inside], minlength=16)
    np.testing.assert_allclose(values[:, 0], np.log((spikes + 0.5) / 4), rtol=1e-6)
    assert ((fired > 0) == (spikes > 0)).all()


def test_spike_statistics_are_roots_of_the_shares_and_the_rate(recording: Recording):
    isi, rate = isi_steps(recording, SPEC), rate_steps(recording, SPEC)
    values, _ = statistics_steps(isi, rate).between(0, 4)
    np.testing.assert_allclose(values[:, :-1] ** 2, isi.between(0, 4)[0], atol=1e-6)
    np.testing.assert_array_equal(values[:, -1:], rate.between(0, 4)[0])


@dataclass(frozen=True)
class Given:
    """Features that are given, of one step of ten seconds."""

    values: np.ndarray
    n: np.ndarray
    recording_id: str = "r"
    subject_id: str = "s"
    steps_per_window: int = 1

    @property
    def end_s(self) -> np.ndarray:
        return np.array([10.0])

    def between(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        return self.values, self.n


def test_neighbours_are_those_that_rise_and_fall_together():
    rng = np.random.default_rng(0)
    drive = rng.normal(size=(2, 200))
    counts = np.repeat(drive, 12, axis=0) + 0.1 * rng.normal(size=(24, 200))
    near = nearest(counts.astype(np.float32))
    assert near.shape == (24, NEIGHBOURS)
    assert (near[:12] < 12).all() and (near[12:] >= 12).all()
    assert not (near == np.arange(24)[:, None]).any()


def test_pooling_joins_own_neighbours_and_population():
    counts = np.array([[1, 2, 3, 4, 5] * 2, [1, 2, 3, 4, 5] * 2, [0, 0, 9, 0, 0] * 2], dtype=np.float32)
    pooled = Pooled(Given(np.array([[1.0], [3.0], [8.0]], dtype=np.float32), np.ones(3)), counts)
    values, n = pooled.between(0, 1)
    np.testing.assert_allclose(values[:, 0], [1, 3, 8])
    np.testing.assert_allclose(values[:, 1], [5.5, 4.5, 2])  # fewer than NEIGHBOURS others: all of them
    np.testing.assert_allclose(values[:, 2], [4, 4, 4])
    assert n.tolist() == [1, 1, 1]


def test_a_unit_without_evidence_is_nobodys_company():
    counts = np.ones((3, 10), dtype=np.float32)
    pooled = Pooled(Given(np.array([[1.0], [3.0], [800.0]], dtype=np.float32), np.array([1.0, 1.0, 0.0])), counts)
    values, _ = pooled.between(0, 1)
    assert values[:2].max() == 3
    assert not values[2].any()


def test_a_lone_unit_is_its_own_company():
    pooled = Pooled(Given(np.array([[7.0]], dtype=np.float32), np.ones(1)), np.ones((1, 10), dtype=np.float32))
    assert pooled.between(0, 1)[0].tolist() == [[7, 7, 7]]
