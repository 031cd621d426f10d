"""Paired differences: the scores of confusion matrices, and intervals over recordings within animals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from offline_training.evaluation.bootstrap import _resampled, confusions, paired_difference, scores_of
from offline_training.scores import NO_PREDICTION

SUBJECTS = ["A", "A", "A", "B", "B"]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_scores_of_confusions_are_those_of_scikit_learn(seed: int):
    rng = np.random.default_rng(seed)
    label, prediction = rng.permutation(np.arange(60) % 3), rng.integers(0, 3, 60)
    found = confusions(label, prediction, rng.choice(["r1", "r2"], 60), classes=3)
    f1, accuracy = scores_of(sum(found.values()), np.arange(3))
    assert f1 == pytest.approx(f1_score(label, prediction, average="macro"))
    assert accuracy == pytest.approx(balanced_accuracy_score(label, prediction))


def test_a_prediction_that_is_missing_or_not_scored_is_an_error():
    label, prediction = np.array([0, 0, 1, 1]), np.array([0, NO_PREDICTION, 1, 2])
    matrix = confusions(label, prediction, np.full(4, "r"), classes=3)["r"]
    assert matrix[0, 3] == matrix[1, 2] == 1
    assert scores_of(matrix, np.array([0, 1])).tolist() == pytest.approx([2 / 3, 0.5])


def test_a_class_that_does_not_occur_is_not_scored():
    matrix = confusions(np.array([0, 0]), np.array([0, 1]), np.full(2, "r"), classes=2)["r"]
    assert scores_of(matrix, np.array([0, 1])).tolist() == pytest.approx([2 / 3, 0.5])


def test_every_animal_keeps_its_number_of_recordings():
    weights = _resampled(np.array(SUBJECTS), 50)
    assert (weights[:, :3].sum(axis=1) == 3).all()
    assert (weights[:, 3:].sum(axis=1) == 2).all()
    assert len(np.unique(weights, axis=0)) > 5


def matrices(right: list[int]) -> np.ndarray:
    """One seed, five recordings of ten units of each of two classes, so many of which are right."""
    return np.array([[[[r, 10 - r, 0], [10 - r, r, 0]] for r in right]], dtype=float)


def test_a_row_minus_itself_is_nothing():
    one = matrices([2, 9, 5, 7, 1])
    found = paired_difference(one, one, SUBJECTS, np.arange(2), draws=100)
    assert found["macro_f1"] == {"difference": 0, "interval": [0, 0]}
    assert found["per_subject"] == {"A": 0, "B": 0}


def test_what_is_common_to_both_rows_cancels():
    one, other = matrices([2, 9, 5, 7, 3]), matrices([1, 8, 4, 6, 2])
    found = paired_difference(one, other, SUBJECTS, np.arange(2), draws=200)
    assert found["balanced_accuracy"]["difference"] == pytest.approx(0.1)
    assert found["balanced_accuracy"]["interval"] == pytest.approx([0.1, 0.1])


def test_an_interval_is_wide_where_one_recording_decides():
    one, other = matrices([10, 0, 0, 5, 5]), matrices([0, 0, 0, 5, 5])
    found = paired_difference(one, other, SUBJECTS, np.arange(2), draws=500)
    low, high = found["balanced_accuracy"]["interval"]
    assert low == 0 and high > found["balanced_accuracy"]["difference"] == pytest.approx(0.2)
    assert found["per_subject"] == {"A": pytest.approx(1 / 3, abs=1e-4), "B": 0}


def test_rows_of_different_numbers_of_seeds_are_compared_by_their_means():
    two_seeds = np.concatenate([matrices([10] * 5), matrices([0] * 5)])
    found = paired_difference(two_seeds, matrices([5] * 5), SUBJECTS, np.arange(2), draws=20)
    assert found["balanced_accuracy"]["difference"] == 0
