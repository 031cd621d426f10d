"""Predictors offline: fitted without those they are judged on, and answering exactly as the daemon does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.features.accumulator import FeatureAccumulator
from nuclr_stream.inference.model import Model
from nuclr_stream.prediction.out_of_distribution import OutOfDistributionScore
from nuclr_stream.recordings.recording import Recording
from offline_training.config import UNLABELLED
from offline_training.pretraining.pretrain import pretrain
from offline_training.readouts import embedded_runs
from offline_training.readouts.embed import Embedded, embed_recording, one_by_one
from offline_training.readouts.embedded_runs import embed_by_run, trained_on
from offline_training.readouts.examples import Examples, examples
from offline_training.readouts.feature_source import FACTS, FeatureSource, slices
from offline_training.readouts.out_of_distribution import fit_familiarity
from offline_training.readouts.predictor_readouts import (
    Classifier,
    Unseen,
    fit_experts,
    resting_on,
    say_unseen,
    typical_scatter,
)
from offline_training.readouts.readout import ReadoutError, load_readouts, save_readouts
from offline_training.readouts.run_readouts import fit_readouts, recalibrate
from offline_training.simulation.animals import simulate
from tests.conftest import tiny_predictors, tiny_readout
from tests.nuclr_stream.streams import random_recording
from tests.offline_training.tiny import CONFIG

DIM = 3
SETS = ("embedding", "embedding_neighbourhood", "statistics", "statistics_neighbourhood")
TOGETHER = ("embedding_neighbourhood", "statistics_neighbourhood")
CLASSES = ("A", "B", "C")
C = dict.fromkeys(SETS, 0.1)


def joined(
    seed: int = 0, *, animals: int = 6, units: int = 30, informative: str = "embedding_neighbourhood"
) -> Examples:
    """One example per unit, of which one feature set tells the class."""
    rng = np.random.default_rng(seed)
    total = animals * units
    label = rng.integers(0, 3, total)
    rows = rng.normal(size=(total, slices(SETS, DIM)[SETS[-1]].stop)).astype(np.float32)
    rows[:, 0] = rows[:, 1] = rng.choice([1.0, 3.0, 6.0], total)
    rows[:, 2] = 1.0
    stated = slices(SETS, DIM)[informative].start
    rows[np.arange(total), stated + label] += 3
    subject = np.repeat([f"a{k}" for k in range(animals)], units)
    return Examples(rows, label, rows[:, 0].copy(), subject, subject, np.arange(total))


def fitted(known: Examples, **other):
    return fit_experts(known, CLASSES, SETS, dim=DIM, scatter=1.0, **other)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_experts_know_nothing_of_the_labels_of_held_out_animals(seed: int):
    known = joined()
    held_out = np.isin(known.subject, ["a1", "a4"])
    other = known.label.copy()
    other[held_out] = np.random.default_rng(seed).permutation(other[held_out])
    one, two = (
        say_unseen(each, held_out, 3, dim=DIM, scatter=1.0, c=C) for each in (known, replace(known, label=other))
    )
    assert one is not None and two is not None
    assert set(one.examples.subject) == {"a1", "a4"} and len(one.examples.label) == held_out.sum()
    for name in SETS:
        assert np.array_equal(one.said[name], two.said[name])


def test_nothing_of_an_animal_is_trained_on_when_part_of_it_is_held_out():
    known = joined()
    part = (known.subject == "a1") & (np.arange(len(known.label)) % 2 == 0)
    whole = say_unseen(known, known.subject == "a1", 3, dim=DIM, scatter=1.0, c=C)
    half = say_unseen(known, part, 3, dim=DIM, scatter=1.0, c=C)
    assert whole is not None and half is not None
    assert np.array_equal(half.said["embedding"], whole.said["embedding"][part[known.subject == "a1"]])


def test_a_class_of_held_out_animals_only_is_left_out_and_its_animal_is_not_trained_on_either():
    known = joined()
    label = np.where(known.label == 2, 0, known.label)
    label[known.subject == "a5"] = 2
    held_out = np.isin(known.subject, ["a4", "a5"])
    stated = say_unseen(replace(known, label=label), held_out, 3, dim=DIM, scatter=1.0, c=C)
    assert stated is not None
    assert set(stated.examples.subject) == {"a4"}
    assert (stated.said["embedding"][:, 2] == -100).all(), "the predictors never met class 2"


def test_where_the_rest_holds_one_class_only_nothing_is_said():
    known = joined(animals=2)
    label = np.where(known.subject == "a0", 0, known.label)
    assert say_unseen(replace(known, label=label), known.subject == "a1", 3, dim=DIM, scatter=1.0, c=C) is None
    assert say_unseen(known, np.zeros(len(label), bool), 3, dim=DIM, scatter=1.0, c=C) is None


@pytest.mark.parametrize("informative", TOGETHER)
def test_the_expert_that_knows_is_heard(informative: str):
    readouts, predictors = fitted(joined(animals=60, units=10, informative=informative))
    together, alone = predictors.pools
    weight = dict(zip(together.predictors, np.mean(together.weight, axis=1), strict=True))
    (other,) = set(TOGETHER) - {informative}
    assert weight[informative] > 1.5 * weight[other]
    assert (together.predictors, alone.predictors) == (TOGETHER, ("statistics",))
    assert readouts[informative].out_of_fold_f1 > 0.8 > readouts[other].out_of_fold_f1
    assert predictors.sets_promise.startswith("the true class")


def test_how_experts_speak_together_rests_on_unseen_animals_where_there_are_any():
    known = joined()
    said = {name: np.zeros((4, 3), np.float32) for name in SETS}
    few = known.where(np.isin(np.arange(len(known.label)), [0, 1, 40, 41]))
    before = fitted(known)
    readouts, predictors = resting_on([Unseen(said, few)], *before)
    assert set(predictors.pools[0].abstain_below) == {1.0}, "those said nothing: nothing is promised"
    assert readouts["embedding"].calibrated_on == (
        "units of 2 animals (a0, a1), each unseen by its fold's encoder and readouts"
    )
    assert "a0, a1" not in before[0]["embedding"].calibrated_on
    for name in SETS:
        assert np.array_equal(predictors.linears[name].weight, before[1].linears[name].weight)
        assert np.array_equal(readouts[name].linear.weight, before[0][name].linear.weight)


def test_experts_survive_being_stored(tmp_path: Path):
    readouts, predictors = fitted(joined())
    save_readouts(tmp_path, {"t": replace(readouts["embedding"], predictors=predictors)}, {})
    again = load_readouts(tmp_path)["t"]
    assert again.predictors is not None
    assert (again.predictors.pools, again.predictors.sets) == (predictors.pools, SETS)
    rows = joined(1).features
    one, other = (Classifier(readouts["embedding"], each, SETS).answer(rows) for each in (predictors, again.predictors))
    assert np.array_equal(one.probabilities, other.probabilities) and np.array_equal(one.sets, other.sets)


@pytest.mark.parametrize("alone", [False, True])
def test_a_classifier_answers_as_the_daemon_does_from_the_exported_bundle(pooled_bundle: Path, alone: bool):
    model = Model(load_bundle(pooled_bundle), provider="cpu", threads=1)
    recording = random_recording(2, seconds=25)
    late = recording.spike_samples > 24 * 30_000  # unit 3 never fires, unit 4 too late for a whole patch
    kept = (recording.spike_units != 3) & ((recording.spike_units != 4) | late)
    recording = replace(recording, spike_samples=recording.spike_samples[kept], spike_units=recording.spike_units[kept])
    manifest = model.manifest
    gathered = FeatureSource.of(
        embed_recording(one_by_one(model.embed), recording, manifest.spec, manifest.window_rules)
    )
    for task in manifest.tasks:
        predictors = tiny_predictors(task.classes, manifest.embedding_dim)
        classifier = Classifier(tiny_readout(task.classes, manifest.embedding_dim), predictors, gathered.sets)
        for last in (1, 5, len(gathered.end_s)):
            seen = gathered.seen(0, last)
            rows, _ = gathered.between(0, last)
            from_rows = classifier.answer(rows, alone=alone)
            effective = np.where(seen.n > 1, 1 + (seen.n - 1) * np.minimum(seen.scatter / 0.5, 1), seen.n)
            live = model.answer(
                task.name, replace(seen, effective_sample_size=effective.astype(np.float32)), alone=alone
            )
            assert from_rows.probabilities == pytest.approx(live.probabilities, abs=1e-5)
            for name in ("sets", "unsure", "has_prediction"):
                assert np.array_equal(getattr(from_rows, name), getattr(live, name))
            assert not live.has_prediction[3] and live.has_prediction[[0, 1, 2]].all()


# -- what a run keeps --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [simulate(seed, units=32, duration_s=12.0) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def run_dir(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on all animals, with readouts; beside it one that never saw the third."""
    folder = tmp_path_factory.mktemp("runs")
    pretrain(CONFIG, recordings, folder / "all")
    pretrain(CONFIG, recordings[:2], folder / "fold")
    fit_readouts(folder / "all", recordings, hop_s=1.0)
    return folder / "all"


def test_what_a_run_embedded_once_comes_back_bitwise_without_the_encoder(
    run_dir: Path, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
):
    fold = run_dir.with_name("fold")
    first = embed_by_run(fold, recordings)

    def forbidden(_encoder: object) -> None:
        raise AssertionError("the encoder was called again")

    monkeypatch.setattr(embedded_runs, "through_torch", forbidden)
    second = embed_by_run(fold, recordings)
    for one, other in zip(first, second, strict=True):
        assert one.embedded.any() and one.embeddings[one.embedded].any()
        for name in ("embeddings", "embedded", "end_bin", "intervals", "missing"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
    other = simulate(9, units=20, duration_s=12.0)
    renamed = replace(other, recording_id=recordings[0].recording_id)
    with pytest.raises(AssertionError, match="called again"):
        embed_by_run(fold, [renamed])


def test_recalibration_changes_what_is_believed_and_never_what_is_predicted(run_dir: Path, recordings: list[Recording]):
    fold, before = run_dir.with_name("fold"), load_readouts(run_dir)
    assert set(trained_on(fold)) == {recordings[0].subject_id, recordings[1].subject_id}
    after = recalibrate(run_dir, [fold], recordings)
    stored = load_readouts(run_dir)
    for task, one in before.items():
        for other in (after[task], stored[task]):
            assert one.predictors is not None and other.predictors is not None
            assert np.array_equal(other.linear.weight, one.linear.weight) and other.c == one.c
            for name in one.predictors.sets:
                assert np.array_equal(other.predictors.linears[name].weight, one.predictors.linears[name].weight)
            assert other.predictors.pools == after[task].predictors.pools != one.predictors.pools
            assert other.calibrated_on.startswith(f"units of 1 animals ({recordings[2].subject_id}), each unseen")
            assert other.predictors.sets_promise.startswith("no promise: ")
    with pytest.raises(ReadoutError, match="none of 1 folds holds out an animal"):
        recalibrate(run_dir, [run_dir], recordings)


# -- familiar ----------------------------------------------------------------------------------------------------------


def embedded(recording: Recording) -> Embedded:
    """The windows of a recording, with four mean rates over time in the place of embeddings."""
    spec = replace(CONFIG.window.spec.with_hop_s(2.0))
    return embed_recording(
        lambda counts, mask: np.log1p(counts.reshape(*mask.shape, 4, -1).mean(axis=3)) * mask[..., None],
        recording,
        spec,
        CONFIG.rules.rules,
    )


def judged(recording: Recording, out_of_distribution) -> OutOfDistributionScore:
    windows = embedded(recording)
    observed, everyone = (
        FeatureAccumulator(windows.spec, windows.embeddings.shape[2]),
        np.arange(len(recording.unit_ids)),
    )
    for k in range(len(windows.end_bin)):
        windows._add(k, observed, everyone)
    return out_of_distribution.judge(observed.snapshot(everyone), observed.statistics, everyone)


def with_spikes(recording: Recording, unit: int, samples: np.ndarray) -> Recording:
    """The recording with another train of spikes for one unit."""
    kept = recording.spike_units != unit
    at = np.concatenate([recording.spike_samples[kept], samples])
    units = np.concatenate([recording.spike_units[kept], np.full(len(samples), unit)]).astype(np.int32)
    order = np.argsort(at, kind="stable")
    return replace(recording, spike_samples=at[order], spike_units=units[order])


def test_what_training_knows_of_its_units_finds_those_that_are_unlike_them():
    taught = [simulate(seed, units=48, duration_s=40.0) for seed in range(11, 19)]
    labels = [np.arange(len(r.unit_ids)) % 2 for r in taught]
    labels[0][:5] = UNLABELLED
    known = fit_familiarity([FeatureSource.of(embedded(r)) for r in taught], {"task": labels})
    fresh = simulate(99, units=48, duration_s=40.0)
    assert judged(fresh, known).out_of_distribution.mean() <= 0.1
    rng, seconds, rate = np.random.default_rng(0), 40, int(fresh.sample_rate)
    single = np.cumsum((0.02 + rng.exponential(0.1, 300)) * rate).astype(np.int64)
    doublets = np.sort(np.concatenate([single, single[::4] + rate // 2000]))
    noise = np.unique(rng.integers(0, seconds * rate, 400 * seconds))
    odd = with_spikes(with_spikes(fresh, 0, doublets[doublets < seconds * rate]), 1, noise)
    found = judged(odd, known)
    assert found.unsorted[0] and found.rate[1] and found.out_of_distribution[1]
    assert set(known.sets) == {"embedding", "statistics"}
    assert known.sets["statistics"].knots[0] == 1.0 and (np.diff(known.sets["statistics"].knots) > 0).all()


def test_typical_scatter_is_the_median_over_units_of_whole_recordings():
    windows = [FeatureSource.of(embedded(simulate(seed, units=32, duration_s=20.0))) for seed in (1, 2)]
    scatter = []
    for source in windows:
        values, members = source.embedded.embeddings, source.embedded.embedded
        for unit in np.flatnonzero(members.sum(axis=0) >= 6):
            scatter.append(values[members[:, unit], unit].var(axis=0, ddof=1).sum())
    assert typical_scatter(windows) == pytest.approx(float(np.median(scatter)), rel=1e-4)
    refused = FeatureSource.of(replace(windows[0].embedded, refusals=("gap",) * len(windows[0].end_s)))
    assert typical_scatter([refused]) == 1.0, "where nothing is known"


def test_examples_of_what_was_gathered_are_joined_rows_with_what_is_missing_marked():
    source = FeatureSource.of(embedded(simulate(1, units=32, duration_s=20.0)))
    known = examples([source], [np.zeros(32, dtype=np.int64)])
    assert known.features.shape[1] == FACTS + sum(p.stop - p.start for p in slices(source.sets, 4).values())
    assert np.array_equal(known.features[:, 0], known.n)
    places = slices(source.sets, 4)
    rows, _ = source.between(0, 3)
    seen = source.seen(0, 3)
    for name, place in places.items():
        assert np.array_equal(np.isnan(rows[:, place]).all(axis=1), ~seen.has[name])
        assert np.array_equal(rows[seen.has[name], place], seen.features[name][seen.has[name]])
