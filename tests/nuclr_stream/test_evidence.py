"""Evidence: plain means over windows, the count behind them, and probabilities that say how far to believe."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclr_stream.evidence import Calibration, Evidence, evidence_n


def test_overlapping_windows_count_by_the_hop():
    assert evidence_n([0, 1, 2, 51], hop_s=1.0, window_s=10.0).tolist() == pytest.approx([0, 1, 1.1, 6])
    assert evidence_n([0, 1, 7], hop_s=10.0, window_s=10.0).tolist() == [0, 1, 7]
    assert evidence_n([7], hop_s=20.0, window_s=10.0).tolist() == [7]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sets(st.integers(0, 6), min_size=1)),
        st.tuples(st.just("merge"), st.permutations(range(7)).map(lambda p: (p[0], p[1]))),
        st.tuples(st.just("forget"), st.integers(0, 6)),
        st.tuples(st.just("reindex"), st.permutations(range(7)).map(lambda p: dict(zip(p[:4], p[3:], strict=False)))),
    ),
    max_size=25,
)


@given(OPERATIONS, st.integers(0, 2**32 - 1))
def test_evidence_is_that_of_a_plain_dictionary(operations, seed):
    rng = np.random.default_rng(seed)
    evidence, oracle = Evidence(3), {}
    for kind, argument in operations:
        if kind == "add":
            indices = np.array(sorted(argument))
            embeddings = rng.normal(size=(len(indices), 3)).astype(np.float32)
            evidence.add(indices, embeddings)
            for i, e in zip(indices.tolist(), embeddings, strict=True):
                total, windows, _ = oracle.get(i, (np.zeros(3), 0, None))
                oracle[i] = (total + e, windows + 1, e)
        elif kind == "merge":
            evidence.merge(*argument)
            source, target = argument
            if source in oracle:
                total, windows, last = oracle.pop(source)
                other = oracle.get(target, (np.zeros(3), 0, np.zeros(3)))
                oracle[target] = (total + other[0], windows + other[1], other[2] if other[1] else last)
        elif kind == "forget":
            evidence.forget(argument)
            oracle.pop(argument, None)
        else:
            evidence.reindex(argument)
            oracle = {argument[i]: v for i, v in oracle.items() if i in argument}
    everyone = np.arange(7)
    assert evidence.windows(everyone).tolist() == [oracle[i][1] if i in oracle else 0 for i in range(7)]
    for i in range(7):
        total, windows, last = oracle.get(i, (np.zeros(3), 1, np.zeros(3)))
        assert evidence.mean(np.array([i]))[0] == pytest.approx(total / windows, abs=1e-6)
        assert np.array_equal(evidence.last(np.array([i]))[0], last)


def test_a_forgotten_unit_takes_no_memory():
    evidence = Evidence(4)
    evidence.add(np.arange(100), np.ones((100, 4), np.float32))
    for i in range(100):
        evidence.forget(i)
    assert evidence._sums._sums.shape[0] == 0


def test_temperature_follows_the_logarithm_of_the_evidence():
    calibration = Calibration(n=(1.0, 100.0), temperature=(3.0, 1.0))
    logits = np.array([[2.0, 0.0]] * 4, dtype=np.float32)
    p = calibration.probabilities(logits, np.array([0.5, 1, 10, 1000], dtype=np.float32))[:, 0]
    assert p == pytest.approx([1 / (1 + np.exp(-2 / t)) for t in (3, 3, 2, 1)], rel=1e-5)


def test_probabilities_add_up_even_for_huge_logits():
    p = Calibration().probabilities(np.array([[1e4, -1e4, 0]], np.float32), np.ones(1, np.float32))
    assert p.sum() == pytest.approx(1)
    assert np.isfinite(p).all()


def test_a_unit_abstains_before_its_first_window_and_below_the_threshold():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.59, 0.41]], dtype=np.float32)
    evidence = np.array([0, 1, 1], dtype=np.float32)
    assert Calibration(abstain_below=0.6).abstains(p, evidence).tolist() == [True, False, True]


def test_where_no_threshold_keeps_the_promise_even_a_certain_unit_abstains():
    certain = np.array([[1.0, 0.0]], dtype=np.float32)
    assert Calibration(abstain_below=1.0).abstains(certain, np.ones(1, np.float32)).all()
