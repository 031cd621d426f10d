"""Stretches of samples and counted messages, against the plainest oracle there is."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nuclr_stream.stream.sequence import MAX_REMEMBERED, SequenceCheck
from nuclr_stream.windows.interval_set import Stretches

STRETCH = st.tuples(st.integers(-30, 60), st.integers(-30, 60))


@given(st.lists(STRETCH, max_size=12), STRETCH.map(sorted), st.integers(-40, 70))
def test_stretches_are_a_set_of_samples(added, asked, sample):
    stretches, oracle = Stretches(), set()
    for start, stop in added:
        stretches.add(start, stop)
        oracle |= set(range(start, stop))
    assert stretches.inside(*asked) == len(oracle & set(range(*asked)))
    edges = np.arange(-40, 71)
    assert stretches.before(edges).tolist() == [len([s for s in oracle if s < edge]) for edge in edges]
    assert stretches.first_from(sample) == min((s for s in oracle if s >= sample), default=None)
    runs = len([s for s in oracle if s - 1 not in oracle])
    assert len(stretches) == runs, "touching stretches melt together"
    stretches.forget_before(sample)
    assert stretches.inside(sample, 100) == len([s for s in oracle if s >= sample])


@given(st.permutations(range(3, 30)), st.lists(st.integers(3, 29), max_size=10))
def test_every_message_is_admitted_once_in_any_order_and_what_never_came_is_known(order, repeated):
    lost = set(order[-5:]) - {3}
    arriving = [3, *(s for s in order if s not in lost and s != 3), *(s for s in repeated if s not in lost)]
    check = SequenceCheck(3)
    admitted = [s for s in arriving if check.admit(s)]
    assert sorted(admitted) == sorted(set(arriving))
    assert check.gap - check.reordered == len([s for s in lost if s < max(arriving)])


def test_a_huge_gap_is_counted_without_being_remembered_whole():
    check = SequenceCheck(0)
    assert check.admit(0)
    assert check.admit(2**50)
    assert check.gap == 2**50 - 1
    assert not check.admit(1), "older than what is remembered"
    assert check.admit(2**50 - MAX_REMEMBERED)
