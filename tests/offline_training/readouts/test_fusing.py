"""Fusing: who is informative is heard, promises hold for animals that nothing had seen, few animals promise nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from nuclr_stream.prediction.pool import LogLinearPool
from offline_training.readouts.fusing import ENOUGH_ANIMALS, fit_pool, sets_promise

CLASSES = 3


@dataclass(frozen=True)
class Told:
    """What two predictors said of units of several animals."""

    logits: dict[str, np.ndarray]
    label: np.ndarray
    n: np.ndarray
    animal: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        return 1 / np.bincount(self.label, minlength=CLASSES)[self.label]

    def fused(self) -> LogLinearPool:
        return fit_pool(self.logits, self.label, self.n, weights=self.weights, animal=self.animal)


def stated(
    seed: int, *, animals: int, units: int = 60, strength=lambda n: {"embedding": 2.0, "statistics": 0.0}
) -> Told:
    """Every animal has a strength of its own around that of the predictor at the exposure n."""
    rng = np.random.default_rng(seed)
    total = animals * units
    label, n = rng.integers(0, CLASSES, total), rng.choice([1.0, 3.0, 6.0, 15.0], total)
    animal = np.repeat(np.arange(animals), units)
    of_animal = rng.normal(1, 0.25, animals)[animal]
    logits = {}
    for name in ("embedding", "statistics"):
        loud = np.array([strength(each)[name] for each in n]) * of_animal
        logits[name] = (loud[:, None] * np.eye(CLASSES)[label] + rng.normal(size=(total, CLASSES))).astype(np.float32)
    return Told(logits, label, n.astype(np.float32), np.array([f"a{a}" for a in animal]))


def covered(pool: LogLinearPool, fresh: Told) -> tuple[float, float]:
    """Share of units whose class is in their set, the mean over animals, and the mean size of sets."""
    sets = pool.sets(pool.probabilities(fresh.logits, fresh.n), fresh.n)
    right = sets[np.arange(len(fresh.label)), fresh.label]
    return float(np.mean([right[fresh.animal == a].mean() for a in np.unique(fresh.animal)])), float(sets.sum(1).mean())


@pytest.mark.parametrize("loud", ["embedding", "statistics"])
def test_the_informative_of_two_experts_is_heard_and_the_other_is_not(loud: str):
    quiet = {"embedding": "statistics", "statistics": "embedding"}[loud]
    known = stated(0, animals=20, strength=lambda _n: {loud: 2.0, quiet: 0.0})
    weight = dict(zip(known.fused().predictors, known.fused().weight, strict=True))
    assert min(weight[loud]) > 1.0
    assert max(weight[quiet]) < 0.2
    assert np.mean(weight[quiet]) < 0.05


def test_weights_follow_the_evidence_at_which_an_expert_is_right():
    known = stated(
        1, animals=20, units=100, strength=lambda n: {"embedding": 2.5 * (n > 5), "statistics": 2.5 * (n < 5)}
    )
    embedding, statistics = known.fused().weight
    assert embedding[0] < 0.5 < embedding[-1] and statistics[-1] < 0.5 < statistics[0]


def test_an_expert_that_says_the_opposite_is_silenced_not_turned_round():
    known = stated(2, animals=20, strength=lambda _n: {"embedding": 2.0, "statistics": -2.0})
    embedding, statistics = known.fused().weight
    assert min(embedding) > 1.0 and max(statistics) == 0.0


def test_probabilities_are_calibrated_on_fresh_animals():
    pool, fresh = stated(3, animals=20).fused(), stated(4, animals=40)
    p = pool.probabilities(fresh.logits, fresh.n)
    top = p.max(axis=1)
    right = p.argmax(axis=1) == fresh.label
    for low, high in ((0.34, 0.6), (0.6, 0.8), (0.8, 1.0)):
        within = (top >= low) & (top < high)
        assert right[within].mean() == pytest.approx(top[within].mean(), abs=0.06)


@pytest.mark.parametrize("seed", [10, 20, 30])
def test_thresholds_keep_the_promised_precision_for_fresh_animals(seed: int):
    pool, fresh = stated(seed, animals=20).fused(), stated(seed + 1, animals=20)
    p = pool.probabilities(fresh.logits, fresh.n)
    called = ~pool.too_unsure(p, fresh.n)
    assert called.mean() > 0.6, "and not by saying nothing"
    assert (p.argmax(axis=1) == fresh.label)[called].mean() >= 0.88


def test_where_nobody_knows_anything_nothing_is_called():
    known = stated(5, animals=8, strength=lambda _n: {"embedding": 0.0, "statistics": 0.0})
    assert set(known.fused().abstain_below) == {1.0}


def test_no_single_animal_carries_the_promise():
    known = stated(6, animals=5, units=80, strength=lambda _n: {"embedding": 0.8, "statistics": 0.0})
    easy = known.animal == "a0"
    sure = 12.0 * np.eye(CLASSES)[known.label]
    known.logits["embedding"][easy] = sure[easy]
    known.logits["embedding"][~easy] *= 4  # as sure, and often wrong
    p = known.fused().probabilities(known.logits, known.n)
    threshold = known.fused().abstain_below[0]
    others = ~easy & (p.max(axis=1) >= threshold)
    assert threshold == 1.0 or (p.argmax(axis=1) == known.label)[others].mean() >= 0.9


@pytest.mark.parametrize("seed", [40, 50])
def test_sets_cover_the_classes_of_fresh_animals_as_promised(seed: int):
    coverage, size = covered(stated(seed, animals=24).fused(), stated(seed + 1, animals=60))
    assert 0.88 <= coverage <= 0.97
    assert size < 2.5, "not by naming everything"


def test_at_an_evidence_that_few_animals_reached_sets_promise_as_much_as_elsewhere():
    known = stated(7, animals=ENOUGH_ANIMALS + 4)
    reached = np.isin(known.animal, ["a0", "a1", "a2"]) | (known.n < 15)
    columns = (each[reached] for each in (known.label, known.n, known.animal))
    few = Told({name: values[reached] for name, values in known.logits.items()}, *columns)
    above = few.fused().set_above
    assert above[-1] == 0.0 < min(above[:-1]), "of three animals no 90 % can be promised to a fourth: all classes"


def test_examples_beyond_the_last_knot_count_there():
    known = stated(8, animals=5)
    beyond = Told(known.logits, known.label, np.where(known.n > 5, 9.8, known.n).astype(np.float32), known.animal)
    pool = beyond.fused()
    assert pool.n == (1.0, 3.0, 6.0)
    assert pool.set_above[-1] > 0


def test_few_animals_promise_nothing():
    assert sets_promise(ENOUGH_ANIMALS - 1).startswith("no promise: ") and "19 animals" in sets_promise(19)
    assert "90%" in sets_promise(ENOUGH_ANIMALS) and "no promise" not in sets_promise(ENOUGH_ANIMALS)


def test_a_few_animals_do_not_decide_whom_to_believe():
    few, many = (stated(0, animals=animals).fused() for animals in (10, 20))
    ratio = [pool.weight[1][0] / pool.weight[0][0] for pool in (few, many)]
    assert ratio[0] > 0.8 and ratio[1] < 0.4


def test_a_few_animals_that_contradict_their_experts_leave_the_order_of_classes():
    """They are believed to know nothing, and what they think most of is still what they think most of."""
    pool = stated(7, animals=3, strength=lambda _n: {"embedding": -2.0, "statistics": -2.0}).fused()
    logits = {name: np.array([[0.0, 0.1, 0.05]], np.float32) for name in ("embedding", "statistics")}
    p = pool.probabilities(logits, np.ones(1, np.float32))
    assert np.argsort(p[0]).tolist() == [0, 2, 1]
    assert p.max() < 0.34
