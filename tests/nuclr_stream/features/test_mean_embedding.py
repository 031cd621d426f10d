"""Mean embeddings: plain means over windows and the count behind them, through every change of the unit table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.features.exposure import exposure_windows, knot_shares
from nuclr_stream.features.mean_embedding import MeanEmbedding


def test_overlapping_windows_count_by_the_hop():
    assert exposure_windows([0, 1, 2, 51], hop_s=1.0, window_s=10.0).tolist() == pytest.approx([0, 1, 1.1, 6])
    assert exposure_windows([0, 1, 7], hop_s=10.0, window_s=10.0).tolist() == [0, 1, 7]
    assert exposure_windows([7], hop_s=20.0, window_s=10.0).tolist() == [7]


def test_shares_of_knots_are_linear_in_the_logarithm_and_level_beyond_the_ends():
    found = knot_shares([0, 0.5, 1, 2, 4, 8, 16, 500], (1.0, 4.0, 16.0))
    expected = [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1], [0, 0, 1]]
    assert found == pytest.approx(np.array(expected))
    assert knot_shares([3.0], (1.0,)).tolist() == [[1.0]]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sets(st.integers(0, 6), min_size=1)),
        st.tuples(st.just("merge"), st.permutations(range(7)).map(lambda p: (p[0], p[1]))),
        st.tuples(st.just("forget"), st.sets(st.integers(0, 6))),
        st.tuples(st.just("reindex"), st.permutations(range(7)).map(lambda p: dict(zip(p[:4], p[3:], strict=False)))),
    ),
    max_size=25,
)


@given(OPERATIONS, st.integers(0, 2**32 - 1))
def test_exposure_is_that_of_a_plain_dictionary(operations, seed):
    rng = np.random.default_rng(seed)
    exposure, oracle = MeanEmbedding(3), {}
    for kind, argument in operations:
        if kind == "add":
            indices = np.array(sorted(argument))
            embeddings = rng.normal(size=(len(indices), 3)).astype(np.float32)
            exposure.add(indices, embeddings)
            for i, e in zip(indices.tolist(), embeddings, strict=True):
                total, windows, _ = oracle.get(i, (np.zeros(3), 0, None))
                oracle[i] = (total + e, windows + 1, e)
        elif kind == "merge":
            exposure.merge(*argument)
            source, target = argument
            if source in oracle:
                total, windows, last = oracle.pop(source)
                other = oracle.get(target, (np.zeros(3), 0, np.zeros(3)))
                oracle[target] = (total + other[0], windows + other[1], other[2] if other[1] else last)
        elif kind == "forget":
            exposure.forget(argument)
            oracle = {i: v for i, v in oracle.items() if i not in argument}
        else:
            exposure.reindex(argument)
            oracle = {argument[i]: v for i, v in oracle.items() if i in argument}
    everyone = np.arange(7)
    assert exposure.windows(everyone).tolist() == [oracle[i][1] if i in oracle else 0 for i in range(7)]
    for i in range(7):
        total, windows, last = oracle.get(i, (np.zeros(3), 1, np.zeros(3)))
        assert exposure.mean(np.array([i]))[0] == pytest.approx(total / windows, abs=1e-6)
        assert np.array_equal(exposure.last(np.array([i]))[0], last)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 12), max_size=5))
def test_means_are_bitwise_the_same_however_the_units_of_a_window_come(seed, cuts):
    rng = np.random.default_rng(seed)
    whole, parts, everyone = MeanEmbedding(3), MeanEmbedding(3), np.arange(12)
    for _ in range(5):
        embeddings = rng.normal(size=(12, 3)).astype(np.float32)
        whole.add(everyone, embeddings)
        for chunk in np.split(rng.permutation(12), sorted(cuts)):
            parts.add(chunk, embeddings[chunk])
    assert np.array_equal(whole.mean(everyone), parts.mean(everyone))
    assert np.array_equal(whole.last(everyone), parts.last(everyone))


def test_a_forgotten_unit_takes_no_memory():
    exposure = MeanEmbedding(4)
    exposure.add(np.arange(100), np.ones((100, 4), np.float32))
    exposure.forget(range(100))
    assert exposure._sums._sums.shape[0] == 0


# -- weights and fading --------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.lists(st.floats(0.5, 1.0), min_size=1, max_size=8))
def test_windows_with_missing_data_weigh_less(seed, weights):
    rng, unit, exposure = np.random.default_rng(seed), np.array([2]), MeanEmbedding(3)
    embeddings = rng.normal(size=(len(weights), 3)).astype(np.float32)
    for embedding, weight in zip(embeddings, weights, strict=True):
        exposure.add(unit, embedding[None], weight=weight)
    assert exposure.mean(unit)[0] == pytest.approx(np.average(embeddings, axis=0, weights=weights), abs=1e-5)
    assert exposure.weight(unit)[0] == pytest.approx(sum(weights))
    assert exposure.windows(unit).tolist() == [len(weights)]


def test_what_was_gathered_fades_by_half_over_the_half_life():
    exposure, units = MeanEmbedding(1, half_life_windows=3.0), np.array([0, 1])
    exposure.add(units, np.array([[8.0], [8.0]], dtype=np.float32))
    for _ in range(3):
        exposure.add(units[:1], np.zeros((1, 1), dtype=np.float32))
    assert exposure.weight(units)[1] == pytest.approx(0.5), "a unit that is silent fades as well"
    assert exposure.mean(units)[1] == pytest.approx(8.0), "but what is known of it stays what it is"
    kept = 0.5 ** (np.arange(4) / 3)
    assert exposure.mean(units)[0] == pytest.approx(8 * kept[3] / kept.sum())
    for _ in range(200):
        exposure.add(units[:1], np.ones((1, 1), dtype=np.float32))
    assert exposure.mean(units)[0] == pytest.approx(1.0)
    assert exposure.weight(units)[0] == pytest.approx(1 / (1 - 0.5 ** (1 / 3)))
