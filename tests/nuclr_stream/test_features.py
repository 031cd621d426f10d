"""ISI histograms: the definition, and that chunking never changes them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclr_stream.features import ISI_BINS, IsiHistogram, l1_normalised

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


def test_samples_that_go_back_are_refused():
    with pytest.raises(ValueError, match="position 2"):
        IsiHistogram(1, RATE).push(np.array([5, 9, 8]), np.zeros(3, dtype=int))
