from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nuclr_stream.errors import ConfigError, RecordingError
from nuclr_stream.features.accumulator import TRACE_SETS
from nuclr_stream.recordings.readers.fluorescence import delta_f_over_f
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.windows.normaliser import Normalisation, running_scales
from offline_training.commands.cli import app
from offline_training.config import UNLABELLED, TrainConfig
from offline_training.data.binned import bin_recording
from offline_training.data.splits import Fold
from offline_training.evaluation.baselines.trace_statistics import TraceStatistics
from offline_training.evaluation.nested import result, run_fold
from offline_training.pretraining.pretrain import pretrain
from offline_training.pretraining.views import ViewSampler
from offline_training.simulation.animals import SimulationError, simulate
from offline_training.simulation.calcium import FRAME_RATE, _transients, image, simulate_calcium
from offline_training.studies.comparison import compare, comparison_result
from offline_training.studies.normaliser_distance import normaliser_distance
from tests.nuclr_stream.recordings.test_traces import trace_recording


def config_of(trained_with: str | None = "offline", **window: object) -> TrainConfig:
    """Windows of 16 frames; no normaliser for None."""
    values = {"bins_per_second": "6250/1459", "bins_per_patch": 4, "patches": 4, "hop_s": 4 * 0.23344}
    values |= {"input_kind": "traces"} | window
    if trained_with is not None:
        values["normaliser"] = {"quantile": 0.9, "warm_up_frames": 20, "trained_with": trained_with}
    return TrainConfig.parse(
        {
            "name": "t",
            "window": values,
            "encoder": {"dim": 8, "heads": 1, "head_dim": 8, "ffn_hidden": 8},
            "training": {"steps": 2, "batch_windows": 2, "warmup_steps": 1},
            "tasks": {"cell_type": {"column": "cell_type", "classes": {c: [c] for c in ("E", "PV")}}},
        }
    )


@pytest.fixture(scope="module")
def imaged() -> TraceRecording:
    """The smallest imaged animal."""
    return simulate_calcium(5000, units=16, duration_s=120.0)


def test_views_are_divided_by_the_published_percentile_of_their_recording():
    recording = trace_recording(units=40, gap=[(60, 63)])
    views = ViewSampler([recording], config_of()).batch(0, 0)
    scale = np.float32(recording.percentile(0.9))
    for counts, starts in ((views.counts1, views.starts[:, 0]), (views.counts2, views.starts[:, 1])):
        for values, units, start in zip(counts, views.units, starts, strict=True):
            real = units >= 0
            assert np.array_equal(values[real], recording.traces[units[real], start : start + 16] / scale)


def test_views_may_be_divided_by_what_was_known_at_their_end():
    recording = trace_recording()
    config = config_of("running")
    binned = bin_recording(recording, config)
    assert binned.intervals.tolist() == [[20, 120]], "none begins before the warm-up"
    scales = running_scales(recording.traces, recording.observed, 0.9)
    assert np.array_equal(binned.view(40, 16), recording.traces[:, 40:56] / scales[56])
    later = replace(recording, traces=np.where(np.arange(120) < 56, recording.traces, 9).astype(np.float32))
    assert np.array_equal(bin_recording(later, config).view(40, 16), binned.view(40, 16))


def test_without_a_normaliser_traces_keep_their_values_and_never_become_whole_numbers():
    recording = trace_recording()
    assert np.array_equal(bin_recording(recording, config_of(None)).view(7, 16), recording.traces[:, 7:23])


def test_training_rejects_recordings_of_the_other_kind():
    with pytest.raises(RecordingError, match="holds spikes, the encoder takes traces"):
        ViewSampler([simulate(1, units=16, duration_s=40.0)], config_of())


def test_only_traces_are_normalised():
    with pytest.raises(ConfigError, match="only traces are normalised"):
        config_of(input_kind="spikes")
    with pytest.raises(ConfigError, match="quantile"):
        config_of(None, normaliser={"quantile": 2.0})


def test_units_of_traces_are_labelled_without_asking_for_spikes():
    labels = config_of().tasks["cell_type"].labels(trace_recording())
    assert labels.tolist() == [0, 1] * 6
    assert (labels != UNLABELLED).all()


def test_a_simulated_animal_keeps_its_labels_under_the_microscope(imaged: TraceRecording):
    spikes = simulate(5000, units=16, duration_s=120.0)
    assert imaged.subject_id == spikes.subject_id
    for column in ("cell_type", "brain_region", "depth_um"):
        assert np.array_equal(imaged.units[column], spikes.units[column]), column
    assert (imaged.frame_rate, imaged.num_samples) == (FRAME_RATE, int(120 * FRAME_RATE))


def test_the_same_seed_gives_the_same_traces_and_a_session_of_its_own_others(imaged: TraceRecording):
    again = simulate_calcium(5000, units=16, duration_s=120.0)
    assert np.array_equal(again.traces, imaged.traces)
    other = simulate_calcium(5000, units=16, duration_s=120.0, session=1)
    assert np.abs(other.traces - imaged.traces).mean() > 0.01


def test_a_spike_leaves_a_transient_that_rises_at_once_and_decays_over_seconds():
    frame = float(1 / FRAME_RATE)
    trace = _transients(np.random.default_rng(0), np.array([100.5 * frame]), 200)
    assert not trace[:100].any()
    assert trace.argmax() in (101, 102)
    assert trace[101 + round(2 / frame)] < trace.max() / 2
    assert trace[-1] < 1e-3 * trace.max()


def test_fluorescence_bleaches_and_shares_its_surround():
    seen = image(5001, units=16, duration_s=400.0)
    quarter = seen.fluorescence.shape[1] // 4
    assert (seen.neuropil[:, -quarter:].mean(axis=1) < seen.neuropil[:, :quarter].mean(axis=1)).all()
    raw = np.corrcoef(seen.fluorescence).mean()
    corrected = np.corrcoef(delta_f_over_f(seen.fluorescence, seen.neuropil, FRAME_RATE, where="x")).mean()
    assert raw > corrected


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"session": -1}, {"units": 3}, {"duration_s": 60.0}])
def test_an_impossible_session_is_rejected(wrong):
    with pytest.raises(SimulationError, match="at least 16 units and 120 s"):
        simulate_calcium(**({"seed": 0, "units": 16, "duration_s": 120.0} | wrong))


def test_statistics_of_a_trace_see_a_stretch_and_nothing_else():
    recording = trace_recording()
    spec = config_of().window.spec
    changed = replace(recording, traces=np.where(np.arange(120) < 32, recording.traces, 5).astype(np.float32))
    found = TraceStatistics(recording, spec).snapshot(0, 2)
    values = found.features["trace_statistics"]
    assert values.shape == (12, 12)
    again = TraceStatistics(changed, spec).snapshot(0, 2).features["trace_statistics"]
    assert np.array_equal(values, again)
    assert found.exposure.tolist() == [2.0] * 12
    assert TraceStatistics(recording, spec).end_s.tolist() == pytest.approx([k * 16 * 0.23344 for k in range(1, 8)])


def test_imaged_animals_are_evaluated_on_embeddings_beside_statistics_of_their_traces(
    tmp_path: Path, imaged: TraceRecording
):
    recordings = [imaged, *(simulate_calcium(seed, units=16, duration_s=120.0) for seed in (5001, 5002))]
    config, fold = config_of(), Fold((imaged.subject_id,))
    run = pretrain(config, recordings[1:], tmp_path / "run")
    ours = result(config, recordings, [run_fold(config, recordings, fold, run)], {})
    rows = {row["row"]: row for row in ours["tasks"]["cell_type"]["rows"]}
    assert {name for name, row in rows.items() if row["role"] == "predictor"} == set(TRACE_SETS)
    assert rows["pool"]["seconds"]["all"]["units"] > 0 and "over_floor" not in rows["pool"]["seconds"]["all"]
    compared = compare("trace_statistics", config, recordings, [fold])
    (row,) = comparison_result(config, recordings, compared, {"command": ""})["tasks"]["cell_type"]["rows"]
    assert row["row"] == "trace_statistics"
    assert row["seconds"]["all"]["units"] == rows["pool"]["seconds"]["all"]["units"]


def test_the_distance_of_the_normaliser_is_measured(tmp_path: Path):
    settings = Normalisation(quantile=0.99, warm_up_frames=256)
    out = tmp_path / "calcium" / "normaliser.json"
    result = normaliser_distance(settings, seeds=[9900], out=out, units=16, duration_s=120.0)
    assert json.loads(out.read_text()) == result
    assert result["seconds"] == [15.0, 30.0, 60.0, 120.0]
    assert result["ratio"][0][-1] == pytest.approx(1, abs=1 / 128), "at the end both have seen the same"


def test_the_commands_simulate_and_measure(tmp_path: Path):
    small = ["--units", "16", "--duration-s", "120", "--animals", "1"]
    done = CliRunner().invoke(app, ["simulate-calcium", "--out", str(tmp_path / "out"), "--first-seed", "3", *small])
    assert done.exit_code == 0, done.output
    assert TraceRecording.load(tmp_path / "out" / "calcium_000003_0.npz").subject_id == "sim_000003"
    out = tmp_path / "normaliser.json"
    done = CliRunner().invoke(
        app, ["normaliser-distance", "configs/pretrain_calcium.toml", "--out", str(out), "--first-seed", "4", *small]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["animals"] == ["sim_000004"]
    rejected = CliRunner().invoke(app, ["normaliser-distance", "configs/pretrain_demo.toml", "--out", str(out)])
    assert "window.normaliser is missing" in str(rejected.exception)
