"""ISI histograms: the definition, and that chunking never changes them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.features.isi import INTERVAL_BINS
from nuclr_stream.features.spike_statistics import ISI_BINS, STATISTICS, IsiHistogram, SpikeStatistics, l1_normalised
from nuclr_stream.windows.binning import WindowSpec

RATE = Fraction(30000)


def test_an_interval_falls_in_its_log_spaced_bin():
    histogram = IsiHistogram(2, RATE)
    histogram.push(np.array([0, 300, 3000]), np.array([1, 1, 1]))  # 10 ms, then 90 ms
    expected = np.floor(np.log([10.0, 90.0]) / np.log(3000.0) * ISI_BINS).astype(int)
    assert np.flatnonzero(histogram.counts[1]).tolist() == expected.tolist()
    assert not histogram.counts[0].any()


def test_intervals_outside_1_ms_to_3_s_are_in_no_bin():
    histogram = IsiHistogram(1, RATE)
    histogram.push(
        np.array([0, 29, 29 + 90_000, 29 + 90_000 + 89_999]), np.zeros(4, dtype=int)
    )  # 0.97 ms, 3 s, 2.99997 s
    assert histogram.counts.sum() == 1
    assert histogram.counts[0, ISI_BINS - 1] == 1


def test_units_do_not_share_intervals():
    histogram = IsiHistogram(2, RATE)
    histogram.push(np.array([0, 100, 3000, 3100]), np.array([0, 1, 0, 1]))
    assert histogram.counts.sum(axis=1).tolist() == [1, 1]
    assert (histogram.counts[0] == histogram.counts[1]).all()


@given(st.data())
def test_any_chunking_gives_the_same_histogram(data: st.DataObject):
    spikes = data.draw(st.integers(0, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    start = data.draw(st.sampled_from([0, 2**40]))
    samples = start + np.sort(rng.integers(0, 400_000, spikes))
    rows = rng.integers(0, 4, spikes)
    whole, parts = IsiHistogram(4, RATE), IsiHistogram(4, RATE)
    whole.push(samples, rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, spikes), max_size=5)))
    for a, b in zip([0, *cuts], [*cuts, spikes], strict=True):
        parts.push(samples[a:b], rows[a:b])
    np.testing.assert_array_equal(parts.counts, whole.counts)


def test_a_histogram_sums_to_one_or_stays_empty():
    shares = l1_normalised(np.array([[1, 3], [0, 0]]))
    np.testing.assert_array_equal(shares, np.array([[0.25, 0.75], [0.0, 0.0]], dtype=np.float32))
    histogram = IsiHistogram(1, RATE)
    histogram.push(np.array([0, 300, 900]), np.zeros(3, dtype=int))
    assert histogram.normalised().sum() == 1


def test_samples_that_go_back_are_rejected():
    with pytest.raises(ValueError, match="position 2"):
        IsiHistogram(1, RATE).push(np.array([5, 9, 8]), np.zeros(3, dtype=int))


# -- spike statistics --------------------------------------------------------------------------------------------------

SPEC = WindowSpec(Fraction(50), 50, 10, 50)


def statistics_of(counts: np.ndarray, intervals: np.ndarray, *, parts: list[int], spec: WindowSpec = SPEC):
    """Statistics of counts (U, patches * bins) and intervals (U, 17), given in parts of so many patches."""
    gathered, everyone, bins = SpikeStatistics(spec), np.arange(len(counts)), spec.bins_per_patch
    gathered.add_intervals(everyone, intervals)
    for a, b in zip([0, *parts], [*parts, counts.shape[1] // bins], strict=True):
        gathered.add_counts(everyone, counts[:, a * bins : b * bins].astype(np.float32))
    return gathered


def directly(counts: np.ndarray, intervals: np.ndarray, *, patch: int = 50, bin_s: float = 0.02) -> np.ndarray:
    """The 20 features of one unit by their formulas: counts (bins,), intervals (17,)."""
    seconds = len(counts) * bin_s
    found = [*np.sqrt(intervals[1:] / max(intervals[1:].sum(), 1)), np.log((counts.sum() + 0.5) / seconds)]
    for scale in (1, patch // 10, patch):
        sums = counts.reshape(-1, scale).sum(axis=1)
        found.append(np.log((sums.var() + 0.1 / seconds) / (sums.mean() + 0.1 / seconds)))
    return np.array(found)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05, 3.0]), st.lists(st.integers(0, 8), max_size=4))
def test_statistics_are_those_of_their_formulas_for_any_chunking(seed: int, rate: float, parts: list[int]):
    rng = np.random.default_rng(seed)
    counts, intervals = rng.poisson(rate, (3, 8 * 50)), rng.poisson(3 * rate, (3, INTERVAL_BINS))
    gathered, everyone = statistics_of(counts, intervals, parts=sorted(parts)), np.arange(3)
    expected = np.array([directly(c, i) for c, i in zip(counts, intervals, strict=True)])
    assert gathered.features(everyone).shape == (3, STATISTICS)
    assert gathered.features(everyone) == pytest.approx(expected, abs=1e-4)
    assert gathered.seconds(everyone).tolist() == [8.0] * 3
    assert gathered.spikes(everyone).tolist() == counts.sum(axis=1).tolist()
    assert np.array_equal(gathered.intervals(everyone), intervals)


@pytest.mark.parametrize("bins_per_patch", [1, 5, 10, 25, 50, 64, 97])
def test_patches_of_any_length_are_made_of_whole_parts(bins_per_patch: int):
    spec = WindowSpec(Fraction(50), bins_per_patch, 4, bins_per_patch)
    gathered = SpikeStatistics(spec)
    gathered.add_counts(np.arange(2), np.ones((2, bins_per_patch), dtype=np.float32))
    gathered.add_counts(np.arange(2), np.ones((2, 3 * bins_per_patch), dtype=np.float32))
    assert np.isfinite(gathered.features(np.arange(2))).all()


def test_statistics_of_a_unit_nobody_saw_are_finite():
    gathered = SpikeStatistics(SPEC)
    assert np.isfinite(gathered.features(np.array([3]))).all()
    assert gathered.seconds(np.array([3])).tolist() == [0]


def test_merged_units_are_described_as_the_sum_of_both():
    rng = np.random.default_rng(0)
    counts, intervals = rng.poisson(0.3, (2, 400)), rng.poisson(3, (2, INTERVAL_BINS))
    gathered = statistics_of(counts, intervals, parts=[])
    gathered.merge(1, 0)
    assert gathered.spikes(np.array([0, 1])).tolist() == [counts.sum(), 0]
    gathered.reindex({0: 7})
    assert gathered.intervals(np.array([7]))[0].tolist() == intervals.sum(axis=0).tolist()
