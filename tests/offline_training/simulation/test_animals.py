"""What a simulated recording promises: honest labels, plausible spikes, class signals that mean rates do not carry."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nuclr_stream.recordings.recording import Recording
from offline_training.simulation.animals import (
    DEMO_SEED,
    EVALUATION_SEEDS,
    TRAINING_SEEDS,
    SimulationError,
    refract,
    simulate,
    simulate_subject,
    spike_train,
    write_simulated,
)
from offline_training.simulation.biology import CELL_TYPES, REGIONS, STEP_S, TYPE_PARAMETERS, brain_states

BIN_SAMPLES = 600  # 20 ms at 30 kHz


@pytest.fixture(scope="module")
def animals() -> list[Recording]:
    return [simulate(seed, duration_s=60.0) for seed in range(50, 58)]


def counts_of(recording: Recording) -> np.ndarray:
    bins = recording.num_samples // BIN_SAMPLES
    counts = np.zeros((len(recording.unit_ids), bins))
    np.add.at(counts, (recording.spike_units, recording.spike_samples // BIN_SAMPLES), 1)
    return counts


def log_rate(counts: np.ndarray) -> np.ndarray:
    return np.log(counts.mean(axis=1, keepdims=True) + 1e-3)


def timing_and_coupling(counts: np.ndarray) -> np.ndarray:
    """(U, features): Fano factors, bursts, autocorrelation and coupling to correlated units, of 20 ms counts."""
    scales = [rebin(counts, factor) for factor in (1, 5, 25)]
    fano = [np.log((c.var(axis=1) + 1e-3) / (c.mean(axis=1) + 1e-3)) for c in scales]
    bursts = (counts >= 2).sum(axis=1) / np.maximum(1, (counts >= 1).sum(axis=1))
    scaled = (counts - counts.mean(axis=1, keepdims=True)) / (counts.std(axis=1, keepdims=True) + 1e-6)
    correlation = scaled @ scaled.T / scaled.shape[1]
    np.fill_diagonal(correlation, 0.0)
    partners = correlation * np.abs(correlation)
    partners /= np.abs(partners).sum(axis=1, keepdims=True)
    crowd = partners @ scaled
    lags = (1, 2, 3, 5, 8, 11, 14, 17, 25)
    rhythm = [(x[:, lag:] * x[:, :-lag]).mean(axis=1) for x in (scaled, crowd) for lag in lags]
    coupling = [(scaled * np.roll(crowd, lag, axis=1)).mean(axis=1) for lag in range(-4, 5)]
    return np.stack([*fano, bursts, *rhythm, *coupling, (crowd**3).mean(axis=1), correlation.sum(axis=1)], axis=1)


def rebin(counts: np.ndarray, factor: int) -> np.ndarray:
    bins = counts.shape[1] // factor
    return counts[:, : bins * factor].reshape(len(counts), bins, factor).sum(axis=2)


def score_on_unseen_animals(animals: list[Recording], task: str, features) -> float:
    known, unseen = animals[:6], animals[6:]
    inputs = [np.concatenate([features(counts_of(r)) for r in group]) for group in (known, unseen)]
    labels = [np.concatenate([r.units[task] for r in group]) for group in (known, unseen)]
    readout = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000))
    return f1_score(labels[1], readout.fit(inputs[0], labels[0]).predict(inputs[1]), average="macro")


def test_seed_ranges_for_training_evaluation_and_demo_share_no_animal():
    assert not set(TRAINING_SEEDS) & set(EVALUATION_SEEDS)
    assert DEMO_SEED not in TRAINING_SEEDS
    assert DEMO_SEED not in EVALUATION_SEEDS


def test_same_seed_and_session_give_the_same_recording():
    first, again = simulate(7, units=16, duration_s=5.0), simulate(7, units=16, duration_s=5.0)
    assert np.array_equal(first.spike_samples, again.spike_samples)
    assert np.array_equal(first.spike_units, again.spike_units)


def test_sessions_of_a_subject_share_its_cells_but_not_their_spikes():
    first, second = simulate_subject(7, recordings=2, units=16, duration_s=5.0)
    assert (first.recording_id, second.recording_id) == ("sim_000007_0", "sim_000007_1")
    assert first.subject_id == second.subject_id == "sim_000007"
    assert first.session_date != second.session_date
    assert all(np.array_equal(first.units[name], second.units[name]) for name in first.units)
    assert not np.array_equal(first.spike_samples, second.spike_samples)


def test_different_seeds_are_different_animals():
    assert not np.array_equal(
        simulate(7, units=16, duration_s=1.0).units["depth_um"], simulate(8, units=16, duration_s=1.0).units["depth_um"]
    )


def test_every_region_holds_at_least_six_units_of_every_type_and_most_are_excitatory(animals):
    for recording in animals:
        pairs = list(zip(recording.units["brain_region"], recording.units["cell_type"], strict=True))
        assert all(pairs.count((region, cell_type)) >= 6 for region in REGIONS for cell_type in CELL_TYPES)
        kinds = [kind for _, kind in pairs]
        assert all(kinds.count("E") > 1.5 * kinds.count(kind) for kind in ("PV", "SST", "VIP"))


@pytest.mark.parametrize("units", [16, 37, 101, 200])
def test_any_number_of_units_is_given_exactly(units):
    recording = simulate(3, units=units, duration_s=1.0)
    assert len(recording.unit_ids) == units
    assert set(recording.units["brain_region"]) == set(REGIONS)
    assert set(recording.units["cell_type"]) == set(CELL_TYPES)


def test_rows_of_units_tell_nothing_about_their_labels(animals):
    for name in ("cell_type", "brain_region"):
        runs = [np.mean(r.units[name][1:] == r.units[name][:-1]) for r in animals]
        chance = [np.mean(r.units[name][:, None] == r.units[name]) for r in animals]
        assert abs(np.mean(runs) - np.mean(chance)) < 0.06


def test_regions_lie_along_the_probe_and_overlap_at_their_borders(animals):
    for recording in animals:
        depth, region = recording.units["depth_um"], recording.units["brain_region"]
        middles = [np.median(depth[region == name]) for name in ("PIR", "BLA", "HPF", "CTX")]
        assert middles == sorted(middles)
    gaps = [r.units["depth_um"][r.units["brain_region"] == "BLA"].min()
            - r.units["depth_um"][r.units["brain_region"] == "PIR"].max() for r in animals]  # fmt: skip
    assert min(gaps) < 0


def test_channels_and_shank_are_those_of_one_probe(animals):
    units = animals[0].units
    assert (units["shank"] == 0).all()
    assert np.array_equal(units["channel"] // 2, units["depth_um"] // 20)


def test_rates_are_plausible(animals):
    rates = np.concatenate([r.spikes_per_unit / r.duration_s for r in animals])
    assert rates.min() > 0.3
    assert rates.max() < 60.0
    assert 3.0 < np.median(rates) < 12.0


def test_refractory_periods_are_violated_rarely_but_by_some_units(animals):
    recording = animals[0]
    violations = np.array(
        [np.mean(np.diff(recording.spike_samples[recording.spike_units == u]) < 30) for u in range(120)]
    )
    assert (violations > 0).sum() > 5
    assert violations.max() < 0.08


@pytest.mark.parametrize("task", ["cell_type", "brain_region"])
def test_mean_rate_is_a_poor_classifier_on_unseen_animals(animals, task):
    assert score_on_unseen_animals(animals, task, log_rate) <= 0.45


@pytest.mark.parametrize("task", ["cell_type", "brain_region"])
def test_timing_and_coupling_in_20_ms_counts_classify_unseen_animals(animals, task):
    assert score_on_unseen_animals(animals, task, timing_and_coupling) >= 0.75


def test_spike_trains_keep_about_their_rate_and_refractory_period_of_their_type():
    for cell_type, parameters in TYPE_PARAMETERS.items():
        per_event = 1 + parameters.burst_probability * parameters.burst_extra
        intensity = np.full(round(400 / STEP_S), 8.0 / per_event)
        train = spike_train(np.random.default_rng(1), parameters, intensity)
        assert np.diff(train).min() >= parameters.refractory_s, cell_type
        assert len(train) / 400 == pytest.approx(8.0, rel=0.2), cell_type


def test_pv_fires_regularly_and_vip_irregularly_under_a_constant_drive():
    variation = {}
    for cell_type in ("PV", "VIP"):
        train = spike_train(np.random.default_rng(1), TYPE_PARAMETERS[cell_type], np.full(round(400 / STEP_S), 8.0))
        variation[cell_type] = np.diff(train).std() / np.diff(train).mean()
    assert variation["PV"] < 0.6
    assert variation["VIP"] > 1.2


def test_refractoriness_removes_only_what_follows_a_kept_spike_too_soon():
    assert refract(np.array([0.0, 0.9, 1.8, 5.0]), 1.0).tolist() == [0.0, 1.8, 5.0]
    assert refract(np.array([]), 1.0).tolist() == []


def test_brain_states_last_and_share_the_time():
    states = brain_states(np.random.default_rng(0), round(600 / STEP_S))
    assert np.allclose(states.sum(axis=0), 1.0)
    now, later = states[:, : -round(5 / STEP_S)].argmax(axis=0), states[:, round(5 / STEP_S) :].argmax(axis=0)
    assert np.mean(now == later) > 0.6
    assert set(now) == {0, 1, 2}


def test_written_animals_come_back_as_they_were(tmp_path: Path):
    paths = write_simulated(tmp_path / "new", animals=2, first_seed=123, recordings=2, units=16, duration_s=2.0)
    assert [path.name for path in paths] == [f"sim_{s:06d}_{k}.npz" for s in (123, 124) for k in (0, 1)]
    loaded, fresh = Recording.load(paths[3]), simulate(124, units=16, duration_s=2.0, session=1)
    assert loaded.subject_id == "sim_000124"
    assert np.array_equal(loaded.spike_samples, fresh.spike_samples)
    assert loaded.units["cell_type"].tolist() == fresh.units["cell_type"].tolist()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"units": 15}, "units 15"), ({"duration_s": 0.5}, "duration_s 0.5"), ({"session": -1}, "session -1")],
)
def test_impossible_wishes_are_rejected_by_name(wrong, named):
    with pytest.raises(SimulationError, match=named):
        simulate(1, **wrong)
