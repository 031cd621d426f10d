"""The answer: the first pool that has all it needs, by its exposure; alone only statistics; else the prior."""

from __future__ import annotations

import numpy as np
import pytest

from nuclr_stream.features.accumulator import FeatureSet, FeatureSnapshot
from nuclr_stream.prediction.answer import Answer, answer
from nuclr_stream.prediction.pool import LogLinearPool, log_softmax

UNIFORM = (1 / 3,) * 3
LOGITS = {"embedding": [4.0, 0, 0], "statistics": [0, 4.0, 0], "statistics_neighbourhood": [0, 0, 4.0]}


def way(*predictors: FeatureSet, abstain: float = 0.5, above: float = 0.2) -> LogLinearPool:
    """Predictors that weigh twice as much at exposure 10 as at 1."""
    weight = ((0.5, 1.0),) * len(predictors)
    return LogLinearPool(
        predictors=predictors, n=(1, 10), weight=weight, abstain_below=(abstain,) * 2, set_above=(above,) * 2
    )


def snapshot(**has: list[int]) -> FeatureSnapshot:
    """Units by the sets that have something of them: one window embedded, spikes counted over ten."""
    units = len(next(iter(has.values())))
    return FeatureSnapshot(
        exposure=np.full(units, 1, dtype=np.float32),
        observed=np.full(units, 10, dtype=np.float32),
        features={},
        has={name: np.array(there, dtype=bool) for name, there in has.items()},
    )


def answered(pools: list[LogLinearPool], of: FeatureSnapshot, **other) -> Answer:
    logits = {name: np.tile(np.array(LOGITS[name], np.float32), (len(of.exposure), 1)) for name in of.has}
    return answer(pools, of, logits, prior=UNIFORM, **other)


def softmax(*logits: float) -> np.ndarray:
    return np.exp(log_softmax(np.array([logits])))[0]


def test_every_unit_is_answered_by_the_first_pool_that_has_all_it_needs():
    pools = [way("embedding", "statistics_neighbourhood"), way("embedding"), way("statistics")]
    of = snapshot(embedding=[1, 1, 0, 0], statistics=[1, 0, 1, 0], statistics_neighbourhood=[1, 0, 0, 0])
    found = answered(pools, of)
    assert found.has_prediction.tolist() == [True, True, True, False]
    assert found.probabilities[0] == pytest.approx(softmax(2, 0, 2), abs=1e-6)  # both, at one window embedded
    assert found.probabilities[1] == pytest.approx(softmax(2, 0, 0), abs=1e-6)
    assert found.probabilities[2] == pytest.approx(softmax(0, 4, 0), abs=1e-6)  # by the time observed, ten windows
    assert found.probabilities[3] == pytest.approx(UNIFORM)


def test_the_order_of_the_pools_is_the_preference():
    of = snapshot(embedding=[1], statistics=[1])
    one = answered([way("statistics"), way("embedding", "statistics")], of)
    other = answered([way("embedding", "statistics"), way("statistics")], of)
    assert one.probabilities[0] == pytest.approx(softmax(0, 4, 0), abs=1e-6)
    assert other.probabilities[0] == pytest.approx(softmax(2, 2, 0), abs=1e-6)


def test_in_a_population_too_small_only_the_statistics_of_single_units_count():
    pools = [way("embedding", "statistics"), way("statistics_neighbourhood"), way("statistics")]
    of = snapshot(embedding=[1, 1], statistics=[1, 0], statistics_neighbourhood=[1, 1])
    found = answered(pools, of, alone=True)
    assert found.has_prediction.tolist() == [True, False]
    assert found.probabilities[0] == pytest.approx(softmax(0, 4, 0), abs=1e-6)
    assert found.probabilities[1] == pytest.approx(UNIFORM)
    assert not answered([way("embedding")], of, alone=True).has_prediction.any()


def test_without_a_prediction_stand_the_prior_and_all_classes():
    for wanted, expected in ((None, UNIFORM), ((0.5, 0.3, 0.2), (0.5, 0.3, 0.2))):
        found = answered([way("statistics")], snapshot(embedding=[0, 0], statistics=[0, 0]), wanted=wanted)
        assert found.probabilities == pytest.approx(np.tile(expected, (2, 1)))
        assert found.sets.all() and found.unsure.all() and not found.has_prediction.any()


def test_a_wanted_prior_moves_probabilities_sets_and_doubt():
    pools, of = [way("statistics", abstain=0.9, above=0.1)], snapshot(statistics=[1])
    plain, moved = answered(pools, of), answered(pools, of, wanted=(0.02, 0.02, 0.96))
    assert plain.sets.tolist() == [[False, True, False]] and not plain.unsure[0]
    expected = softmax(0, 4, 0) * [0.02, 0.02, 0.96]
    assert moved.probabilities[0] == pytest.approx(expected / expected.sum(), abs=1e-6)
    assert moved.sets.tolist() == [[False, True, True]] and moved.unsure[0]


def test_another_threshold_replaces_that_of_every_pool():
    pools, of = [way("embedding"), way("statistics")], snapshot(embedding=[1, 0], statistics=[1, 1])
    assert not answered(pools, of).unsure.any()
    assert answered(pools, of, abstain_below=0.95).unsure.tolist() == [True, False]
    assert answered(pools, of, abstain_below=0.99).unsure.tolist() == [True, True]
