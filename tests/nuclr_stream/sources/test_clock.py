"""Clocks: odd rates stay exact over ten hours, and the drift of a device's clock is estimated despite delays."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from nuclr_stream.sources.clock import DeviceClock
from nuclr_stream.stream.population import Population
from nuclr_stream.windows.binning import WindowRules, WindowSpec
from tests.nuclr_stream.streams import Source

HOURS = 10
HOP_S = 50


@pytest.mark.parametrize(("text", "exact"), [("24414.0625", (390_625, 16)), ("29999.96", (749_999, 25))])
def test_windows_of_an_odd_rate_stand_on_the_right_sample_after_ten_hours(text: str, exact: tuple[int, int]) -> None:
    rate = Fraction(*exact)
    spec = WindowSpec(Fraction(50), 50, 10, 50 * HOP_S)
    source = Source(sample_rate=text)
    population = Population(spec, WindowRules(cut_silence=False), stream="probeA", max_units=4)
    population.push(source.units(2))
    ends, counts = [], []
    for step in range(1, HOURS * 3600 // HOP_S + 1):
        # the first sample of the window's last bin and the one before it, by arithmetic of our own
        edge = math.ceil((step * HOP_S * 50 - 1) * rate / 50)
        start, stop = math.ceil((step - 1) * HOP_S * rate), math.ceil(step * HOP_S * rate)
        population.push(source.spikes(start, stop, [(edge - 1, 0), (edge, 1)]))
        while (window := population.cut(0)) is not None:
            ends.append((window.end_bin, window.end_sample))
            counts.append(window.counts[:, -2:])
    assert len(ends) == HOURS * 3600 // HOP_S
    assert ends == [(k * HOP_S * 50, math.ceil(k * HOP_S * rate)) for k in range(1, len(ends) + 1)]
    assert all(np.array_equal(one, [[1, 0], [0, 1]]) for one in counts), "a sample apart, a bin apart"
    assert population.counters["spikes_accepted"] == 2 * len(ends)


@pytest.mark.parametrize("ppm", [-80.0, 0.0, 35.0])
def test_drift_is_estimated_from_what_was_held_up_least(ppm: float) -> None:
    rng = np.random.default_rng(3)
    clock = DeviceClock(Fraction(30_000))
    for block in range(20_000):
        sample = 600 * (block + 1)
        made_s = sample / 30_000 / (1 + ppm / 1e6)
        clock.note(sample, 1_000.0 + made_s + rng.exponential(0.004))
    assert clock.drift_ppm == pytest.approx(ppm, abs=3.0)
    assert clock.report()["over_s"] == pytest.approx(399, abs=2)


def test_no_drift_is_told_of_too_little() -> None:
    clock = DeviceClock(Fraction(30_000))
    assert clock.report() == {"drift_ppm": None, "over_s": 0.0}
    clock.note(0, 5.0)
    clock.note(90_000, 8.0)
    assert clock.report() == {"drift_ppm": None, "over_s": 3.0}
