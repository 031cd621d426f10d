"""What is learnt about the units and populations of training, so that others are noticed."""

from __future__ import annotations

import numpy as np
import pytest

from nuclr_stream.features.coupling import COUPLING
from offline_training.readouts.examples import WHOLE, Examples
from offline_training.readouts.out_of_distribution import (
    LEAST_POPULATIONS,
    LYING_WITHIN,
    _known_populations,
    _known_units,
    _widened,
)

SETS = ("embedding", "embedding_neighbourhood", "statistics")


def units_of(animals: int, *, seed: int = 0, units: int = 60) -> Examples:
    """Two classes of units, three independent feature sets of 4 numbers, and a synchrony of .1 per animal and one."""
    rng = np.random.default_rng(seed)
    rows = animals * units
    animal = np.repeat(np.arange(animals), units)
    label = rng.integers(0, 2, rows)
    features = {name: (5 * label[:, None] + rng.normal(size=(rows, 4))).astype(np.float32) for name in SETS}
    features["coupling"] = np.repeat(0.1 * (1 + animal)[:, None], COUPLING, axis=1).astype(np.float32)
    has = {name: np.ones(rows, dtype=bool) for name in features}
    exposure = np.full(rows, 6, dtype=np.float32)
    subject = np.array([f"s{k}" for k in animal])
    return Examples(
        features=features,
        has=has,
        label=label,
        exposure=exposure,
        observed=exposure,
        length=np.full(rows, WHOLE),
        subject=subject,
        recording=subject,
        unit=np.arange(rows),
    )


def test_limits_hold_for_all_feature_sets_at_once():
    known, fresh = units_of(40), units_of(40, seed=1)
    found = {name: _known_units(known, name) for name in SETS}
    alone = {name: units.ratio(fresh.features[name], fresh.exposure) for name, (units, _) in found.items()}
    widened = {
        name: units.ratio(fresh.features[name], fresh.exposure) for name, units in _widened(found, known).items()
    }
    for ratio in alone.values():
        assert (ratio <= 1).mean() == pytest.approx(LYING_WITHIN, abs=0.01)
    assert (np.max(list(alone.values()), axis=0) <= 1).mean() < 0.97, "three sets flag thrice as many"
    assert (np.max(list(widened.values()), axis=0) <= 1).mean() == pytest.approx(LYING_WITHIN, abs=0.008)


def test_the_range_of_synchrony_has_room_for_half_of_its_ends():
    known = _known_populations(units_of(8))
    assert known is not None and known.knots.tolist() == [6.0]
    assert known.low[0] == pytest.approx(0.05) and known.high[0] == pytest.approx(1.2)


def test_of_a_few_recordings_nothing_is_learnt_about_populations():
    assert _known_populations(units_of(LEAST_POPULATIONS - 1)) is None
    assert _known_populations(units_of(LEAST_POPULATIONS, units=9)) is None, "nine units are no population"
    assert _known_populations(units_of(LEAST_POPULATIONS)) is not None
