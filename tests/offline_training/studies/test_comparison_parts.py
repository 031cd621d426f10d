"""What comparison methods are made of: images, waveforms, snippets, held-out bins; each against its definition."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import WindowSpec
from offline_training.evaluation.baselines.depth import depth_steps
from offline_training.readouts.regression import ReadoutError
from offline_training.studies.lolcat import Lolcat, LolcatLogits, LolcatSettings, Snippets, fit_lolcat
from offline_training.studies.nemo import (
    WAVEFORM_MS,
    NemoFeatures,
    NemoInput,
    NemoSettings,
    have_waveforms,
    train_nemo,
    waveforms,
)
from offline_training.studies.neuprint import CountedPopulation, Neuprint, NeuprintSettings, train_neuprint
from offline_training.studies.rate_autocorrelogram import LAG_RANGE_S, LAGS, ROWS, rate_autocorrelograms

SPEC = WindowSpec(Fraction(50), 50, 2, 100)  # 2 s windows
TINY = NemoSettings(widths=(4, 4), image_blocks=(1, 1), waveform_blocks=(1, 1), batch=8, epochs=1, min_spikes=5)


def recording(found: list[list[float]], *, seconds: float = 12.0, name: str = "r", **columns: object) -> Recording:
    """Units with these spike times in seconds, at 1 kHz."""
    samples = np.concatenate([np.round(np.array(train) * 1000) for train in found]).astype(np.int64)
    rows = np.repeat(np.arange(len(found), dtype=np.int32), [len(train) for train in found])
    order = np.argsort(samples, kind="stable")
    return Recording(
        recording_id=name,
        subject_id=name,
        sample_rate=Fraction(1000),
        num_samples=int(seconds * 1000),
        spike_samples=samples[order],
        spike_units=rows[order],
        unit_ids=np.array([f"{name}:{unit}" for unit in range(len(found))]),
        units={key: np.asarray(value) for key, value in columns.items()},
    )


def noisy(seed: int, units: int = 6) -> Recording:
    """Poisson units of 10 Hz, with waveforms."""
    rng = np.random.default_rng(seed)
    trains = [np.unique(np.round(rng.uniform(0, 11.9, 120), 3)).tolist() for _ in range(units)]
    return recording(trains, name=f"r{seed}", waveform_uv=rng.normal(size=(units, 40)))


trains = st.lists(st.integers(0, 3999), min_size=1, max_size=40, unique=True).map(sorted)


@settings(max_examples=30)
@given(st.lists(trains, min_size=1, max_size=3))
def test_rows_of_an_image_add_up_to_the_autocorrelogram(found: list[list[int]]):
    images = rate_autocorrelograms(recording([[t / 1000 for t in train] for train in found], seconds=4.0), 0.0, 4.0)
    edges_ms = 1000 * np.geomspace(*LAG_RANGE_S, LAGS + 1)
    assert images.shape == (len(found), ROWS, LAGS)
    for image, train in zip(images, found, strict=True):
        lags = np.array([b - a for i, a in enumerate(train) for b in train[i + 1 :] if b - a < 1000])
        references = np.bincount(np.arange(len(train)) * ROWS // len(train), minlength=ROWS)
        counts = (image * np.diff(edges_ms) * references[:, None]).sum(axis=0)
        assert counts.sum() == pytest.approx(len(lags), abs=1e-3)
        middle = np.sqrt(edges_ms[1:] * edges_ms[:-1])
        if len(lags):
            assert (counts @ np.log(middle)) / len(lags) == pytest.approx(np.log(lags).mean(), abs=0.06)


def test_a_row_is_a_tenth_of_the_spikes_by_the_rate_around_them():
    lonely = [0.9 * spike for spike in range(10)]
    crowded = [10 + 0.02 * spike for spike in range(10)]
    image = rate_autocorrelograms(recording([lonely + crowded]), 0.0, 12.0)[0]
    late = np.geomspace(*LAG_RANGE_S, LAGS + 1)[:-1] > 0.5
    assert not image[:5, ~late].any() and image[:5, late].any()
    assert not image[5:, late].any() and image[5:9, ~late].any()


def test_an_image_knows_nothing_beyond_its_stretch():
    whole = noisy(1)
    early = replace(
        whole,
        spike_samples=whole.spike_samples[whole.spike_samples < 4000],
        spike_units=whole.spike_units[whole.spike_samples < 4000],
    )
    np.testing.assert_array_equal(rate_autocorrelograms(whole, 0.0, 4.0), rate_autocorrelograms(early, 0.0, 12.0))


@pytest.mark.parametrize("samples,before", [(61, 15), (32, 8)])
def test_waveforms_say_nothing_of_how_they_were_cut(samples: int, before: int):
    at_ms = (np.arange(samples) - before) * 1000 / 30000
    wave = -np.exp(-((at_ms / 0.2) ** 2)) + 0.3 * np.exp(-(((at_ms - 0.4) / 0.15) ** 2))
    source = replace(recording([[1.0]], waveform_uv=70 * wave[None]), sample_rate=Fraction(30000))
    expected = -np.exp(-((WAVEFORM_MS / 0.2) ** 2)) + 0.3 * np.exp(-(((WAVEFORM_MS - 0.4) / 0.15) ** 2))
    np.testing.assert_allclose(waveforms(source)[0], expected / np.abs(expected).max(), atol=1e-3)


def test_a_unit_without_a_waveform_takes_no_part():
    raw = np.random.default_rng(0).normal(size=(3, 40))
    raw[1, 3], raw[2] = np.nan, 0.0
    found = waveforms(recording([[1.0], [2.0], [3.0]], waveform_uv=raw))
    assert found.any(axis=1).tolist() == [True, False, False]
    assert waveforms(recording([[1.0]])) is None
    assert waveforms(recording([[1.0]], waveform_uv=np.zeros((1, 40)))) is None


def test_without_waveforms_the_embedding_is_that_of_the_image():
    bare = [replace(noisy(seed), units={}) for seed in (1, 2)]
    inputs = [NemoInput.of(one, SPEC) for one in bare]
    network, budget = train_nemo(inputs, [np.ones(6, dtype=bool)] * 2, seed=0, settings=TINY)
    assert not have_waveforms(inputs)
    assert "the image of the other half" in budget.how
    assert NemoFeatures(network, inputs[0]).image_alone().snapshot(0, 6).features["nemo_acg"].shape == (6, 4)


def test_the_embedding_is_image_then_waveform_and_one_lacking_recording_decides_for_all():
    inputs = [NemoInput.of(noisy(seed), SPEC) for seed in (1, 2)]
    network, budget = train_nemo(inputs, [np.ones(6, dtype=bool)] * 2, seed=0, settings=TINY)
    features = NemoFeatures(network, inputs[0])
    found = features.snapshot(0, 3)
    both = found.features["nemo"]
    assert "against waveform" in budget.how and budget.steps == 1
    assert both.shape == (6, 8) and found.exposure.tolist() == [3] * 6
    np.testing.assert_array_equal(both[:, :4], features.image_alone().snapshot(0, 3).features["nemo_acg"])
    assert not have_waveforms([*inputs, NemoInput.of(replace(noisy(3), units={}), SPEC)])


def test_units_that_are_not_chosen_leave_no_trace_in_the_networks():
    chosen = [np.ones(6, dtype=bool), np.zeros(6, dtype=bool)]
    weights = []
    for other in (2, 3):
        inputs = [NemoInput.of(noisy(seed), SPEC) for seed in (1, other)]
        network, _ = train_nemo(inputs, chosen, seed=0, settings=TINY)
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(*weights)


def test_a_seed_is_a_training():
    inputs = [NemoInput.of(noisy(1), SPEC)]
    chosen = [np.ones(6, dtype=bool)]
    first, again, other = (
        torch.cat([p.detach().flatten() for p in train_nemo(inputs, chosen, seed=seed, settings=TINY)[0].parameters()])
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_bf16_trains_every_weight_as_fp32_does():
    inputs = [NemoInput.of(noisy(1), SPEC)]
    long = replace(TINY, epochs=40, peak_rate=1e-2)
    weights = []
    for settings_, bf16 in ((TINY, False), (long, False), (long, True)):
        network, _ = train_nemo(inputs, [np.ones(6, dtype=bool)], seed=0, settings=settings_, bf16=bf16)
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    begin, full, half = weights
    direction = torch.nn.functional.cosine_similarity(full - begin, half - begin, dim=0)
    assert direction > 0.8


def test_nothing_to_contrast_is_rejected():
    inputs = [NemoInput.of(noisy(1), SPEC)]
    with pytest.raises(ReadoutError, match="fewer than two units with 5 spikes"):
        train_nemo(inputs, [np.zeros(6, dtype=bool)], seed=0, settings=TINY)


def test_a_set_has_no_order_and_snippets_that_are_not_shown_do_not_matter():
    torch.manual_seed(0)
    network = Lolcat(3, LolcatSettings(hidden=8)).eval()
    histograms = torch.rand(2, 5, 128)
    present = torch.tensor([[True] * 5, [True, True, True, False, False]])
    expected = network(histograms, present)
    garbage = histograms.masked_fill(~present[..., None], 1e6)
    torch.testing.assert_close(network(garbage, present), expected)
    order = torch.tensor([2, 0, 1, 4, 3])
    torch.testing.assert_close(network(histograms[:, order], present[:, order]), expected)
    torch.testing.assert_close(network(histograms[1:, :3], present[1:, :3]), expected[1:])


def test_a_stretch_shows_the_snippets_that_lie_wholly_in_it():
    source = noisy(1)
    snippets = Snippets.of(source, SPEC)
    assert snippets.counts.shape == (6, 4, 128)  # 12 s in snippets of 3 s
    network = Lolcat(2, LolcatSettings(hidden=8)).eval()
    found = LolcatLogits(network, snippets).snapshot(1, 6)  # 2 s to 12 s
    expected = network(snippets.histograms(slice(None), slice(1, 4)), torch.ones(6, 3, dtype=torch.bool))
    np.testing.assert_allclose(found.features["lolcat"], expected.detach().numpy(), rtol=1e-5)
    assert found.exposure.tolist() == [5] * 6


def test_a_class_without_a_training_unit_is_never_predicted():
    snippets = [Snippets.of(noisy(seed), SPEC) for seed in (1, 2, 3)]
    labels = [np.array([0, 0, 0, 2, 2, 2])] * 3
    quick = LolcatSettings(hidden=8, batch=8, stops=(2, 4))
    fitted = fit_lolcat(snippets, labels, ("a", "b", "c"), seed=0, settings=quick)
    answer = fitted.model.answer(LolcatLogits(fitted.network, snippets[0]).snapshot(0, 6))
    assert answer.has_prediction.all() and (answer.probabilities.argmax(axis=1) != 1).all()
    assert "3 inner folds" in fitted.budget.how


def test_logits_are_calibrated_on_networks_that_had_not_seen_the_animal():
    """Labels without any relation to activity: what a network predicts of strangers is near the prior, and it knows."""
    rng = np.random.default_rng(0)
    snippets = [Snippets.of(noisy(seed), SPEC) for seed in range(1, 7)]
    labels = [rng.permutation([0, 0, 0, 1, 1, 1]) for _ in snippets]
    long = LolcatSettings(hidden=16, batch=16, dropout=0.0, learning_rate=1e-2, most_snippets=4, stops=(100,))
    fitted = fit_lolcat(snippets, labels, ("a", "b"), seed=0, settings=long)
    logits = LolcatLogits(fitted.network, snippets[0]).snapshot(0, 6)
    assert np.ptp(logits.features["lolcat"], axis=1).mean() > 2, "the network itself is sure of units it has learnt"
    assert fitted.model.answer(logits).probabilities.max() < 0.9
    assert max(max(row) for row in fitted.model.pools[0].weight) < 0.5
    assert "6 animals" in fitted.model.calibrated_on


def test_one_class_or_one_recording_is_rejected():
    snippets = [Snippets.of(noisy(seed), SPEC) for seed in (1, 2)]
    quick = LolcatSettings(hidden=8, batch=8, stops=(1,))
    with pytest.raises(ReadoutError, match="of one recording only"):
        fit_lolcat(snippets, [np.array([0, 0, 0, 1, 1, 1]), np.full(6, -1)], ("a", "b"), seed=0, settings=quick)
    with pytest.raises(ReadoutError, match="cross-validation is impossible"):
        fit_lolcat(snippets, [np.full(6, 0), np.full(6, 1)], ("a", "b"), seed=0, settings=quick)


def test_held_out_bins_are_not_seen():
    torch.manual_seed(0)
    network = Neuprint(2, NeuprintSettings(vector=4, width=8, heads=2, feed_forward=8, bins=10))
    own, others, unit = torch.rand(1, 10), torch.rand(1, 10, 2), torch.tensor([1])
    hidden = torch.arange(10)[None] >= 8
    expected = network(own, others, hidden, unit)
    torch.testing.assert_close(network(own.masked_fill(hidden, 7.0), others, hidden, unit), expected)
    assert not torch.allclose(network(own, others, hidden, torch.tensor([0])), expected)


def test_the_population_of_a_unit_are_the_others():
    source = noisy(1)
    population = CountedPopulation.of(source, SPEC)
    own, others = population.window(2, 100, 50)
    rest = np.delete(population.counts[:, 100:150].astype(float), 2, axis=0)
    np.testing.assert_array_equal(own, population.counts[2, 100:150])
    np.testing.assert_allclose(others, np.stack([rest.mean(axis=0), rest.std(axis=0)], axis=1), atol=1e-5)


def test_vectors_come_per_recording_and_a_short_one_is_rejected():
    found = [noisy(1), noisy(2, units=3)]
    tiny = NeuprintSettings(vector=4, width=8, heads=2, feed_forward=8, bins=20, held_out=4, batch=4, steps=2)
    vectors, budget = train_neuprint(found, SPEC, seed=0, settings=tiny)
    assert [v.shape for v in vectors] == [(6, 4), (3, 4)]
    assert budget.steps == 2
    again, _ = train_neuprint(found, SPEC, seed=0, settings=tiny)
    assert all(np.array_equal(a, b) for a, b in zip(vectors, again, strict=True))
    with pytest.raises(ReadoutError, match="r1: shorter than a window of 900 bins"):
        train_neuprint(found, SPEC, seed=0, settings=replace(tiny, bins=900))


def test_depth_must_be_known():
    with pytest.raises(RecordingError, match="r1: unit_depth_um is missing or not finite"):
        depth_steps(noisy(1), SPEC)
    known = replace(noisy(1), units={"depth_um": np.arange(6.0)})
    assert depth_steps(known, SPEC).snapshot(0, 2).features["depth"].tolist() == [[0], [1], [2], [3], [4], [5]]
