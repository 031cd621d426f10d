"""Whether templates still fit is judged every few seconds, from what was matched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nuclr_stream.matching.fit import FitMonitor, unlike_the_sorting
from nuclr_stream.matching.matcher import Matched
from nuclr_stream.matching.noise import Noise
from tests.nuclr_stream.matching.made import CHANNELS, NOISE, RATE, templates

SPIKES = 100


def stretch(start_s: float, seconds: float, *, moved: int = 0, unassigned: int = 0) -> Matched:
    """Spikes of the unit u1, detected `moved` channels from its largest one."""
    peak = int(templates().peak_channel[1])
    start, stop = int(start_s * RATE), int((start_s + seconds) * RATE)
    return Matched(
        start=start,
        stop=stop,
        samples=np.linspace(start, stop - 1, SPIKES).astype(np.int64),
        units=np.ones(SPIKES, dtype=np.int32),
        amplitudes=np.ones(SPIKES, dtype=np.float32),
        channels=np.full(SPIKES, peak + moved, dtype=np.int32),
        unassigned=unassigned,
    )


def test_spikes_that_moved_along_the_probe_are_drift_until_they_are_back() -> None:
    fit = FitMonitor(templates())
    assert fit.take(stretch(0, 5, moved=2))
    assert fit.reason.startswith("drift: spikes are +20 um from their templates")
    assert fit.take(stretch(5, 5))
    assert (fit.reason, fit.drift_um) == ("", 0.0)


def test_a_judgement_waits_for_five_seconds() -> None:
    fit = FitMonitor(templates())
    assert not fit.take(stretch(0, 4.9, unassigned=SPIKES))
    assert fit.take(stretch(4.9, 0.1, unassigned=SPIKES))
    assert fit.reason.startswith("unassigned: 50%")


def test_after_the_sample_number_went_back_it_is_judged_as_before() -> None:
    fit = FitMonitor(templates())
    fit.take(stretch(1000, 5))
    assert fit.take(stretch(0, 5, unassigned=SPIKES))
    assert fit.reason.startswith("unassigned")


@pytest.mark.parametrize(("factor", "said"), [(1.0, ""), (1.9, ""), (4.0, "give --scale 0.25"), (0.25, "--scale 4")])
def test_noise_unlike_that_of_the_sorting_names_the_scale_that_would_fit(factor: float, said: str) -> None:
    sd = np.full(CHANNELS, factor * NOISE, dtype=np.float32)
    noise = Noise(sd, np.eye(CHANNELS), np.eye(2))
    found = unlike_the_sorting(templates(), noise, scale=1.0)
    assert said in found
    assert bool(found) == bool(said)
    assert not unlike_the_sorting(replace(templates(), noise=None), noise, scale=1.0)
