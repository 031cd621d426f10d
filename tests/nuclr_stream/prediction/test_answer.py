"""The predictors of a task: the first pool that can, by its exposure; alone only statistics; else the prior."""

from __future__ import annotations

import numpy as np
import pytest

from nuclr_stream.bundle.manifest import PoolPart, TaskPart
from nuclr_stream.features.accumulator import FeatureSet, FeatureSnapshot
from nuclr_stream.prediction.answer import Answer, answer
from nuclr_stream.prediction.pool import log_softmax

CLASSES = ("A", "B", "C")
UNIFORM = (1 / 3,) * 3


def way(*predictors: FeatureSet, abstain: float = 0.5, above: float = 0.2) -> PoolPart:
    """Predictors that are heard twice as loudly at n = 10 as at n = 1."""
    weight = ((0.5, 1.0),) * len(predictors)
    return PoolPart(
        predictors=predictors, n=(1, 10), weight=weight, abstain_below=(abstain,) * 2, set_above=(above,) * 2
    )


def task(*ways: PoolPart) -> TaskPart:
    predictors = ("embedding", "statistics", "statistics_neighbourhood")
    return TaskPart(name="t", classes=CLASSES, prior=UNIFORM, abstain_below=0.9, predictors=predictors, pools=ways)


def seen(**has: list[int]) -> FeatureSnapshot:
    """Units by the sets that have something of them; every feature row is what its predictor says."""
    units = len(next(iter(has.values())))
    said = {"embedding": [4.0, 0, 0], "statistics": [0, 4.0, 0], "statistics_neighbourhood": [0, 0, 4.0]}
    return FeatureSnapshot(
        n=np.full(units, 5, dtype=np.float32),
        effective_sample_size=np.ones(units, dtype=np.float32),
        observed_exposure=np.full(units, 10, dtype=np.float32),
        scatter=np.ones(units),
        features={name: np.tile(np.array(said[name], dtype=np.float32), (units, 1)) for name in has},
        has={name: np.array(there, dtype=bool) for name, there in has.items()},
    )


def itself(_name: FeatureSet, features: np.ndarray, _n: np.ndarray) -> np.ndarray:
    return features


def asked(part: TaskPart, of: FeatureSnapshot, **other) -> Answer:
    return answer(part, of, itself, **{"prior": None, "alone": False} | other)


def softmax(*logits: float) -> np.ndarray:
    return np.exp(log_softmax(np.array([logits])))[0]


def test_every_unit_is_answered_by_the_first_way_that_has_all_it_needs():
    part = task(way("embedding", "statistics_neighbourhood"), way("statistics"))
    found = asked(part, seen(embedding=[1, 1, 0, 0], statistics=[1, 0, 1, 0], statistics_neighbourhood=[1, 0, 0, 0]))
    assert found.has_prediction.tolist() == [True, True, True, False]
    assert found.probabilities[0] == pytest.approx(softmax(2, 0, 2), abs=1e-6)  # both, at effective n = 1
    assert found.probabilities[1] == pytest.approx(softmax(4, 0, 0), abs=1e-6)  # the encoder alone, as calibrated
    assert found.probabilities[2] == pytest.approx(softmax(0, 4, 0), abs=1e-6)  # statistics, by the time observed: 10
    assert found.probabilities[3] == pytest.approx(UNIFORM)


def test_the_order_of_the_manifest_is_the_preference():
    of = seen(embedding=[1], statistics=[1])
    one = asked(task(way("statistics"), way("embedding", "statistics")), of)
    other = asked(task(way("embedding", "statistics"), way("statistics")), of)
    assert one.probabilities[0] == pytest.approx(softmax(0, 4, 0), abs=1e-6)
    assert other.probabilities[0] == pytest.approx(softmax(2, 2, 0), abs=1e-6)


def test_in_a_population_too_small_only_the_statistics_of_single_units_speak():
    part = task(way("embedding", "statistics"), way("statistics_neighbourhood"), way("statistics"))
    of = seen(embedding=[1, 1], statistics=[1, 0], statistics_neighbourhood=[1, 1])
    found = asked(part, of, alone=True)
    assert found.has_prediction.tolist() == [True, False]
    assert found.probabilities[0] == pytest.approx(softmax(0, 4, 0), abs=1e-6)
    assert found.probabilities[1] == pytest.approx(UNIFORM)
    assert not asked(task(), of, alone=True).has_prediction.any(), "a bundle without predictors has nobody for them"


def test_where_nobody_speaks_stand_the_prior_and_all_classes():
    for prior, expected in ((None, UNIFORM), ((0.5, 0.3, 0.2), (0.5, 0.3, 0.2))):
        found = asked(task(way("statistics")), seen(embedding=[0, 0], statistics=[0, 0]), prior=prior)
        assert found.probabilities == pytest.approx(np.tile(expected, (2, 1)))
        assert found.sets.all() and found.unsure.all() and not found.has_prediction.any()


def test_nobody_is_asked_in_vain():
    def refuse(name: FeatureSet, _features: np.ndarray, _n: np.ndarray) -> np.ndarray:
        raise AssertionError(f"{name} was asked")

    part = task(way("embedding", "statistics"), way("statistics"))
    answer(part, seen(embedding=[0, 0], statistics=[0, 0]), refuse, prior=None, alone=False)


def test_an_expert_is_told_the_evidence_that_its_own_features_rest_on():
    stated: dict[str, float] = {}

    def listen(name: FeatureSet, features: np.ndarray, n: np.ndarray) -> np.ndarray:
        stated[name] = float(n[0])
        return features

    part = task(way("embedding", "statistics", "statistics_neighbourhood"))
    answer(part, seen(embedding=[1], statistics=[1], statistics_neighbourhood=[1]), listen, prior=None, alone=False)
    assert stated == {"embedding": 1, "statistics": 10, "statistics_neighbourhood": 10}


def test_a_prior_moves_probabilities_sets_and_doubt():
    part, of = task(way("statistics", abstain=0.9, above=0.1)), seen(embedding=[0], statistics=[1])
    plain, moved = asked(part, of), asked(part, of, prior=(0.02, 0.02, 0.96))
    assert plain.sets.tolist() == [[False, True, False]] and not plain.unsure[0]
    expected = softmax(0, 4, 0) * [0.02, 0.02, 0.96]
    assert moved.probabilities[0] == pytest.approx(expected / expected.sum(), abs=1e-6)
    assert moved.sets.tolist() == [[False, True, True]] and moved.unsure[0]


def test_the_encoder_alone_is_believed_as_its_calibration_says():
    found = asked(task(), seen(embedding=[1]))
    assert found.has_prediction[0] and found.sets.all(), "without a pool there is no threshold for sets"
    assert not found.unsure[0] and found.probabilities[0, 0] == pytest.approx(softmax(4, 0, 0)[0], abs=1e-6)
