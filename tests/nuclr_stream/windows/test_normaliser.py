from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nuclr_stream.windows.normaliser import Normalisation, RunningNormaliser, RunningQuantile, running_scales

VALUES = arrays(np.float32, st.integers(1, 400), elements=st.floats(-5, 20, width=32))


def quantile_of(values: np.ndarray, quantile: float) -> float:
    running = RunningQuantile()
    running.add(values)
    return running.at(quantile)


@given(values=VALUES, quantile=st.floats(0.5, 0.999))
@example(values=np.array([7e-45], np.float32), quantile=0.5)
def test_the_running_quantile_is_within_a_128th_of_values_beside_its_rank(values, quantile):
    ordered, rank = np.sort(values), quantile * (len(values) - 1)
    below, above = float(ordered[int(rank)]), float(ordered[min(int(rank) + 1, len(values) - 1)])
    found = quantile_of(values, quantile)
    if below > 0:
        subnormal = 1e-40  # the spacing of what cannot be within a 128th of its size
        assert below * (1 - 1 / 128) - subnormal <= found <= above * (1 + 1 / 128) + subnormal
    elif above <= 0:
        assert found == 0


@given(values=VALUES, cut=st.integers(0, 400), seed=st.integers(0, 100))
def test_neither_chunks_nor_order_change_a_bit(values, cut, seed):
    running = RunningQuantile()
    mixed = np.random.default_rng(seed).permutation(values)
    running.add(mixed[:cut])
    running.add(mixed[cut:])
    assert running.at(0.99) == quantile_of(values, 0.99)


def test_it_follows_numpys_percentile_of_a_recording():
    values = np.random.default_rng(0).gamma(0.5, 1.0, (60, 3000)).astype(np.float32)
    assert quantile_of(values, 0.99) == pytest.approx(float(np.quantile(values, 0.99)), rel=1 / 128)


def test_a_day_of_values_takes_no_more_memory_than_a_minute():
    running = RunningQuantile()
    before = running._above_zero.nbytes
    for _ in range(50):
        running.add(np.ones((1000, 100), dtype=np.float32))
    assert running._above_zero.nbytes == before == 2**15 * 8


def test_nothing_and_what_is_never_above_zero_have_no_scale():
    assert quantile_of(np.zeros(0, dtype=np.float32), 0.99) == 0
    assert quantile_of(np.full(10, -1, dtype=np.float32), 0.99) == 0


def in_windows(traces: np.ndarray, observed: np.ndarray, hop: int, warm_up: int = 0) -> list[tuple[np.ndarray, str]]:
    """Windows of 8 frames of a whole recording, normalised one after the other."""
    normaliser = RunningNormaliser(Normalisation(quantile=0.9, warm_up_frames=warm_up))
    return [
        normaliser.normalise(traces[:, end - 8 : end], observed[end - 8 : end], end_bin=end)
        for end in range(8, traces.shape[1] + 1, hop)
    ]


@pytest.mark.parametrize("hop", [1, 4, 8])
def test_a_window_is_divided_by_what_was_seen_up_to_its_end_and_no_more(hop):
    rng = np.random.default_rng(1)
    traces, observed = rng.gamma(1, 1, (5, 64)).astype(np.float32), rng.random(64) < 0.8
    for k, (window, exclusion) in enumerate(in_windows(traces, observed, hop)):
        end = 8 + k * hop
        scale = quantile_of(traces[:, :end][:, observed[:end]], 0.9)
        assert np.array_equal(window, traces[:, end - 8 : end] / np.float32(scale))
        assert not exclusion


def test_what_comes_later_changes_no_window():
    rng = np.random.default_rng(2)
    traces = rng.gamma(1, 1, (5, 64)).astype(np.float32)
    changed = traces.copy()
    changed[:, 40:] *= 100
    everything = np.ones(64, dtype=bool)
    before, after = in_windows(traces, everything, 4)[:9], in_windows(changed, everything, 4)[:9]
    for (one, _), (other, _) in zip(before, after, strict=True):
        assert np.array_equal(one, other)


def test_windows_before_the_warm_up_are_rejected():
    traces, observed = np.ones((3, 32), dtype=np.float32), np.arange(32) >= 4
    exclusions = [exclusion for _, exclusion in in_windows(traces, observed, 4, warm_up=12)]
    assert exclusions == ["normaliser"] * 2 + [""] * 5, "12 observed frames: from frame 16 on"


def test_traces_that_are_never_above_zero_are_rejected_and_left_alone():
    traces = np.full((3, 16), -0.5, dtype=np.float32)
    for window, exclusion in in_windows(traces, np.ones(16, dtype=bool), 8):
        assert exclusion == "normaliser"
        assert np.array_equal(window, traces[:, :8])


def test_the_scale_of_every_frame_is_that_of_a_window_that_ends_there():
    rng = np.random.default_rng(3)
    traces, observed = rng.gamma(1, 1, (5, 32)).astype(np.float32), rng.random(32) < 0.7
    scales = running_scales(traces, observed, 0.9)
    for k, (window, _) in enumerate(in_windows(traces, observed, 1)):
        assert np.array_equal(window, traces[:, k : k + 8] / scales[k + 8])


@pytest.mark.parametrize("wrong", [{"quantile": 0.0}, {"quantile": 1.0}, {"warm_up_frames": -1}])
def test_senseless_settings_are_rejected(wrong):
    with pytest.raises(ValueError, match="quantile must be within"):
        Normalisation(**wrong)
