"""How samples become bins and bins become windows: exactly, on any clock, however long."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclr_stream.windows.binning import (
    MAX_SAMPLE,
    Grid,
    WindowRules,
    WindowSpec,
    active_units,
    count,
    first_window_end,
    rational,
    silence_bins,
    touches_silence,
)

RATES = st.sampled_from([30000, 24414.0625, 29999.96, 20000, "100000/3"])
BINS = st.sampled_from([Fraction(50), Fraction(20), Fraction(100000, 23344)])
SPEC = WindowSpec(Fraction(50), bins_per_patch=50, patches=10, hop_bins=50)


@given(RATES, BINS, st.integers(-(2**40), 2**40), st.integers(-MAX_SAMPLE // 2, MAX_SAMPLE // 2))
def test_a_bin_is_the_exact_floor_of_rational_arithmetic(rate, bins_per_second, origin, sample):
    grid = Grid(rational(rate), bins_per_second, origin)
    expected = (Fraction(sample - origin) * bins_per_second / rational(rate)).__floor__()
    assert int(grid.bin_of(sample)) == expected


@given(RATES, BINS, st.integers(-(2**40), 2**40), st.integers(-(10**9), 10**9))
def test_first_sample_is_the_smallest_sample_of_its_bin(rate, bins_per_second, origin, bin_index):
    grid = Grid(rational(rate), bins_per_second, origin)
    first = grid.first_sample(bin_index)
    assert grid.bin_of([first - 1, first]).tolist() == [bin_index - 1, bin_index]


@given(RATES, st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40))
def test_complete_bins_end_at_or_before_the_watermark(rate, origin, watermark):
    grid = Grid(rational(rate), Fraction(50), origin)
    end = grid.complete_bins(watermark)
    assert grid.first_sample(end) <= watermark < grid.first_sample(end + 1)


@given(RATES, st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40))
def test_bin_from_is_the_first_bin_that_begins_no_earlier(rate, origin, sample):
    grid = Grid(rational(rate), Fraction(50), origin)
    first = int(grid.bin_from(sample))
    assert grid.first_sample(first - 1) < sample <= grid.first_sample(first)


@pytest.mark.parametrize(("rate", "samples"), [(24414.0625, 878_906_250), (29999.96, 1_079_998_560)])
def test_odd_clocks_drift_nowhere_in_ten_hours(rate, samples):
    assert int(Grid(rational(rate), Fraction(50)).bin_of(samples)) == 36_000 * 50


def test_twenty_milliseconds_at_30_khz_are_600_samples():
    grid = Grid(rational(30000), Fraction(50))
    assert grid.bin_of([0, 599, 600, -1]).tolist() == [0, 0, 1, -1]


@given(st.data(), RATES, st.integers(-(2**45), 2**45))
def test_any_chunking_of_the_same_spikes_gives_the_same_counts(data, rate, clock):
    grid = Grid(rational(rate), Fraction(50), origin=clock)
    spikes = data.draw(st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 3)), max_size=60))
    samples = np.array([clock + s for s, _ in spikes], dtype=np.int64)
    rows = np.array([r for _, r in spikes], dtype=np.int64)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(spikes)), max_size=5)))
    whole = count(samples, rows, units=4, grid=grid, first_bin=0, bins=50)
    parts = zip([0, *cuts], [*cuts, len(spikes)], strict=True)
    pieces = [count(samples[a:b], rows[a:b], units=4, grid=grid, first_bin=0, bins=50) for a, b in parts]
    assert np.array_equal(sum(pieces), whole)
    assert whole.sum() == (grid.bin_of(samples) < 50).sum()


def test_samples_that_cannot_be_binned_exactly_are_rejected():
    with pytest.raises(OverflowError, match=r"2\*\*53"):
        Grid(rational(30000), Fraction(50)).bin_of([2**60])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -3, "3/0", "fast", 2**41])
def test_a_rate_must_be_a_positive_finite_number(value):
    with pytest.raises(ValueError, match=r"finite|above 0"):
        rational(value)


def test_the_published_calcium_window_is_128_frames():
    spec = WindowSpec(1 / rational(0.23344), bins_per_patch=4, patches=32, hop_bins=4, input_kind="traces")
    assert spec.bins == 128
    assert spec.window_s == pytest.approx(128 * 0.23344)


def test_a_hop_is_a_whole_number_of_bins():
    assert SPEC.with_hop_s(0.5).hop_bins == 25
    with pytest.raises(ValueError, match="whole number of bins"):
        SPEC.with_hop_s(0.03)


@given(st.integers(-5000, 5000), st.integers(1, 700))
def test_the_first_window_ends_on_a_multiple_of_the_hop_and_holds_no_earlier_bin(first_bin, hop):
    spec = WindowSpec(Fraction(50), 50, 10, hop)
    end = first_window_end(first_bin, spec)
    assert end % hop == 0
    assert first_bin <= end - spec.bins < first_bin + hop


def test_only_units_that_fired_enter_the_encoder_but_every_trace_does():
    counts = np.array([[0, 2, 0], [0, 0, 0]], dtype=np.float32)
    assert active_units(counts, "spikes").tolist() == [True, False]
    assert active_units(counts, "traces").tolist() == [True, True]


def _totals(*silent_bins: range) -> np.ndarray:
    totals = np.ones(SPEC.bins + silence_bins(SPEC))
    for bins in silent_bins:
        totals[bins.start : bins.stop] = 0
    return totals


def test_a_whole_silent_second_of_the_grid_rejects_the_windows_that_touch_it_or_the_second_after():
    assert touches_silence(_totals(range(100, 150)), SPEC, first_bin=950)
    assert touches_silence(_totals(range(0, 50)), SPEC, first_bin=950), "the second before the window"
    assert not touches_silence(_totals(range(110, 159)), SPEC, first_bin=950), "no whole second"
    assert not touches_silence(_totals(range(100, 150)), SPEC, first_bin=960), "not on the grid of seconds"


def test_missing_bins_are_not_silent():
    totals = _totals(range(100, 150))
    totals[120] = -1
    assert not touches_silence(totals, SPEC, first_bin=950)


def test_traces_are_never_silent():
    traces = WindowSpec(Fraction(50), 50, 10, 50, "traces")
    assert not touches_silence(np.zeros(550), traces, first_bin=0)


@pytest.mark.parametrize(
    ("missing", "masked", "silent", "exclusion"),
    [(0, 0, 0, ""), (0.1, 0, 0, ""), (0.11, 1, 1, "gap"), (0, 1, 1, "mask"), (0, 0, 1, "silence")],
)
def test_a_window_is_rejected_for_missing_data_then_masks_then_silence(missing, masked, silent, exclusion):
    assert WindowRules().exclusion(missing=missing, masked=bool(masked), silent=bool(silent)) == exclusion


def test_the_silence_rule_can_be_switched_off():
    assert WindowRules(cut_silence=False).exclusion(missing=0, masked=False, silent=True) == ""
