"""What windows add up to: a second counts once, rejected windows not at all, and the same live as offline."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.features.accumulator import (
    SPIKE_SETS,
    TRACE_SETS,
    FeatureAccumulator,
    FeatureSnapshot,
    feature_count,
    feature_sets,
)
from nuclr_stream.features.coupling import COUPLING_SUMS
from nuclr_stream.features.isi import INTERVAL_BINS
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import recorded_windows
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.windows.binning import WindowRules, WindowSpec
from offline_training.readouts.embed import embed_recording, one_by_one
from tests.nuclr_stream.streams import random_recording

SPEC = WindowSpec(Fraction(50), 50, 10, 50)


@pytest.fixture(scope="module")
def model(tiny_bundle):
    return Model(load_bundle(tiny_bundle), provider="cpu", threads=1)


def nothing_else(units: int) -> dict[str, np.ndarray]:
    """Neither intervals nor couplings."""
    coupling = np.zeros((units, COUPLING_SUMS), dtype=np.int64)
    return {"intervals": np.zeros((units, INTERVAL_BINS), dtype=np.int32), "coupling": coupling}


def observe(observed: FeatureAccumulator, counts: np.ndarray, end_bin: int) -> None:
    """One window that ends at `end_bin` of counts (U, all bins) since bin 0, as if embedded."""
    everyone = np.arange(len(counts))
    window = counts[:, end_bin - observed.spec.bins : end_bin].astype(np.float32)
    there = np.ones(len(counts), dtype=bool)
    observed.add_activity(everyone, window, end_bin=end_bin, eligible=there, **nothing_else(len(counts)))


@settings(max_examples=40)
@given(st.sampled_from([1, 10, 25, 50, 70, 500, 750]), st.integers(0, 2**32 - 1), st.data())
def test_a_second_counts_once_for_any_hop_and_only_as_part_of_an_accepted_window(hop: int, seed: int, data):
    counts = np.random.default_rng(seed).poisson(0.2, (3, 1300))
    observed = FeatureAccumulator(replace(SPEC, hop_bins=hop), 4)
    seconds = set()
    ends = range(-(-500 // hop) * hop, 1301, hop)
    for end in ends:
        if data.draw(st.booleans()) or len(ends) < 4:
            observe(observed, counts, end)
            seconds |= set(range(-(-(end - 500) // 50), end // 50))
    everyone = np.arange(3)
    expected = counts.reshape(3, -1, 50)[:, sorted(seconds)].sum(axis=(1, 2))
    assert observed.statistics.seconds(everyone).tolist() == [len(seconds)] * 3
    assert observed.statistics.spikes(everyone).tolist() == expected.tolist()


def test_a_new_epoch_counts_its_bins_anew():
    counts = np.ones((2, 600))
    observed = FeatureAccumulator(SPEC, 4)
    observe(observed, counts, 600)
    observed.begin_epoch()
    observe(observed, counts, 500)
    assert observed.statistics.seconds(np.arange(2)).tolist() == [20, 20]


def test_a_unit_is_observed_from_its_first_whole_window_on():
    observed, counts = FeatureAccumulator(SPEC, 4), np.ones((2, 500), dtype=np.float32)
    pair = np.arange(2)
    other = nothing_else(2)
    other["intervals"][:, 3], other["coupling"][:, -3] = 5, 7
    first = np.array([True, False])
    observed.add_activity(pair, counts, end_bin=500, eligible=first, **other)
    observed.add_activity(pair, counts, end_bin=550, eligible=~first | first, **other)
    assert observed.statistics.seconds(pair).tolist() == [11, 1]
    assert observed.statistics.intervals(pair)[:, 3].tolist() == [10, 5]
    assert observed.coupling.spikes(pair).tolist() == [14, 7]


def test_a_set_says_of_whom_it_has_something():
    observed, everyone = FeatureAccumulator(SPEC, 4), np.arange(3)
    counts = np.zeros((3, 500))
    counts[:2, 7] = 1
    observe(observed, counts, 500)
    observed.add_embeddings(np.array([0]), np.ones((1, 4), np.float32))
    seen = observed.snapshot(everyone)
    assert seen.has["embedding"].tolist() == [True, False, False]
    assert seen.has["statistics"].tolist() == [True, True, False]
    assert not seen.has["embedding_neighbourhood"].any(), "a unit alone has no neighbours"
    assert {name: f.shape for name, f in seen.features.items()} == {n: (3, feature_count(n, 4)) for n in SPIKE_SETS}
    assert not seen.features["embedding"][1:].any() and not seen.features["statistics_neighbourhood"][1:].any()
    observed.add_embeddings(np.array([1]), np.ones((1, 4), np.float32))
    assert observed.snapshot(everyone).has["statistics_neighbourhood"].tolist() == [True, True, False]


def test_only_the_units_asked_for_are_neighbours():
    observed, rng = FeatureAccumulator(SPEC, 4), np.random.default_rng(0)
    observe(observed, rng.poisson(0.3, (3, 500)), 500)
    observed.add_embeddings(np.arange(3), rng.normal(size=(3, 4)).astype(np.float32))
    pair = observed.snapshot(np.array([0, 2])).features["embedding_neighbourhood"]
    means = observed.embedding.mean(np.array([0, 2]))
    assert pair[0, 4:8] == pytest.approx(means[1])
    assert pair[0, 8:12] == pytest.approx(means.mean(axis=0))


def test_traces_have_no_statistics():
    observed = FeatureAccumulator(replace(SPEC, input_kind="traces"), 4)
    observe(observed, np.random.default_rng(0).normal(size=(3, 500)), 500)
    observed.add_embeddings(np.arange(3), np.ones((3, 4), np.float32))
    seen = observed.snapshot(np.arange(3))
    assert tuple(seen.features) == tuple(seen.has) == feature_sets("traces") == TRACE_SETS
    assert not seen.observed.any() and seen.has["embedding_neighbourhood"].all()


def test_merging_forgetting_and_new_names_reach_everything_that_was_gathered():
    observed, rng = FeatureAccumulator(SPEC, 4), np.random.default_rng(1)
    observe(observed, rng.poisson(0.3, (4, 500)), 500)
    observed.add_embeddings(np.arange(4), rng.normal(size=(4, 4)).astype(np.float32))
    before = observed.statistics.spikes(np.arange(4))
    observed.merge(1, 0)
    observed.forget({1, 2})
    observed.reindex({0: 9, 3: 5})
    seen = observed.snapshot(np.array([1, 5, 9]))
    assert seen.has["embedding"].tolist() == seen.has["statistics_neighbourhood"].tolist() == [False, True, True]
    assert observed.statistics.spikes(np.array([1, 5, 9])).tolist() == [0, before[3], before[0] + before[1]]
    assert observed.embedding.windows(np.array([5, 9])).tolist() == [1, 2]


def test_a_prediction_rests_on_the_exposure_of_what_it_reads():
    n, observed = np.array([2.0], np.float32), np.array([5.0], np.float32)
    snapshot = FeatureSnapshot(n, observed, {}, {})
    assert snapshot.exposure_of({"statistics", "coupling_neighbourhood"}) is observed
    for name in ("embedding", "embedding_neighbourhood"):
        assert snapshot.exposure_of({"statistics", name}) is n


def live(model: Model, recording, *, block: int) -> list[FeatureSnapshot]:
    """What a Labeler at a hop of 1 s has seen after every window."""
    labeler, seen = Labeler(model, stream="r"), []
    for message in recording_messages(recording, stream="r", block_samples=block):
        labeler.push(message)
        while (labelled := labeler.step()) is not None:
            seen.append(labeler._features.snapshot(labelled.predictions.unit_index.astype(np.int64)))
    return seen


@pytest.mark.parametrize("seed", [3, 4])
def test_live_and_offline_see_the_same_bitwise_for_any_block_length(model: Model, seed: int):
    recording = random_recording(seed, seconds=32, gap=True, mask=True)
    assert {w.exclusion for w in recorded_windows(recording, SPEC, WindowRules())} >= {"", "mask"}
    runs = [live(model, recording, block=block) for block in (6_001, 45_000)]
    embedded = embed_recording(one_by_one(model.embed), recording, SPEC, model.manifest.window_rules)
    assert len(runs[0]) == len(runs[1]) == len(embedded.end_bin)
    assert any(embedded.exclusions) and not all(embedded.exclusions)
    for k, (one, other) in enumerate(zip(*runs, strict=True)):
        offline = embedded.snapshot(0, k + 1)
        for name in SPIKE_SETS:
            assert np.array_equal(one.features[name], other.features[name])
            assert np.array_equal(one.has[name], offline.has[name])
            assert np.abs(one.features[name] - offline.features[name]).max() <= 1e-6
        for name in ("exposure", "observed"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name) == pytest.approx(getattr(offline, name), rel=1e-5, abs=1e-7)
