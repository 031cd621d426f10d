"""Evidence: plain means over windows, the count behind them, and probabilities that say how far to believe."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.features.mean_embedding import Calibration, MeanEmbedding, effective_sample_size, exposure_windows


def test_overlapping_windows_count_by_the_hop():
    assert exposure_windows([0, 1, 2, 51], hop_s=1.0, window_s=10.0).tolist() == pytest.approx([0, 1, 1.1, 6])
    assert exposure_windows([0, 1, 7], hop_s=10.0, window_s=10.0).tolist() == [0, 1, 7]
    assert exposure_windows([7], hop_s=20.0, window_s=10.0).tolist() == [7]


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
            oracle.pop(argument, None)
        else:
            exposure.reindex(argument)
            oracle = {argument[i]: v for i, v in oracle.items() if i in argument}
    everyone = np.arange(7)
    assert exposure.windows(everyone).tolist() == [oracle[i][1] if i in oracle else 0 for i in range(7)]
    for i in range(7):
        total, windows, last = oracle.get(i, (np.zeros(3), 1, np.zeros(3)))
        assert exposure.mean(np.array([i]))[0] == pytest.approx(total / windows, abs=1e-6)
        assert np.array_equal(exposure.last(np.array([i]))[0], last)


def test_a_forgotten_unit_takes_no_memory():
    exposure = MeanEmbedding(4)
    exposure.add(np.arange(100), np.ones((100, 4), np.float32))
    for i in range(100):
        exposure.forget(i)
    assert exposure._sums._sums.shape[0] == 0


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
    exposure = np.array([0, 1, 1], dtype=np.float32)
    assert Calibration(abstain_below=0.6).abstains(p, exposure).tolist() == [True, False, True]


def test_where_no_threshold_keeps_the_promise_even_a_certain_unit_abstains():
    certain = np.array([[1.0, 0.0]], dtype=np.float32)
    assert Calibration(abstain_below=1.0).abstains(certain, np.ones(1, np.float32)).all()


# -- weights, scatter, forgetting --------------------------------------------------------------------------------------


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
    same = MeanEmbedding(3)
    for weight in weights:
        same.add(unit, embeddings[:1], weight=weight)
    assert same.scatter(unit)[0] == pytest.approx(0, abs=1e-9), "less of the same is no variety"


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_scatter_is_the_unbiased_variance_of_the_windows(seed, windows):
    rng, unit, exposure = np.random.default_rng(seed), np.array([0]), MeanEmbedding(4)
    embeddings = rng.normal(5, 1, (windows, 4)).astype(np.float32)
    for embedding in embeddings:
        exposure.add(unit, embedding[None])
    expected = embeddings.astype(float).var(axis=0, ddof=1).sum() if windows > 1 else 0.0
    assert exposure.scatter(unit)[0] == pytest.approx(expected, rel=1e-6)


def test_effective_evidence_stalls_for_a_repeated_window_and_rises_for_varied_ones():
    rng, units = np.random.default_rng(0), np.array([0, 1, 2])
    exposure, found = MeanEmbedding(8), []
    same = rng.normal(size=8)
    for _ in range(30):
        varied = rng.normal(size=8)
        exposure.add(units, np.stack([same, varied, same + (varied - same) / 2]).astype(np.float32))
        found.append(effective_sample_size(exposure.weight(units).astype(np.float32), exposure.scatter(units), 8.0))
    stalled, risen, between = np.array(found).T
    assert stalled == pytest.approx(np.ones(30), abs=1e-3)
    assert risen[0] == 1 and risen[-1] > 20 and (risen <= np.arange(1, 31) + 1e-4).all()
    assert 1 + 0.1 * 29 < between[-1] < 1 + 0.4 * 29, "half as far is a quarter of the variance"


def test_a_bundle_that_does_not_say_what_is_typical_counts_every_window():
    n = np.array([0, 0.4, 1, 30], dtype=np.float32)
    assert np.array_equal(effective_sample_size(n, np.zeros(4), None), n)
    assert effective_sample_size(n, np.zeros(4), 1.0).tolist() == pytest.approx([0, 0.4, 1, 1])


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
