"""The matcher finds the spikes that are there, whichever way the samples arrive, and says what it could not explain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.errors import ConfigError, RecordingError
from nuclr_stream.matching.matcher import Matched, Matcher
from nuclr_stream.matching.settings import MatchingSettings
from tests.nuclr_stream.matching.made import (
    CHANNELS,
    NOISE,
    QUICK,
    RATE,
    TROUGH,
    make,
    share_found,
    templates,
    waveforms,
)


def matched(matcher: Matcher, raw: Any, cuts: Iterable[int] = (), *, first: int = 0) -> list[Matched]:
    """Push the samples in pieces that end at `cuts`."""
    found, start = [], 0
    for stop in [*sorted(cuts), len(raw)]:
        found += matcher.push(raw[start:stop], first_sample=first + start)
        start = stop
    return found


def joined(found: list[Matched]) -> tuple[Any, Any, Any]:
    """Samples, units and amplitudes of all of them."""
    return tuple(np.concatenate([getattr(one, name) for one in found]) for name in ("samples", "units", "amplitudes"))


def test_spikes_are_found_at_their_samples_and_of_their_units() -> None:
    made = make(4.0)
    samples, units, amplitudes = joined(found := matched(Matcher(templates(), settings=QUICK), made.raw))
    assert share_found(made, samples, units, until=found[-1].stop) > 0.98
    assert len(samples) < 1.02 * len(made.samples)
    assert np.median(amplitudes) == pytest.approx(1.0, abs=0.05)


def test_stretches_follow_each_other_and_hold_their_own_spikes() -> None:
    found = matched(Matcher(templates(), settings=QUICK), make().raw)
    assert found[0].start == 0
    assert [one.stop for one in found[:-1]] == [one.start for one in found[1:]]
    for one in found:
        assert ((one.samples >= one.start) & (one.samples < one.stop)).all()
        assert (np.diff(one.samples) >= 0).all()


@settings(max_examples=6)
@given(cuts=st.lists(st.integers(1, int(1.2 * RATE) - 1), max_size=40, unique=True))
def test_the_same_samples_give_the_same_spikes_however_they_arrive(cuts: list[int]) -> None:
    raw = make(1.2).raw
    for one, other in zip(
        joined(matched(Matcher(templates(), settings=QUICK), raw)),
        joined(matched(Matcher(templates(), settings=QUICK), raw, cuts)),
        strict=True,
    ):
        assert np.array_equal(one, other)


def test_latency_is_what_it_says() -> None:
    matcher = Matcher(templates(), settings=QUICK)
    found = matched(matcher, make(2.0).raw)
    assert (2.0 * RATE - found[-1].stop) / RATE * 1000 <= matcher.latency_ms < 40


@pytest.mark.parametrize("apart", [6, 12])
def test_spikes_that_overlap_are_both_found(apart: int) -> None:
    places = range(RATE // 2, 2 * RATE, RATE // 20)
    made = make(2.2, spikes=[(at, 0) for at in places] + [(at + apart, 2) for at in places])
    samples, units, _ = joined(found := matched(Matcher(templates(), settings=QUICK), made.raw))
    assert share_found(made, samples, units, until=found[-1].stop) > 0.9


def test_spikes_of_a_unit_without_a_template_are_counted_and_given_to_nobody() -> None:
    places = range(RATE // 2, 3 * RATE, RATE // 20)
    made = make(3.2, spikes=[(at, 3) for at in places])
    matcher = Matcher(templates((0, 1)), settings=QUICK)
    samples, _, _ = joined(matched(matcher, made.raw))
    assert len(samples) < 0.1 * len(made.samples)
    assert matcher.counters["unassigned"] >= 0.9 * len(made.samples)


def test_a_gap_gives_up_the_open_end_and_goes_on_after_it() -> None:
    made = make(4.0)
    matcher = Matcher(templates(), settings=QUICK)
    gap = (2 * RATE, 2 * RATE + 5_000)
    before = matched(matcher, made.raw[: gap[0]])
    after = matched(matcher, made.raw[gap[1] :], first=gap[1])
    assert after[0].start == gap[1]
    assert matcher.counters["stretches"] == 1
    assert matcher.counters["samples_given_up"] == gap[0] - before[-1].stop
    samples, units, _ = joined(before + after)
    kept = replace(
        made,
        samples=made.samples[keep := (made.samples < before[-1].stop) | (made.samples > gap[1] + 300)],
        units=made.units[keep],
    )
    assert share_found(kept, samples, units, until=after[-1].stop) > 0.97


def test_the_unit_of_the_samples_can_be_another_than_that_of_the_templates() -> None:
    made = make(2.0)
    in_uv = replace(templates(), waveforms=templates().waveforms * np.float32(2.34), unit_of_samples="uV")
    samples, units, _ = joined(found := matched(Matcher(in_uv, scale=2.34, settings=QUICK), made.raw))
    assert share_found(made, samples, units, until=found[-1].stop) > 0.98


def test_the_noise_is_measured_in_spite_of_the_spikes() -> None:
    matcher = Matcher(templates(), settings=QUICK)
    matched(matcher, make(1.0).raw)
    assert matcher.noise is not None
    assert matcher.noise.sd == pytest.approx(np.full(CHANNELS, NOISE), rel=0.1)


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r"\(10, 3\).* have 16 channels"):
        Matcher(templates()).push(np.zeros((10, 3)), first_sample=0)
    with pytest.raises(ConfigError, match="scale = 0"):
        Matcher(templates(), scale=0.0)
    with pytest.raises(ConfigError, match="threshold = -1"):
        MatchingSettings(threshold=-1.0)
    with pytest.raises(RecordingError, match="no channel carries a signal"):
        Matcher(templates(), settings=QUICK).push(np.zeros((RATE, CHANNELS), dtype=np.int16), first_sample=0)
    with pytest.raises(RecordingError, match=f"the spike is at sample 0 of waveforms of {61}"):
        replace(templates(), trough=0)
    with pytest.raises(RecordingError, match="template of unit u1 is empty"):
        broken = waveforms()
        broken[1] = 0
        replace(templates(), waveforms=broken, trough=TROUGH)
