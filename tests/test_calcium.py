"""The calcium path, end to end: simulated traces train an encoder, a bundle labels live frames, and all paths agree.

Simulated imaging -> pretrain -> readouts -> bundle -> a real daemon over real sockets -> client, against the same
recording labelled in process and embedded offline through torch.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from exporters.cli import app as export_app
from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.client.publisher import Publisher
from nuclr_stream.client.replay import replay
from nuclr_stream.client.subscriber import Query, Subscription
from nuclr_stream.commands.cli import app as stream_app
from nuclr_stream.commands.label import write_labels
from nuclr_stream.errors import NuclrStreamError, RecordingError
from nuclr_stream.features.accumulator import TRACE_SETS
from nuclr_stream.inference.model import Model, check_bundle
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.wire import Predictions
from offline_training.config import TrainConfig
from offline_training.pretraining.pretrain import pretrain
from offline_training.pretraining.runs import Run
from offline_training.readouts.embed import embed_recording, through_torch
from offline_training.readouts.run_readouts import fit_readouts
from offline_training.readouts.task_model import load_task_models
from offline_training.simulation.calcium import simulate_calcium
from tests.nuclr_stream.conftest import assert_same, ended, make_recording, predicted_in_process, running, where

FRAMES = 600
CONFIG = {
    "name": "calcium",
    "kind": "simulated calcium imaging",
    "window": {
        "bins_per_second": "6250/1459",
        "bins_per_patch": 4,
        "patches": 8,
        "hop_s": 16 * 0.23344,
        "input_kind": "traces",
        "normaliser": {"quantile": 0.99, "warm_up_frames": 64, "trained_with": "running"},
    },
    "rules": {"cut_silence": False},
    "encoder": {
        "dim": 16,
        "heads": 2,
        "head_dim": 8,
        "ffn_hidden": 32,
        "temporal_blocks": 1,
        "spatiotemporal_blocks": 1,
    },
    "training": {"steps": 4, "batch_windows": 2, "warmup_steps": 1, "peak_lr": 1e-3, "max_pair_distance_s": 60},
    "tasks": {"cell_type": {"column": "cell_type", "classes": {c: [c] for c in ("E", "PV", "SST", "VIP")}}},
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on three small imaged animals, with readouts."""
    recordings = [simulate_calcium(1000 + k, units=24, duration_s=140.0) for k in range(3)]
    folder = tmp_path_factory.mktemp("calcium") / "run"
    pretrain(TrainConfig.parse(CONFIG), recordings, folder)
    fit_readouts(folder, recordings)
    return folder


@pytest.fixture(scope="module")
def model(run_dir: Path) -> Model:
    """The run's bundle, exported and checked, on one thread."""
    folder = run_dir.parent / "bundle"
    result = CliRunner().invoke(export_app, ["bundle", str(run_dir), "--out", str(folder)])
    assert result.exit_code == 0, result.output
    bundle = load_bundle(folder)
    assert set(check_bundle(bundle)) == {"embedding", *(f"logits_cell_type_{name}" for name in TRACE_SETS)}
    return Model(bundle, provider="cpu", threads=1)


@pytest.fixture(scope="module")
def fresh() -> TraceRecording:
    """An animal that was not trained on, with a gap and a masked stretch."""
    recording = simulate_calcium(9500, units=24, duration_s=140.0)
    return replace(
        recording,
        traces=recording.traces[:, :FRAMES],
        gap_samples=np.array([[300, 305]]),
        mask_samples=np.array([[420, 423]]),
    )


def test_streamed_labelled_and_offline_results_are_equal(run_dir: Path, model: Model, fresh: TraceRecording) -> None:
    with running(model) as daemon:
        streamed = [
            [one.predictions for one in replay(fresh, stream=f"s{speed}", speed=speed, **where(daemon))]
            for speed in (None, 200.0)
        ]
        with Query(daemon.endpoints["query"]) as query:
            embeddings = query.embeddings("sNone")
    labelled = predicted_in_process(fresh, model, block_samples=37)
    reasons = [set(one.reasons) for one in labelled]
    assert set().union(*reasons) == {"normaliser", "mask", "gap"} & set().union(*reasons) != set()
    for predictions in streamed:
        assert_same(predictions, labelled)

    encoder = Run.open(run_dir).encoder
    spec, rules = model.manifest.spec, model.manifest.window_rules
    offline = embed_recording(through_torch(encoder), fresh, spec, rules)
    found = offline.snapshot(0, len(offline.end_bin))
    assert list(offline.exclusions[:3]) == ["normaliser", "normaliser", ""], "64 frames of warm-up, windows of 32"
    assert set(found.features) == set(TRACE_SETS), "traces have no spike statistics and no coupling"
    assert np.abs(embeddings.mean - found.features["embedding"]).max() <= 1e-4
    assert labelled[-1].exposure == pytest.approx(found.exposure)


def test_a_task_of_traces_is_predicted_from_embeddings_as_offline(
    run_dir: Path, model: Model, fresh: TraceRecording
) -> None:
    assert set(model.task("cell_type").predictors) == set(TRACE_SETS)
    task = load_task_models(run_dir)["cell_type"]
    assert {name for pool in task.pools for name in pool.predictors} == set(TRACE_SETS)
    encoder = Run.open(run_dir).encoder
    offline = embed_recording(through_torch(encoder), fresh, model.manifest.spec, model.manifest.window_rules)
    answer = task.answer(offline.snapshot(0, len(offline.end_bin)))
    (live,) = predicted_in_process(fresh, model, block_samples=37)[-1].tasks
    assert np.abs(live.probabilities - answer.probabilities).max() <= 1e-4


def test_what_a_rig_publishes_frame_by_frame_is_what_label_says(
    model: Model, fresh: TraceRecording, tmp_path: Path
) -> None:
    whole = replace(fresh, gap_samples=np.zeros((0, 2), dtype=np.int64), mask_samples=np.zeros((0, 2), dtype=np.int64))
    with (
        running(model) as daemon,
        Subscription("scope", **where(daemon, "results", "query")) as subscription,
        Publisher(daemon.endpoints["data"], stream="scope", sample_rate=whole.frame_rate, wait_s=5) as rig,
    ):
        assert subscription.receive(5.0) is not None
        units = rig.units(whole.unit_ids.tolist())
        last: Predictions | None = None
        for frame in range(0, FRAMES, 16):
            assert rig.traces(whole.traces[:, frame : frame + 16], units)
            while frame + 16 >= 32 and (last is None or last.end_sample < frame // 16 * 16):
                message = subscription.receive(5.0)
                assert message is not None
                last = message if isinstance(message, Predictions) else last
        rig.end()
        while not ended(message := subscription.receive(5.0)):
            last = message if isinstance(message, Predictions) else last
    assert last is not None
    write_labels([whole], lambda r: Labeler(model, stream=r.recording_id), tmp_path / "labels.csv")
    rows = list(csv.DictReader((tmp_path / "labels.csv").read_text().splitlines()))
    (task,) = last.tasks
    assert [row["unit_id"] for row in rows] == list(last.unit_ids)
    for row, probabilities in zip(rows, task.probabilities, strict=True):
        assert [float(row[f"p_{c}"]) for c in task.classes] == [round(float(p), 6) for p in probabilities]


def test_files_of_traces_are_labelled_from_the_command_line(
    model: Model, run_dir: Path, fresh: TraceRecording, tmp_path: Path
) -> None:
    fresh.save(tmp_path / "fresh.npz")
    bundle = str(run_dir.parent / "bundle")
    arguments = ["label", str(tmp_path / "fresh.npz"), "--bundle", bundle, "--out", str(tmp_path / "out.csv")]
    result = CliRunner().invoke(stream_app, [*arguments, "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["rows"] == 24


def test_traces_and_spikes_are_not_mixed_up(model: Model, fresh: TraceRecording, tiny_bundle: Path) -> None:
    with pytest.raises(RecordingError, match="holds spikes, the encoder takes traces"):
        write_labels([make_recording()], lambda r: Labeler(model, stream=r.recording_id), Path("never.csv"))
    spikes = Model(load_bundle(tiny_bundle), provider="cpu")
    with running(spikes) as daemon, pytest.raises(NuclrStreamError, match="holds traces, the daemon's bundle"):
        next(replay(fresh, **where(daemon)))


def test_the_manifest_and_the_card_name_the_normaliser(model: Model, run_dir: Path) -> None:
    written = json.loads((run_dir.parent / "bundle" / "manifest.json").read_text())
    assert written["window"]["normaliser"] == {
        "kind": "running_quantile",
        "quantile": 0.99,
        "warm_up_frames": 64,
        "trained_with": "running",
    }
    assert model.manifest.spec == TrainConfig.parse(CONFIG).window.spec
    card = (run_dir.parent / "bundle" / "MODEL_CARD.md").read_text()
    assert "divided by the running 0.99 quantile of all units since the start, from 64 frames on" in card
