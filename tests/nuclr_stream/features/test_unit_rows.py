"""Rows of sums per unit: a plain dictionary in every respect but speed, and never larger than the units that live."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.features.unit_rows import UnitRows

UNITS = st.integers(0, 6)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "put"]), st.lists(UNITS, unique=True)),
        st.tuples(st.just("merge"), st.permutations(range(7)).map(lambda p: (p[0], p[1]))),
        st.tuples(st.just("forget"), st.sets(UNITS)),
        st.tuples(st.just("scale"), st.sampled_from([0.5, 2.0])),
        st.tuples(st.just("reindex"), st.permutations(range(7)).map(lambda p: dict(zip(p[:4], p[3:], strict=False)))),
    ),
    max_size=25,
)


def done_to_a_dictionary(oracle: dict, kind: str, argument, values: np.ndarray) -> dict:
    if kind in ("add", "put"):
        before = oracle if kind == "add" else {}
        return oracle | {i: before.get(i, 0) + v for i, v in zip(argument, values, strict=True)}
    if kind == "merge":
        source, target = argument
        rest = {i: v for i, v in oracle.items() if i != source}
        return rest | {target: rest.get(target, 0) + oracle[source]} if source in oracle else rest
    if kind == "forget":
        return {i: v for i, v in oracle.items() if i not in argument}
    if kind == "scale":
        return {i: v * argument for i, v in oracle.items()}
    return {argument[i]: v for i, v in oracle.items() if i in argument}


@settings(max_examples=60)
@given(OPERATIONS, st.integers(0, 2**32 - 1))
def test_rows_are_those_of_a_plain_dictionary(operations, seed):
    rng = np.random.default_rng(seed)
    rows, oracle = UnitRows(3), {}
    for kind, argument in operations:
        values = rng.integers(-9, 9, (7, 3)).astype(float)
        if kind in ("add", "put"):
            values = values[: len(argument)]
            getattr(rows, kind)(np.array(argument, dtype=np.int64), values)
        elif kind == "merge":
            rows.merge(*argument)
        else:
            getattr(rows, kind)(argument)
        oracle = done_to_a_dictionary(oracle, kind, argument, values)
        assert [i in rows for i in range(7)] == [i in oracle for i in range(7)]
        expected = np.array([oracle.get(i, np.zeros(3)) for i in range(7)])
        assert np.array_equal(rows.read(np.arange(7)), expected)
        assert len(rows._sums) == len(oracle), "memory is that of the living units"


def test_what_was_read_does_not_change_with_what_is_added_later():
    rows = UnitRows(1)
    rows.add(np.array([4]), np.ones((1, 1)))
    before = rows.read(np.array([4]))
    rows.add(np.array([4]), np.ones((1, 1)))
    assert before.tolist() == [[1.0]]


def test_rows_are_read_in_the_order_asked_for_also_twice():
    rows = UnitRows(1)
    rows.add(np.array([7, 3]), np.array([[7.0], [3.0]]))
    assert rows.read(np.array([3, 9, 7, 3])).ravel().tolist() == [3, 0, 7, 3]


def test_single_precision_is_added_up_in_double():
    rows = UnitRows(1)
    for _ in range(10_000):
        rows.add(np.array([0]), np.full((1, 1), 0.1, dtype=np.float32))
    assert rows.read(np.array([0]))[0, 0] == pytest.approx(10_000 * float(np.float32(0.1)), rel=1e-12)
