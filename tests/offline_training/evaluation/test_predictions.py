"""Predictions: what is kept of every unit, and what its neighbours along depth add."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from nuclr_stream.features.mean_embedding import Calibration
from nuclr_stream.recordings.recording import Recording
from offline_training.evaluation.predictions import places, predictions
from offline_training.readouts.readout import Readout
from offline_training.readouts.regression import Linear
from offline_training.scores import NO_PREDICTION

READOUT = Readout(
    ("x", "y"),
    Linear(np.eye(2), np.zeros(2), np.zeros((1, 2)), np.ones((1, 2)), np.ones(1)),
    Calibration(),
    1.0,
    "subject",
    0.0,
    "",
)
LABELS = np.array([0, 0, 1, -1])


class Steps:
    """Four units in one window; the third never fired, the fourth has no label and is very sure of x."""

    recording_id, subject_id, steps_per_window, end_s = "r", "s", 1, np.array([10.0])

    def between(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        values = np.array([[0, 1], [3, 0], [0, 0], [9, 0]], dtype=np.float32)
        return values, np.array([1, 1, 0, 1], dtype=np.float32)


def recording(**columns: list) -> Recording:
    return Recording(
        recording_id="r",
        subject_id="s",
        sample_rate=Fraction(30000),
        num_samples=30000,
        spike_samples=np.array([1]),
        spike_units=np.array([0], dtype=np.int32),
        unit_ids=np.array(["a", "b", "c", "d"]),
        units={name: np.array(values) for name, values in columns.items()},
    )


def test_all_probabilities_of_labelled_units_are_kept_in_thousandths():
    found = predictions(READOUT, [Steps()], [LABELS], None)
    assert found["prediction"] == [1, 0, NO_PREDICTION]
    assert found["p"] == [[269, 731], [953, 47], [500, 500]]
    assert found["probability"] == pytest.approx([0.7311, 0.9526, 0.5])
    assert found["abstained"] == [0, 0, 1]
    assert "multi_prediction" not in found


def test_neighbours_within_60_um_speak_for_a_unit_labelled_or_not():
    where = [places(recording(depth_um=[0, 50, 1000, 60]), np.ones(4, dtype=bool))]
    found = predictions(READOUT, [Steps()], [LABELS], None, where=where)
    assert found["prediction"] == [1, 0, NO_PREDICTION]
    assert found["multi_prediction"] == [0, 0, NO_PREDICTION]


def test_neighbours_on_another_shank_or_further_away_do_not():
    apart = recording(depth_um=[0, 50, 1000, 61], shank=[0, 1, 0, 0])
    found = predictions(READOUT, [Steps()], [LABELS], None, where=[places(apart, np.ones(4, dtype=bool))])
    assert found["multi_prediction"] == [1, 0, NO_PREDICTION]


def test_a_unit_that_a_readout_was_fitted_on_speaks_for_nobody():
    where = [places(recording(depth_um=[0, 0, 0, 0]), np.array([True, False, True, False]))]
    found = predictions(READOUT, [Steps()], [LABELS], None, where=where)
    assert found["multi_prediction"][0] == 1
    assert found["multi_prediction"][2] == 1  # silent itself, its neighbour speaks for it


def test_without_depths_there_is_no_multi_unit_prediction():
    assert places(recording(), np.ones(4, dtype=bool)) is None
    assert "multi_prediction" not in predictions(READOUT, [Steps()], [LABELS], None, where=[None])


def test_before_the_first_window_nothing_is_said():
    where = [places(recording(depth_um=[0] * 4), np.ones(4, dtype=bool))]
    found = predictions(READOUT, [Steps()], [LABELS], 5.0, where=where)
    assert found["prediction"] == found["multi_prediction"] == [NO_PREDICTION] * 3
    assert (found["abstained"], found["n"], found["p"]) == ([1] * 3, [0.0] * 3, [[]] * 3)
