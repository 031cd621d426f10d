"""Neighbourhood: correlations of the time that both units of a pair existed, and whom a unit rises and falls with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.features.neighbourhood import NEIGHBOURS, Coactivity, nearest_units, with_neighbourhood


def pearson(activity: np.ndarray) -> np.ndarray:
    """Correlations (U, U) of activity (U, time), NaN where a unit was not there; 0 where a pair never varied."""
    units = len(activity)
    expected = np.zeros((units, units))
    for i in range(units):
        for j in range(units):
            common = ~np.isnan(activity[i]) & ~np.isnan(activity[j])
            x, y = activity[i, common], activity[j, common]
            if len(x) and np.ptp(x) > 0 and np.ptp(y) > 0:
                expected[i, j] = np.corrcoef(x, y)[0, 1]
    return expected


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 4), min_size=1, max_size=12))
def test_correlations_are_those_of_the_common_time_of_each_pair(seed: int, steps: list[int]):
    rng = np.random.default_rng(seed)
    coactivity, history = Coactivity(), np.zeros((6, 0))
    for patches in steps:
        there = np.flatnonzero(rng.random(6) < 0.7)
        activity = rng.integers(0, 30, (len(there), patches)).astype(float)
        coactivity.add(there, activity)
        block = np.full((6, patches), np.nan)
        block[there] = activity
        history = np.hstack([history, block])
    asked = np.flatnonzero(rng.random(6) < 0.8)
    found = coactivity.correlation(asked)
    assert found == pytest.approx(pearson(history)[np.ix_(asked, asked)], abs=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.data())
def test_units_that_go_leave_the_others_as_they_were_and_new_names_keep_what_was_known(seed: int, data: st.DataObject):
    rng = np.random.default_rng(seed)
    activity = rng.integers(0, 30, (5, 12)).astype(float)
    coactivity, index = Coactivity(), np.array([2, 3, 5, 8, 13])
    coactivity.add(index, activity)
    gone = data.draw(st.integers(0, 4))
    coactivity.forget({int(index[gone]), 77})
    left = np.delete(np.arange(5), gone)
    assert coactivity.correlation(index[left]) == pytest.approx(pearson(activity)[np.ix_(left, left)], abs=1e-9)
    kept = data.draw(st.permutations(left.tolist()))[:3]
    names = data.draw(st.permutations(range(20)))[:3]
    coactivity.reindex({int(index[k]): name for k, name in zip(kept, names, strict=True)})
    order = np.argsort(names)
    rows = np.array(kept)[order]
    assert coactivity.correlation(np.sort(names)) == pytest.approx(pearson(activity)[np.ix_(rows, rows)], abs=1e-9)
    assert coactivity._sums.shape == (4, 3, 3), "memory is that of the living units"


def test_a_unit_that_comes_back_under_a_forgotten_index_begins_anew():
    coactivity, pair = Coactivity(), np.array([0, 1])
    coactivity.add(pair, np.array([[1.0, 2, 3], [1, 2, 3]]))
    coactivity.forget({1})
    coactivity.add(pair, np.array([[1.0, 2, 3], [3, 2, 1]]))
    assert coactivity.correlation(pair)[0, 1] == pytest.approx(-1)


def test_a_unit_that_never_varies_is_correlated_with_nobody_however_long_it_fires():
    coactivity, pair = Coactivity(), np.array([0, 1])
    rng = np.random.default_rng(0)
    for _ in range(200):
        coactivity.add(pair, np.array([np.full(10, 0.1), rng.normal(size=10)]))
    found = coactivity.correlation(pair)
    assert found[0, 1] == found[1, 0] == found[0, 0] == 0
    assert found[1, 1] == pytest.approx(1)


def test_units_nobody_knows_are_correlated_with_nobody():
    assert not Coactivity().correlation(np.array([3, 4])).any()
    assert Coactivity().correlation(np.zeros(0, dtype=np.int64)).shape == (0, 0)


@settings(max_examples=40)
@given(units=st.integers(1, 25), seed=st.integers(0, 2**32 - 1))
def test_a_neighbourhood_is_what_a_plain_loop_finds(units: int, seed: int):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(units, 3)).astype(np.float32)
    correlation = rng.uniform(-1, 1, (units, units))
    before = correlation.copy()
    found = with_neighbourhood(features, nearest_units(correlation))
    assert np.array_equal(correlation, before)
    assert found.shape == (units, 12) and found.dtype == np.float32
    for u in range(units):
        others = sorted((v for v in range(units) if v != u), key=lambda v, u=u: -correlation[u, v])[:NEIGHBOURS]
        around = features[others].mean(axis=0) if others else features[u]
        expected = [features[u], around, features.mean(axis=0), features.std(axis=0)]
        assert found[u] == pytest.approx(np.concatenate(expected), abs=1e-5)
