"""LogLinearPool: several predictors as one, sets that hold the top class, and priors that are what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.prediction.pool import LogLinearPool, log_softmax, with_prior

KNOTS = (1.0, 3.0, 6.0, 15.0)


def pool(**other) -> LogLinearPool:
    """Two predictors whose weights grow and fall with the exposure."""
    made = {
        "predictors": ("embedding", "statistics"),
        "n": KNOTS,
        "weight": ((0.2, 0.5, 1.0, 1.5), (1.0, 0.8, 0.5, 0.0)),
        "abstain_below": (0.9, 0.8, 0.7, 0.6),
        "set_above": (0.0, 0.1, 0.2, 0.3),
    }
    return LogLinearPool(**made | other)


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(st.floats(0, 200), min_size=1, max_size=6))
def test_probabilities_are_the_softmax_of_weighted_sums_at_the_exposure(seed: int, n: list[float]):
    rng = np.random.default_rng(seed)
    logits = {name: rng.normal(0, 5, (len(n), 4)).astype(np.float32) for name in ("embedding", "statistics")}
    found = pool().probabilities(logits, np.array(n, dtype=np.float32))
    at = np.log(np.clip(np.array(n, dtype=np.float32).astype(float), 1, 15))
    weights = [np.interp(at, np.log(KNOTS), row) for row in pool().weight]
    expected = softmax(sum(w[:, None] * logits[name] for w, name in zip(weights, logits, strict=True)))
    assert found == pytest.approx(expected, abs=1e-5)
    assert found.sum(axis=1) == pytest.approx(np.ones(len(n)), abs=1e-5)


def test_the_order_in_which_logits_come_does_not_matter():
    rng = np.random.default_rng(0)
    logits = {name: rng.normal(0, 5, (3, 4)).astype(np.float32) for name in ("embedding", "statistics")}
    n = np.array([1, 4, 15], dtype=np.float32)
    backwards = dict(reversed(logits.items()))
    assert np.array_equal(pool().probabilities(logits, n), pool().probabilities(backwards, n))


def test_an_equal_pool_divides_the_mean_of_its_predictors_by_the_temperature_of_the_exposure():
    rng, temperature = np.random.default_rng(1), (3.0, 2.0, 1.5, 0.7)
    names = ("embedding", "statistics")
    logits = {name: rng.normal(0, 4, (6, 5)).astype(np.float32) for name in names}
    n = np.array([0.2, 1, 3, 6, 15, 400], dtype=np.float32)
    found = LogLinearPool.equal(names, n=KNOTS, temperature=temperature).probabilities(logits, n)
    mean = sum(log_softmax(values) for values in logits.values()) / 2
    at = np.array([3.0, 3.0, 2.0, 1.5, 0.7, 0.7])
    assert found == pytest.approx(softmax(mean / at[:, None]), abs=1e-6)
    plain = LogLinearPool.equal(names)
    assert (plain.n, plain.abstain_below, plain.set_above) == ((1.0,), (0.0,), (0.0,))
    assert plain.sets(found, n).all() and not plain.too_unsure(found, n).any()


def test_predictors_of_weight_zero_do_not_enter_and_without_any_nothing_is_known():
    silent = pool(weight=((0.0,) * 4, (0.0,) * 4))
    logits = {name: np.array([[9.0, 0, 0, 0]], dtype=np.float32) for name in ("embedding", "statistics")}
    assert silent.probabilities(logits, np.ones(1, np.float32)).tolist() == [[0.25] * 4]
    late = pool().probabilities(logits | {"statistics": -logits["statistics"]}, np.array([20], dtype=np.float32))
    assert late[0].argmax() == 0, "statistics have no weight at n = 15 and beyond"


def test_huge_logits_stay_numbers():
    logits = np.array([[3e38, -3e38, 0.0], [-3e38, -3e38, -3e38]], dtype=np.float32)
    assert np.isfinite(log_softmax(logits)).all()
    found = pool(predictors=("embedding",), weight=((1.0,) * 4,)).probabilities({"embedding": logits}, np.ones(2))
    assert found.tolist() == [[1.0, 0.0, 0.0], pytest.approx([1 / 3] * 3)]


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_sets_hold_every_class_at_or_above_the_threshold_and_always_the_top_one(seed: int, above: float):
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(0, 3, (8, 5))).astype(np.float32)
    inside = pool(set_above=(above,) * 4).sets(p, np.ones(8, np.float32))
    assert inside[np.arange(8), p.argmax(axis=1)].all()
    others = np.arange(5) != p.argmax(axis=1)[:, None]
    assert np.array_equal(inside[others], (p >= above)[others])


def test_sets_and_doubt_follow_the_exposure():
    p = np.tile(np.array([[0.65, 0.2, 0.15]], dtype=np.float32), (4, 1))
    n = np.array([1, 3, 6, 15], dtype=np.float32)
    assert pool().sets(p, n).sum(axis=1).tolist() == [3, 3, 2, 1]
    assert pool().too_unsure(p, n).tolist() == [True, True, True, False]
    between = np.array([np.sqrt(6 * 15)], dtype=np.float32)
    assert np.array_equal(pool().too_unsure(p[:1] * np.float32(0.649 / 0.65), between), [True])
    assert np.array_equal(pool().too_unsure(p[:1] * np.float32(0.651 / 0.65), between), [False])


def test_a_threshold_of_one_calls_nothing_however_certain():
    certain = np.array([[1.0, 0.0]], dtype=np.float32)
    one = np.ones(1, np.float32)
    assert pool(abstain_below=(1.0,) * 4).too_unsure(certain, one).all()
    assert not pool(abstain_below=(1.0,) * 4).too_unsure(certain, one, 0.5).any(), (
        "but another threshold counts instead"
    )
    assert pool().too_unsure(certain, one, 1.0).all()


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_a_prior_multiplies_and_can_be_taken_back(seed: int):
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(0, 2, (5, 4))).astype(np.float32)
    assumed, wanted = np.full(4, 0.25), rng.dirichlet(np.ones(4)) * 0.9 + 0.025
    changed = with_prior(p, assumed, wanted)
    expected = p * wanted / (p * wanted).sum(axis=1, keepdims=True)
    assert changed == pytest.approx(expected, abs=1e-6)
    assert with_prior(changed, wanted, assumed) == pytest.approx(p, abs=1e-5)
    assert with_prior(p, assumed, assumed) == pytest.approx(p, abs=1e-6)


def test_a_class_without_prior_is_impossible_and_where_nothing_else_was_probable_the_prior_stands():
    p = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]], dtype=np.float32)
    changed = with_prior(p, (1 / 3,) * 3, (0.0, 0.5, 0.5))
    assert changed == pytest.approx(np.array([[0, 0.6, 0.4], [0, 0.5, 0.5]]))
