"""Coupling: sums of a direct computation however spikes come and windows are cut, and lags of the right sign."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.features import coupling as coupling_module
from nuclr_stream.features.coupling import (
    COUPLING,
    COUPLING_SUMS,
    FINE_BINS_PER_SECOND,
    LAG_EDGES,
    REACH,
    Coupling,
    CouplingCounts,
)
from nuclr_stream.stream.population import Population
from nuclr_stream.windows.binning import Grid, WindowRules, WindowSpec
from nuclr_stream.wire import UnitAction
from tests.nuclr_stream.streams import Source

SPEC = WindowSpec(Fraction(50), 50, 10, 50)
UNITS = 4
EVERYONE = np.arange(UNITS)
LAGS = np.arange(-REACH, REACH + 1)


def everybody(units: np.ndarray) -> np.ndarray:
    return units


def fine_bins(samples: np.ndarray, *, rate: Fraction, origin: int = 0) -> np.ndarray:
    """The 2 ms bins of samples, in exact arithmetic."""
    return np.array([(int(s) - origin) * FINE_BINS_PER_SECOND // rate for s in samples], dtype=np.int64)


def directly(bins: np.ndarray, units: np.ndarray, references: set[int], *, number: int = UNITS) -> np.ndarray:
    """Sums (U, COUPLING_SUMS) spike by spike: the others' at every lag, own, the others' in total, and bins."""
    sums = np.zeros((number, COUPLING_SUMS), dtype=np.int64)
    inside = np.array([b in references for b in bins.tolist()], dtype=bool)
    for unit in range(number):
        others = bins[units != unit]
        for reference in bins[inside & (units == unit)]:
            lags = others - reference
            sums[unit, : len(LAGS)] += np.bincount(lags[np.abs(lags) <= REACH] + REACH, minlength=len(LAGS))
        sums[unit, -3:] = (inside & (units == unit)).sum(), (inside & (units != unit)).sum(), len(references)
    return sums


@settings(max_examples=80)
@given(st.data())
def test_any_chunking_order_and_cutting_give_the_sums_of_a_direct_computation(data: st.DataObject):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rate = data.draw(st.sampled_from([Fraction(1000), Fraction(30_000), Fraction(90_000, 7), Fraction(499)]))
    origin = data.draw(st.sampled_from([0, 2**40]))
    total = int(3 * rate)  # 1500 fine bins: several chunks of one product
    number = data.draw(st.integers(0, 300))
    samples = origin + (total * rng.random(number) ** data.draw(st.sampled_from([1, 6]))).astype(np.int64)
    units = rng.integers(0, UNITS, number)
    ends = [*sorted(data.draw(st.lists(st.integers(1, total - 1), max_size=5))), total]
    length = data.draw(st.sampled_from([total // 20, total]))  # windows with time between them, or overlapping ones
    counted = CouplingCounts(Grid(rate, Fraction(50), origin))
    sums, came, references, taken = np.zeros((UNITS, COUPLING_SUMS), np.int64), np.zeros(number, bool), set(), None
    for end in ends:
        # all that lies before the end has come, some of what lies behind it too, and none of it in order
        now = np.flatnonzero(~came & ((samples < origin + end) | (rng.random(number) < 0.3)))
        came[now] = True
        for chunk in np.array_split(rng.permutation(now), 3):
            counted.add(samples[chunk], units[chunk])
        first = max(end - length, 0)
        sums += counted.take(origin + first, origin + end, EVERYONE, everybody)
        start, stop = fine_bins(np.array([first, end]), rate=rate)
        references |= set(range(start if taken is None else max(start, taken), stop - REACH))
        taken = stop - REACH
    assert np.array_equal(sums, directly(fine_bins(samples, rate=rate, origin=origin), units, references))


def test_the_last_50_ms_of_a_window_count_in_the_next_and_once():
    counted = CouplingCounts(Grid(Fraction(1000), Fraction(50)))
    counted.add(np.array([949, 950, 951]), np.array([0, 0, 1]))
    first = counted.take(0, 1000, EVERYONE, everybody)
    second = counted.take(500, 1500, EVERYONE, everybody)
    third = counted.take(1000, 2000, EVERYONE, everybody)
    assert first[:, -3].tolist() == [1, 0, 0, 0], "the reference at 949 ms, with all that lies within 50 ms of it"
    assert second[:, -3].tolist() == [1, 1, 0, 0] and not third[:, -3].any()
    assert [sums[0, -1] for sums in (first, second, third)] == [475, 250, 250]


def test_spikes_of_units_that_are_not_there_count_nowhere():
    counted = CouplingCounts(Grid(Fraction(1000), Fraction(50)))
    counted.add(np.array([500, 502, 504]), np.array([7, 1, 3]))
    sums = counted.take(0, 1000, np.array([1, 3]), lambda units: np.searchsorted([1, 3, 7], units) % 2 - (units == 7))
    assert sums[:, -3:].tolist() == [[1, 1, 475], [1, 1, 475]]
    assert np.flatnonzero(sums[0, : len(LAGS)]).tolist() == [REACH + 1]


def test_the_spikes_of_a_merged_unit_that_still_wait_are_those_of_its_target():
    source = Source()
    population = Population(SPEC, WindowRules(), stream="probeA", max_units=16)
    for message in (
        source.units(3),
        source.spikes(0, 10_000, [(9_960, 0), (9_970, 1), (9_980, 2)]),
        source.table([(UnitAction.MERGE, 1, 0)]),
        source.spikes(10_000, 11_000, [(10_100, 0)]),
    ):
        population.push(message)
    before, after = population.cut(0), population.cut(0)
    assert before is not None and after is not None
    assert before.coupling[:, -3].tolist() == [0, 0, 0], "nothing is known yet of the 50 ms after these spikes"
    assert after.unit_index.tolist() == [0, 2]
    assert after.coupling[:, -3].tolist() == [3, 1] and after.coupling[:, -2].tolist() == [1, 3]
    lags = {int(LAGS[k]): after.coupling[0, k] for k in np.flatnonzero(after.coupling[0, : len(LAGS)])}
    assert lags == {5: 1, 10: 1}, "unit 2 at 10 and 20 ms after the two; neither sees the other as another unit"


# -- features ----------------------------------------------------------------------------------------------------------


def features_of(trains: list[np.ndarray], *, seconds: int, rate: int = 1000) -> np.ndarray:
    """Features (U, COUPLING) of spike samples, in windows of 10 s every second."""
    counted, gathered, everyone = CouplingCounts(Grid(Fraction(rate), Fraction(50))), Coupling(), np.arange(len(trains))
    for unit, samples in enumerate(trains):
        counted.add(samples, np.full(len(samples), unit))
    for end in range(10, seconds + 1):
        gathered.add(everyone, counted.take((end - 10) * rate, end * rate, everyone, everybody))
    return gathered.features(everyone)


def poisson(rng: np.random.Generator, rate_hz: float, seconds: int) -> np.ndarray:
    return np.sort(rng.integers(0, seconds * 1000, rng.poisson(rate_hz * seconds)))


def feature_at(milliseconds: float) -> int:
    """The feature whose lags hold this one."""
    return int(np.searchsorted(LAG_EDGES, milliseconds / 2, side="right")) - 1


@pytest.mark.parametrize("delay_ms", [4, -4, 14])
def test_a_unit_that_follows_the_population_has_its_peak_at_the_lag_before_it(delay_ms: int):
    rng = np.random.default_rng(0)
    population = [poisson(rng, 10, 120) for _ in range(6)]
    drive = np.sort(np.concatenate(population))
    follower = np.unique(drive[rng.random(len(drive)) < 0.2] + delay_ms)
    features = features_of([*population, follower], seconds=120)
    assert features[-1].argmax() == feature_at(-delay_ms), "at a positive lag the unit fires first"
    assert features[-1].max() > 1.0
    assert features[0].argmax() == feature_at(delay_ms), "and whom it follows fires before it"


def test_units_that_know_nothing_of_each_other_are_near_zero():
    rng = np.random.default_rng(1)
    features = features_of([poisson(rng, 8, 240) for _ in range(12)], seconds=240)
    assert np.abs(features).max() < 0.25 and abs(float(features.mean())) < 0.01


def test_own_spikes_are_no_coupling():
    rng = np.random.default_rng(2)
    bursts = np.sort((poisson(rng, 5, 120)[:, None] + np.arange(0, 20, 4)).ravel())
    features = features_of([bursts, *(poisson(rng, 8, 120) for _ in range(8))], seconds=120)
    assert np.abs(features[0]).max() < 0.25


def test_few_spikes_say_little_and_none_nothing():
    features = features_of([np.array([5_000]), np.array([5_002]), np.zeros(0, np.int64)], seconds=20)
    assert 0 < features[0].max() <= np.log(3 / 2) + 1e-3
    assert np.isfinite(features).all() and not features[2].any()
    assert Coupling().features(np.array([5])).tolist() == [[0.0] * COUPLING]


def test_the_features_are_ratios_of_sums_that_add_up_over_units_that_merge():
    rng = np.random.default_rng(3)
    sums = rng.integers(1, 50, (2, COUPLING_SUMS))
    gathered, pair = Coupling(), np.array([0, 1])
    gathered.add(pair, sums)
    gathered.add(pair, sums)
    assert gathered.spikes(pair).tolist() == (2 * sums[:, -3]).tolist()
    gathered.merge(1, 0)
    gathered.reindex({0: 9})
    total = 2 * sums.sum(axis=0)
    expected = []
    for low, high in pairwise(LAG_EDGES):
        chance = total[-3] * total[-2] / total[-1] * (high - low)
        expected.append(np.log((total[low + REACH : high + REACH].sum() + 2) / (chance + 2)))
    assert gathered.features(np.array([9]))[0] == pytest.approx(expected, rel=1e-5)
    gathered.forget({9})
    assert not gathered.features(np.array([0, 1, 9])).any()


def test_the_lags_of_the_features_are_all_lags_without_overlap():
    assert (LAG_EDGES[0], LAG_EDGES[-1]) == (-REACH, REACH + 1)
    assert (np.diff(LAG_EDGES) > 0).all() and len(LAG_EDGES) == COUPLING + 1


def test_traces_and_silence_cost_no_product(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(coupling_module, "_count", None)
    counted = CouplingCounts(Grid(Fraction(10), Fraction(10)))
    sums = [counted.take(first, first + 100, EVERYONE, everybody) for first in (0, 10)]
    assert not np.any([one[:, :-1] for one in sums])
    assert [one[:, -1].tolist() for one in sums] == [[4975] * UNITS, [500] * UNITS]
