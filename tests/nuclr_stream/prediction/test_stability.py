"""Stability: since when the top class of a unit is the same, whatever happens to the unit table meanwhile."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nuclr_stream.prediction.stability import NEVER, Stability

UNITS = np.array([4, 9, 2])


def update(
    clocks: Stability, end_sample: int, *top: int, units: np.ndarray = UNITS, task: str = "cell_type"
) -> tuple[list[int], int]:
    """What becomes of top classes, -1 standing for a unit without exposure."""
    classes = np.array(top)
    since, flips = clocks.update(
        task, units, top=np.maximum(classes, 0), has_prediction=classes >= 0, end_sample=end_sample
    )
    assert since.dtype == np.int64
    return since.tolist(), flips


def test_a_clock_starts_with_the_first_answer_and_anew_with_every_change() -> None:
    clocks = Stability()
    assert update(clocks, 100, 0, 1, -1) == ([100, 100, NEVER], 0)
    assert update(clocks, 200, 0, 2, 3) == ([100, 200, 200], 1)
    assert update(clocks, 300, 1, 1, 3) == ([300, 300, 200], 2), "back to an earlier class is a change too"


def test_tasks_have_clocks_of_their_own() -> None:
    clocks = Stability()
    update(clocks, 100, 0, 0, 0)
    assert update(clocks, 200, 1, 1, 1, task="brain_region") == ([200] * 3, 0)
    assert update(clocks, 300, 0, 0, 0) == ([100] * 3, 0)


def test_a_step_without_an_answer_is_no_change() -> None:
    clocks = Stability()
    update(clocks, 100, 0, 1, 2)
    assert update(clocks, 200, -1, -1, -1) == ([NEVER] * 3, 0)
    assert update(clocks, 300, 0, 1, 3) == ([100, 100, 300], 1)


def test_units_are_known_by_index_and_not_by_row() -> None:
    clocks = Stability()
    update(clocks, 100, 0, 1, 2)
    assert update(clocks, 200, 2, 5, 0, units=np.array([2, 7, 4])) == ([100, 200, 100], 0)


def test_what_is_forgotten_starts_anew_in_every_task_and_is_no_flip() -> None:
    clocks = Stability()
    for task in ("cell_type", "brain_region"):
        update(clocks, 100, 0, 1, 2, task=task)
    clocks.forget({9, 77})
    for task in ("cell_type", "brain_region"):
        assert update(clocks, 200, 0, 0, 2, task=task) == ([100, 200, 100], 0)


def test_a_new_epoch_starts_every_clock_and_counts_no_flip() -> None:
    clocks = Stability()
    update(clocks, 10_000, 0, 1, 2)
    clocks.restart()
    assert update(clocks, 50, 0, 0, 2) == ([50, 50, 50], 0)


@given(st.lists(st.lists(st.integers(-1, 2), min_size=3, max_size=3), min_size=1, max_size=12))
def test_the_clock_agrees_with_the_whole_history(steps: list[list[int]]) -> None:
    clocks = Stability()
    total = 0
    for step, tops in enumerate(steps):
        since, flips = update(clocks, 100 * step, *tops)
        total += flips
        for unit in range(3):
            answers = [(100 * k, past[unit]) for k, past in enumerate(steps[: step + 1]) if past[unit] >= 0]
            runs = [sample for k, (sample, top) in enumerate(answers) if k == 0 or answers[k - 1][1] != top]
            assert since[unit] == (runs[-1] if tops[unit] >= 0 else NEVER)
    changes = [[top for past in steps if (top := past[unit]) >= 0] for unit in range(3)]
    assert total == sum(a != b for tops in changes for a, b in pairwise(tops))
