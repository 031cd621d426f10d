"""Scores of predictions: each against its definition, by hand or by scikit-learn; intervals resample whole animals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from offline_training.evaluation.scoring import CURVE, Predicted, joined, over, scores
from offline_training.scores import (
    NO_PREDICTION,
    balanced_accuracy,
    expected_calibration_error,
    macro_f1,
    precision_and_coverage,
)


def predicted(
    label: list[int],
    top: list[int],
    *,
    p: float | list[float] = 0.8,
    called: list[bool] | None = None,
    subject: str | None = None,
) -> Predicted:
    """Units of 3 classes whose top class has probability `p`; NO_PREDICTION for a unit without any."""
    count, known = len(label), np.array(top) != NO_PREDICTION
    top_p = np.broadcast_to(np.array(p, dtype=np.float32), count)
    probabilities = np.repeat((1 - top_p)[:, None] / 2, 3, axis=1)
    probabilities[np.arange(count), np.maximum(top, 0)] = top_p
    return Predicted(
        label=np.array(label),
        probabilities=probabilities,
        called=known if called is None else np.array(called),
        known=known,
        subject=np.array(list(subject or "a" * count)),
    )


def test_every_score_equals_its_hand_computation():
    found = predicted(
        label=[0, 0, 0, 1, 1, 2],
        top=[0, 0, 2, 1, NO_PREDICTION, 0],
        p=[0.9, 0.6, 0.7, 0.8, 0.5, 0.9],
        called=[True, False, True, True, False, True],
        subject="aabbbb",
    )
    score = scores(found, np.array([0, 1]))
    assert score["units"] == 5, "class 2 is not scored"
    # class 0: two of three right, no other unit called so; class 1: one of two right
    assert score["macro_f1"] == pytest.approx((2 * 2 / (3 + 2) + 2 * 1 / (2 + 1)) / 2, abs=1e-4)
    assert score["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-4)
    assert score["called"] == pytest.approx(3 / 5)
    assert score["precision"] == pytest.approx(2 / 3, abs=1e-4)
    # bins of equal mass, one known unit each: |right - p|
    assert score["ece"] == pytest.approx((0.1 + 0.4 + 0.7 + 0.2) / 4, abs=1e-4)
    assert score["per_animal"]["a"]["macro_f1"] == 1.0 and score["per_animal"]["a"]["units"] == 2
    assert score["per_animal"]["b"]["balanced_accuracy"] == pytest.approx((0 + 1 / 2) / 2)
    assert "curve" not in score and "confusion" not in score


def test_scores_of_animals_are_pooled_before_they_are_computed():
    rng = np.random.default_rng(0)
    label, top = rng.permutation(np.arange(90) % 3), rng.integers(0, 3, 90)
    whole = predicted(label.tolist(), top.tolist(), subject="a" * 30 + "b" * 60)
    parts = joined([whole.where(np.arange(90) < 40), whole.where(np.arange(90) >= 40)])
    score = scores(parts, np.arange(3))
    assert score["macro_f1"] == pytest.approx(f1_score(label, top, average="macro"), abs=1e-4)
    assert score["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, top), abs=1e-4)


def test_the_curve_is_precision_over_the_share_called_by_threshold():
    found = predicted([0, 0, 1, 1], [0, 1, 1, NO_PREDICTION], p=[0.9, 0.6, 0.8, 0.97])
    curve = {t: (called, precision) for t, called, precision in scores(found, np.arange(2), curve=True)["curve"]}
    assert set(curve) == set(CURVE)
    assert curve[0.0] == (0.75, pytest.approx(2 / 3, abs=1e-4)), "a unit without a prediction is never called"
    assert curve[0.7] == (0.5, 1.0) and curve[0.95] == (0.0, None)


def test_the_confusion_matrix_counts_known_units_by_truth_and_prediction():
    found = predicted([0, 0, 1, 1, 2], [0, 1, 2, NO_PREDICTION, 2])
    assert scores(found, np.array([0, 1]), confusion=True)["confusion"] == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_an_interval_resamples_animals_and_not_units():
    right_in_a = predicted([0, 1] * 100, [0, 1] * 50 + [1, 0] * 50, subject="a" * 100 + "b" * 100)
    assert scores(right_in_a, np.arange(2))["macro_f1_interval"] == [0.0, 1.0], "both or none may be drawn"
    alike = predicted([0, 1, 0, 1] * 2, [0, 1, 0, 0] * 2, subject="aaaabbbb")
    low, high = scores(alike, np.arange(2))["macro_f1_interval"]
    assert low == high == scores(alike, np.arange(2))["macro_f1"]


def test_the_difference_over_the_floor_is_paired_by_animal():
    label, subject = [0, 1] * 4, "aabbccdd"
    ours = predicted(label, [0, 1, 0, 1, 0, 0, 1, 0], subject=subject)
    assert over(ours, ours, np.arange(2)) == {"macro_f1": 0.0, "interval": [0.0, 0.0]}
    floor = predicted(label, [0, 0, 0, 1, 0, 0, 1, 0], subject=subject)  # worse in animal a alone
    found = over(ours, floor, np.arange(2))
    expected = f1_score(label, ours.top, average="macro") - f1_score(label, floor.top, average="macro")
    assert found["macro_f1"] == pytest.approx(expected, abs=1e-4) and expected > 0
    low, high = found["interval"]
    assert low == pytest.approx(0.0, abs=0.01) and high > expected, "a draw without animal a has no difference"


def test_predictions_outside_the_scored_classes_are_errors():
    label, top = np.array([0, 0, 1, 1]), np.array([0, 2, 1, NO_PREDICTION])
    assert macro_f1(label, top, np.array([0, 1])) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert balanced_accuracy(label, top, np.array([0, 1])) == 0.5


def test_calibration_error_compares_confidence_with_accuracy():
    probability = np.repeat([0.6, 0.9], 50)
    right = np.concatenate([np.arange(50) < 30, np.arange(50) < 35])
    assert expected_calibration_error(probability, right, bins=2) == pytest.approx((0.0 + 0.2) / 2)
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, dtype=bool)))


def test_precision_is_that_of_the_called_units():
    right, abstained = np.array([True, False, True, False]), np.array([False, False, True, True])
    assert precision_and_coverage(right, abstained) == (0.5, 0.5)
    assert precision_and_coverage(right, np.ones(4, dtype=bool))[1] == 0
