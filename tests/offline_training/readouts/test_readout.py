"""Readouts: plain logistic regressions of animals left out, pooled, calibrated, and stored as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from nuclr_stream.features.accumulator import FeatureSnapshot
from nuclr_stream.prediction.pool import LogLinearPool
from offline_training.readouts import predictor as predictor_module
from offline_training.readouts.examples import WHOLE, Examples, examples
from offline_training.readouts.pooling import (
    DEFAULT,
    ENOUGH_ANIMALS,
    _threshold,
    calibrated,
    fit_pools,
    precision_promise,
    sets_promise,
)
from offline_training.readouts.predictor import C_CANDIDATES, DEFAULT_C, Predictor, can_choose, fit_predictor
from offline_training.readouts.regression import ReadoutError, fit_linear, folds, grouping
from offline_training.readouts.task_model import below_plain, fit_task, load_task_models, save_task_models
from tests.conftest import tiny_predictor

CLASSES = ("a", "b", "c")
NAMES = ("embedding", "statistics")
LENGTH_EXPOSURE = {1: 1.0, 6: 6.0, WHOLE: 30.0}


def known_units(
    seed: int = 0, *, animals: int = 6, units: int = 24, spread: float = 1.0, informative: str = "embedding"
) -> Examples:
    """Every unit at three exposures; one of two feature sets tells its class, the better the longer it was seen."""
    rng = np.random.default_rng(seed)
    count = animals * units
    unit, length = np.repeat(np.arange(count), 3), np.tile(list(LENGTH_EXPOSURE), count)
    label = rng.integers(0, 3, count)[unit]
    exposure = np.array([LENGTH_EXPOSURE[n] for n in length.tolist()], dtype=np.float32)
    features = {name: rng.normal(size=(len(unit), 4)).astype(np.float32) for name in NAMES}
    noise = spread * rng.normal(size=(len(unit), 3)) * (1 + 2 / exposure[:, None])
    features[informative][:, :3] = 2 * np.eye(3)[label] + noise
    subject = np.array([f"s{u // units}" for u in unit])
    has = {name: np.ones(len(unit), dtype=bool) for name in NAMES}
    return Examples(features, has, label, exposure, exposure, length, subject, subject, unit)


@dataclass(frozen=True)
class Steps:
    """A recording of which every step shows unit u the value step + 10 u; unit 1 is seen in odd steps only."""

    recording_id: str = "r"
    subject_id: str = "s"
    steps: int = 20
    steps_per_window: int = 2

    @property
    def end_s(self) -> np.ndarray:
        return np.arange(1.0, self.steps + 1)

    def snapshot(self, first: int, last: int) -> FeatureSnapshot:
        steps = np.arange(first, last)
        odd = steps[steps % 2 == 1]
        n = np.array([len(steps), len(odd), len(steps)], dtype=np.float32)
        means = np.array([steps.mean(), 10 + (odd.mean() if len(odd) else 0), 20 + steps.mean()], dtype=np.float32)
        return FeatureSnapshot(n, n, {"embedding": means[:, None]}, {"embedding": n > 0})


def test_every_labelled_unit_gives_an_example_per_stretch_and_one_of_everything():
    found = examples([Steps()], [np.array([1, -1, 0])], lengths=(1, 3, WHOLE), draws=2)
    assert found.unit.tolist() == [0, 2] * 5
    assert found.label.tolist() == [1, 0] * 5
    # three windows with half a window's hop are five steps
    assert found.exposure.tolist() == [1, 1, 1, 1, 5, 5, 5, 5, 20, 20]
    assert found.length.tolist() == [1] * 4 + [3] * 4 + [WHOLE] * 2
    assert len(set(found.features["embedding"][found.unit == 0, 0].tolist())) == 5, "every stretch lies elsewhere"


def test_a_stretch_that_does_not_fit_and_a_unit_that_was_not_seen_give_no_example():
    found = examples([Steps(steps=5)], [np.array([0, 0, 0])], lengths=(1, 3, 30, WHOLE), draws=1)
    assert found.exposure[found.unit == 0].tolist() == [1, 5]
    assert examples([Steps(steps=1)], [np.array([0, 1, 1])], lengths=(WHOLE,)).unit.tolist() == [0, 2]
    assert len(set(examples([Steps(), Steps()], [np.array([0, 1, 1])] * 2, lengths=(WHOLE,)).unit.tolist())) == 6


def test_every_unit_counts_once_and_every_class_alike():
    known = known_units().where(np.arange(4))
    known = replace(known, label=np.array([0, 0, 0, 1]), unit=np.array([5, 5, 6, 7]))
    weights = known.weights(3)
    np.testing.assert_allclose(weights[0] + weights[1], weights[2])
    np.testing.assert_allclose(weights[:3].sum(), weights[3])
    np.testing.assert_allclose(weights.sum(), 3)


# -- one regression ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 2)])
def test_the_fit_is_that_of_a_standard_scaler_and_a_balanced_logistic_regression(classes: tuple[int, ...]):
    rng = np.random.default_rng(0)
    label = rng.choice(classes, 300, p=np.arange(1, len(classes) + 1) / np.arange(1, len(classes) + 1).sum())
    x = ((rng.normal(size=(300, 5)) + label[:, None]) * [1, 10, 0.1, 3, 1] + 5).astype(np.float32)
    found = fit_linear(x, label, 3, c=0.1)
    scaler = StandardScaler().fit(x.astype(float))
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000, tol=1e-6).fit(scaler.transform(x), label)
    logits = found.logits(x)[:, list(classes)]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(p - model.predict_proba(scaler.transform(x))).max() < 5e-3
    absent = sorted({0, 1, 2} - set(classes))
    assert (found.logits(x)[:, absent] == -100).all(), "a class that training did not hold is never predicted"


def test_a_feature_that_never_varies_says_nothing_and_one_class_is_rejected():
    label, x = np.array([0, 1] * 20), np.full((40, 1), 1e6, np.float32)
    assert np.isfinite(fit_linear(x, label, 2, c=1.0).logits(x)).all()
    with pytest.raises(ReadoutError, match="one class only"):
        fit_linear(x, np.zeros(40, dtype=int), 2, c=1.0)


def test_folds_hold_whole_animals_or_recordings_where_animals_share_no_class():
    known = known_units(animals=9)
    assert grouping(known) == "subject"
    for train, test in folds(known, "subject"):
        assert not set(known.subject[train]) & set(known.subject[test])
    apart = replace(known, label=(known.subject == "s0").astype(int) + 2 * (known.subject == "s1"))
    apart = apart.where(np.isin(known.subject, ["s0", "s1"]))
    assert grouping(apart) == "recording"
    with pytest.raises(ReadoutError, match=r"one recording only \(s0\)"):
        list(folds(known.where(known.subject == "s0"), "recording"))


# -- one predictor -----------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 5))
def test_log_probabilities_are_interpolated_between_knots_in_log_exposure(seed: int, knots: int, classes: int):
    rng = np.random.default_rng(seed)
    n = np.cumprod(rng.uniform(1.5, 4.0, knots))
    shape = (knots, classes, 3)
    made = Predictor(n, rng.normal(size=shape), rng.normal(size=shape[:2]), rng.normal(size=3), rng.uniform(0.5, 2, 3))
    x, at = rng.normal(size=(8, 3)).astype(np.float32), np.exp(rng.uniform(-1, 5, 8)).astype(np.float32)
    p = np.exp(np.einsum("uf,kcf->kuc", (x - made.mean) / made.scale, made.weight) + made.bias[:, None])
    by_knot = np.log(np.maximum(p / p.sum(axis=-1, keepdims=True), 1e-6))
    found = made.logits(x, at)
    for u in range(8):
        expected = [np.interp(np.log(max(at[u], 1)), np.log(n), by_knot[:, u, c]) for c in range(classes)]
        assert found[u] == pytest.approx(expected, abs=1e-4)


def test_predictions_of_an_animal_come_from_members_that_saw_nothing_of_it():
    known = known_units()
    mine = known.subject == "s3"
    poisoned = replace(known, label=np.where(mine, (known.label + 1) % 3, known.label))
    one, two = (fit_predictor(each, "embedding", 3, c=0.1) for each in (known, poisoned))
    assert np.array_equal(one.held_out[mine], two.held_out[mine]) and np.array_equal(one.plain[mine], two.plain[mine])
    assert not np.array_equal(one.held_out[~mine], two.held_out[~mine])


def test_the_readout_in_force_is_one_plain_fit_of_all_animals():
    known = known_units()
    made = fit_predictor(known, "embedding", 3, c=0.1).predictor
    whole = known.where(known.length == WHOLE)
    x, rows = whole.features["embedding"], np.arange(len(whole))
    plain = fit_linear(x, whole.label, 3, c=0.1, weights=whole.weights(3)).logits(x)
    expected = plain[rows, whole.label] - np.log(np.exp(plain).sum(axis=1))
    found = made.logits(x, np.full(len(x), made.n[-1], np.float32))[rows, whole.label]
    assert found == pytest.approx(np.maximum(expected, np.log(1e-6)), abs=1e-4)


def test_examples_that_lack_the_set_do_not_enter_and_get_no_opinion():
    known = known_units()
    without = np.arange(len(known)) % 7 == 0
    lacking = replace(known, has=known.has | {"embedding": ~without})
    noise = np.where(without[:, None], np.float32(1e3), known.features["embedding"])
    one = fit_predictor(lacking, "embedding", 3, c=0.1)
    two = fit_predictor(replace(lacking, features=known.features | {"embedding": noise}), "embedding", 3, c=0.1)
    assert np.array_equal(one.held_out, two.held_out)
    assert one.held_out[without] == pytest.approx(np.full((without.sum(), 3), -np.log(3)))
    nobody = replace(known, has=known.has | {"embedding": np.zeros(len(known), bool)})
    with pytest.raises(ReadoutError, match="embedding: no labelled unit has it"):
        fit_predictor(nobody, "embedding", 3)


def test_knots_are_the_exposures_of_the_lengths_and_close_ones_are_left_out():
    fitted = fit_predictor(known_units(), "embedding", 3, c=0.1)
    assert fitted.predictor.n.tolist() == [1, 6, 30] and fitted.predictor.weight.shape == (3, 3, 4)
    assert predictor_module._ascending([1.0, 6.0, 25.0, 30.0]) == [0, 1, 3]
    assert predictor_module._ascending([30.0]) == [0]


def test_regularisation_is_chosen_by_animals_left_out():
    clear, noisy = known_units(spread=0.2, animals=12), known_units(spread=3.0, animals=12)
    assert fit_predictor(clear, "embedding", 3).c[-1] == max(C_CANDIDATES)
    first, *_, last = fit_predictor(noisy, "embedding", 3).c
    assert first < last < 0.1, "the shorter a unit was seen, the noisier its features"


def test_with_few_animals_or_a_class_in_two_of_them_nothing_is_chosen_by_what_is_left_out():
    known = known_units(spread=0.2, animals=10)
    assert not can_choose(known.where(known.subject != "s0"))
    rare = known.where((known.label != 2) | np.isin(known.subject, ["s0", "s1"]))
    assert can_choose(known) and not can_choose(rare)
    assert fit_predictor(rare, "embedding", 3).c == (DEFAULT_C,) * 3 != fit_predictor(known, "embedding", 3).c
    names = ("embedding_neighbourhood", "statistics_neighbourhood", "coupling_neighbourhood")
    every = {name: known.features["embedding"] for name in names}
    held = {name: held_of(known, sharpness=1.0)["embedding"] for name in names}
    held["coupling_neighbourhood"] = held["coupling_neighbourhood"] + 3 * np.eye(3, dtype=np.float32)[known.label]
    wide = replace(known, features=every, has={name: np.ones(len(known), bool) for name in names})
    few = np.flatnonzero((known.label != 2) | np.isin(known.subject, ["s0", "s1"]))
    assert "coupling_neighbourhood" in fit_pools(held, wide)[0].predictors
    assert fit_pools({k: v[few] for k, v in held.items()}, wide.where(few))[0].predictors == DEFAULT


def test_a_threshold_needs_a_twentieth_of_the_units_three_animals_and_a_margin_over_animals():
    top = np.linspace(1.0, 0.5, 200).astype(np.float32)
    subject = np.array([f"s{k % 4}" for k in range(200)])
    good = np.arange(200) < 100
    assert _threshold(top, good, subject, 0.9) == pytest.approx(top[105], abs=0.02), "a few wrong ones, less an error"
    assert _threshold(top, np.arange(200) < 9, subject, 0.9) == 1.0, "fewer than a twentieth"
    assert _threshold(top, good, np.where(np.arange(200) < 100, "s0", subject), 0.95) == 1.0, "one animal only"
    # 92 of 100 are right: with the same share of every animal that keeps .9, with all errors in one of four it does not
    even, uneven = good.copy(), good.copy()
    even[[12, 25, 38, 51, 64, 77, 90, 99]] = False
    uneven[np.flatnonzero(subject == "s3")[1:17:2]] = False
    assert even.sum() == uneven.sum() == 92
    assert _threshold(top, even, subject, 0.9) < 1.0 == _threshold(top, uneven, subject, 0.9)


# -- pools -------------------------------------------------------------------------------------------------------------


def held_of(known: Examples, *, sharpness: float, seed: int = 9) -> dict[str, np.ndarray]:
    """Log-probabilities that are too sure by `sharpness`: classes were drawn from the softmax of a part of them."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * np.eye(3)[known.label] + rng.normal(size=(len(known), 3))
    return {name: (sharpness * logits).astype(np.float32) for name in NAMES}


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_the_temperature_makes_the_mean_top_probability_about_the_accuracy(sharpness: float):
    known, fresh = known_units(animals=60), known_units(seed=5, animals=60)
    pool = calibrated(held_of(known, sharpness=sharpness), known, NAMES)
    p = pool.probabilities(held_of(fresh, sharpness=sharpness, seed=10), fresh.exposure)
    assert pool.n == (1.0, 6.0, 30.0) and len({row for row in pool.weight}) == 1, "predictors weigh alike"
    for length in LENGTH_EXPOSURE:
        at = fresh.length == length
        assert p[at].max(axis=1).mean() == pytest.approx((p[at].argmax(axis=1) == fresh.label[at]).mean(), abs=0.05)


def test_thresholds_keep_their_precision_and_sets_their_coverage():
    known, fresh = known_units(animals=24), known_units(seed=5, animals=24)
    pool = calibrated(held_of(known, sharpness=2.0), known, NAMES)
    p = pool.probabilities(held_of(fresh, sharpness=2.0, seed=10), fresh.exposure)
    called, right = ~pool.too_unsure(p, fresh.exposure), p.argmax(axis=1) == fresh.label
    assert 0.1 < called.mean() < 1 and right[called].mean() >= 0.86
    inside = pool.sets(p, fresh.exposure)
    assert 0.87 <= inside[np.arange(len(fresh)), fresh.label].mean() <= 0.96
    assert inside.sum(axis=1).mean() < 2.7, "not by naming everything"


def test_where_nothing_is_known_nothing_is_called():
    known = known_units(animals=8)
    nothing = {name: np.zeros((len(known), 3), np.float32) for name in NAMES}
    pool = calibrated(nothing, known, NAMES)
    assert set(pool.abstain_below) == {1.0}
    assert precision_promise(pool, nothing, known).startswith("no threshold reached a precision of 0.80")


def test_candidates_are_chosen_by_log_loss_and_those_without_their_sets_are_left_out():
    known = known_units(animals=10)
    has = {name: known.has["embedding"] for name in (*NAMES, "embedding_neighbourhood", "statistics_neighbourhood")}
    known = replace(known, has=has)
    right = held_of(known, sharpness=1.0)["embedding"]
    noise = np.random.default_rng(3).normal(0, 3, right.shape).astype(np.float32)
    with_noise = dict.fromkeys(has, right) | {"statistics_neighbourhood": noise}
    first, *rest = fit_pools(with_noise, known)
    assert first.predictors == ("embedding", "embedding_neighbourhood")
    assert [pool.predictors for pool in rest] == [("statistics",), ("embedding",)]
    alone = fit_pools({"embedding": right}, known)
    assert [pool.predictors for pool in alone] == [("embedding",)]


def test_few_animals_promise_nothing():
    assert sets_promise(ENOUGH_ANIMALS - 1).startswith("no promise: ") and "19 training animals" in sets_promise(19)
    assert "90%" in sets_promise(ENOUGH_ANIMALS) and "no promise" not in sets_promise(ENOUGH_ANIMALS)


# -- a whole task ------------------------------------------------------------------------------------------------------


def test_a_task_scores_what_it_predicts_and_says_what_it_rests_on():
    known = known_units(spread=0.5)
    model = fit_task(known, CLASSES, sets=NAMES, saw="animals that the encoder never saw")
    assert [pool.predictors for pool in model.pools] == [("statistics",), ("embedding",)]
    assert set(model.scores) == {"1", "6", "0"}
    assert model.calibrated_on.startswith(
        "units of 6 animals, each predicted by readouts that saw nothing of its subject"
    )
    assert model.calibrated_on.endswith("; animals that the encoder never saw")
    embedding = model.alone("embedding")
    assert (embedding.answer(known.snapshot).probabilities.argmax(axis=1) == known.label).mean() > 0.8
    whole = model.on_whole_recordings()
    assert whole.predictors["embedding"].n.tolist() == [30] and len(model.part("t").predictors) == 2
    with pytest.raises(ReadoutError, match=r"one class only \(\['b'\]\)"):
        fit_task(replace(known, label=np.ones(len(known), dtype=int)), CLASSES)


def test_scores_below_those_of_plain_readouts_are_named():
    model = fit_task(known_units(), CLASSES, sets=NAMES)
    low = {"training": 0.9, "left_out": 0.5, "plain": 0.6}
    found = below_plain(replace(model, scores={"6": low, "0": low, "1": low | {"left_out": 0.595}}))
    assert [text.split(":")[0] for text in found] == ["6 windows", "whole recordings"]
    assert "0.500" in found[0] and "0.600" in found[0]


def test_task_models_are_stored_and_read_back_bitwise(tmp_path: Path):
    known = known_units()
    model = fit_task(known, CLASSES, sets=NAMES)
    save_task_models(tmp_path, {"t": model}, {"hop_s": 10.0})
    again = load_task_models(tmp_path)["t"]
    assert vars(again).keys() == vars(model).keys()
    for name in set(vars(model)) - {"predictors"}:
        assert getattr(again, name) == getattr(model, name), name
    for name, predictor in model.predictors.items():
        for part, values in vars(predictor).items():
            assert np.array_equal(values, getattr(again.predictors[name], part))
    one, two = model.answer(known.snapshot), again.answer(known.snapshot)
    assert np.array_equal(one.probabilities, two.probabilities) and np.array_equal(one.sets, two.sets)


def test_a_run_without_readouts_says_how_to_get_them(tmp_path: Path):
    with pytest.raises(ReadoutError, match="nuclr-train readout"):
        load_task_models(tmp_path)


def test_an_equal_pool_of_one_predictor_is_that_predictor():
    predictor = tiny_predictor("embedding", 3, 16)
    x, at = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32), np.full(5, 3, np.float32)
    logits = predictor.logits(x, at)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = LogLinearPool.equal(("embedding",)).probabilities({"embedding": logits}, at)
    assert found == pytest.approx(p, abs=1e-6)
