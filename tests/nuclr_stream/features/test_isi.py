"""Interval counts: those of the sorted whole recording, however the spikes come in and wherever the windows are cut."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.features.coupling import COUPLING_SUMS
from nuclr_stream.features.isi import INTERVAL_BINS, Intervals
from nuclr_stream.stream.population import Population
from nuclr_stream.stream.units import Operation
from nuclr_stream.stream.window import Window
from nuclr_stream.windows.binning import WindowRules, WindowSpec
from nuclr_stream.wire import UnitAction
from tests.nuclr_stream.streams import Source

RATE = Fraction(30_000)
SPEC = WindowSpec(Fraction(50), 50, 10, 50)
EDGES_S = np.append(0.0, np.geomspace(0.001, 3.0, INTERVAL_BINS))
EVERYONE = np.arange(4)


def everybody(units: np.ndarray) -> np.ndarray:
    return units


def of_whole(samples: np.ndarray, units: np.ndarray, *, rate: Fraction = RATE) -> np.ndarray:
    """Interval counts (U, 17) by sorting each unit's spikes."""
    intervals_s = [np.diff(np.sort(samples[units == u])) / float(rate) for u in EVERYONE]
    return np.array([np.histogram(one[one < 3], EDGES_S)[0] for one in intervals_s])


@settings(max_examples=60)
@given(st.data())
def test_any_chunking_any_order_and_any_windows_give_the_intervals_of_the_whole(data: st.DataObject):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    spikes = data.draw(st.integers(0, 80))
    start = data.draw(st.sampled_from([0, 2**40]))
    samples = start + rng.integers(0, data.draw(st.sampled_from([300, 30_000, 600_000])), spikes)
    units = rng.integers(0, 4, spikes)
    ends = start + np.array([*sorted(data.draw(st.lists(st.integers(1, 600_000), max_size=5))), 600_001])
    counted, intervals, came = np.zeros((4, INTERVAL_BINS), dtype=np.int64), Intervals(RATE), np.zeros(spikes, bool)
    for end in ends.tolist():
        # all that lies before the end has come, some of what lies behind it too, and none of it in order
        now = np.flatnonzero(~came & ((samples < end) | (rng.random(spikes) < 0.3)))
        came[now] = True
        for chunk in np.array_split(rng.permutation(now), 3):
            intervals.add(samples[chunk], units[chunk])
        counted += intervals.take(end, EVERYONE, everybody)
    assert np.array_equal(counted, of_whole(samples, units))


@pytest.mark.parametrize(
    ("interval_samples", "place"),
    [(0, 0), (29, 0), (30, 1), (300, 5), (89_999, 16), (90_000, None)],
)
def test_the_first_bin_ends_at_1_ms_and_the_last_at_3_s(interval_samples: int, place: int | None):
    intervals = Intervals(RATE)
    intervals.add(np.array([1000, 1000 + interval_samples]), np.array([2, 2]))
    counted = intervals.take(10**6, EVERYONE, everybody)
    assert counted.sum() == (place is not None)
    assert place is None or counted[2, place] == 1


def test_an_interval_belongs_to_the_window_of_its_second_spike():
    intervals = Intervals(RATE)
    intervals.add(np.array([100, 31_000]), np.array([0, 0]))
    assert intervals.take(30_000, EVERYONE, everybody).sum() == 0
    assert intervals.take(60_000, EVERYONE, everybody).sum() == 1
    assert intervals.take(90_000, EVERYONE, everybody).sum() == 0


def test_spikes_of_units_that_are_not_there_count_nowhere_and_leave_nothing_behind():
    intervals = Intervals(RATE)
    intervals.add(np.array([100, 200, 300]), np.array([7, 7, 1]))
    counted = intervals.take(1000, np.array([1]), lambda units: np.where(units == 1, 0, -1))
    assert counted.tolist() == [[0] * INTERVAL_BINS]
    intervals.add(np.array([400]), np.array([7]))
    assert intervals.take(2000, np.array([1, 7]), lambda units: np.searchsorted([1, 7], units)).sum() == 0


def test_spikes_of_a_merged_unit_that_still_wait_are_those_of_its_target():
    source = Source()
    population = Population(SPEC, WindowRules(), stream="probeA", max_units=16)
    rows = [(UnitAction.ADD, i, f"u{i}") for i in range(3)]
    for message in (
        source.table(rows, full=True),
        source.spikes(0, 10_000, [(9_900, 0), (9_910, 1), (9_970, 1)]),
        source.table([(UnitAction.MERGE, 1, 0)]),
        source.spikes(10_000, 11_000, [(10_100, 0), (10_110, 2)]),
    ):
        population.push(message)
    before, after = population.cut(0), population.cut(0)
    assert before is not None and after is not None
    assert before.unit_index.tolist() == [0, 1, 2], "the window was complete before the merge came"
    assert before.intervals.sum(axis=1).tolist() == [0, 1, 0]
    assert after.unit_index.tolist() == [0, 2]
    assert after.intervals.sum(axis=1).tolist() == [1, 0]


def test_late_spikes_are_in_the_intervals_of_their_window():
    messages = [("late", 9_000, 9_500, [(9_100, 0)]), ("more", 9_500, 11_500, [(9_600, 0), (10_700, 0)])]
    found = []
    for order in (messages, messages[::-1]):
        source = Source()
        population = Population(SPEC, WindowRules(max_missing=1.0), stream="probeA", max_units=16, lateness_s=2.0)
        population.push(source.units(1))
        population.push(source.spikes(0, 9_000, [(8_990, 0)]))
        for _, start, stop, spikes in order:
            population.push(source.spikes(start, stop, spikes))
        population.push(source.end(11_500))
        windows = []
        while (window := population.cut(0)) is not None:
            windows.append(window)
        found.append([window.intervals[0].tolist() for window in windows])
    assert found[0] == found[1]
    assert np.sum(found[0]) == 3


def window(end_bin: int, units: list[int], intervals: list[int], **other) -> Window:
    """A window of these units, each with so many intervals in the last bin."""
    counted = np.zeros((len(units), INTERVAL_BINS), dtype=np.int32)
    counted[:, -1] = intervals
    everybody_is_there = np.ones(len(units), dtype=bool)
    plain = Window(
        stream="p",
        epoch=1,
        step=end_bin,
        end_bin=end_bin,
        end_sample=end_bin,
        sample_rate=RATE,
        origin=0,
        closed_ns=0,
        unit_index=np.array(units),
        unit_ids=tuple(map(str, units)),
        counts=np.zeros((len(units), 1), dtype=np.float32),
        eligible=everybody_is_there,
        active=everybody_is_there,
        intervals=counted,
        coupling=np.repeat(counted[:, -1:], COUPLING_SUMS, axis=1).astype(np.int64),
        missing=0.0,
        exclusion="",
        observed=np.ones(1, dtype=np.bool_),
        operations=(),
    )
    return replace(plain, **other)


def test_a_window_that_is_overtaken_gives_its_intervals_and_couplings_to_the_next():
    merged = (Operation("merge", source=1, target=0), Operation("forget", source=2))
    newer = window(2, [0, 3, 4], [10, 20, 30], operations=merged)
    taken = newer.superseding(window(1, [0, 1, 2, 3], [1, 2, 3, 4]))
    assert taken.intervals[:, -1].tolist() == [13, 24, 30], "those of a merged unit go to its target"
    assert taken.coupling[:, 0].tolist() == taken.coupling[:, -1].tolist() == [13, 24, 30]
    assert taken.operations == merged and taken.skipped_steps == 1
    rejected = newer.superseding(window(1, [0, 1, 2, 3], [1, 2, 3, 4], exclusion="mask"))
    assert rejected.intervals[:, -1].tolist() == [10, 20, 30]
    other_epoch = newer.superseding(window(1, [0, 1, 2, 3], [1, 2, 3, 4], epoch=0))
    assert other_epoch.intervals[:, -1].tolist() == [10, 20, 30]
