"""The contract, end to end: a small training goes in, live predictions come out, and all three paths agree.

Simulated animals -> pretrain -> readouts -> bundle -> a real daemon over real sockets -> client, against the same
recording labelled in process, embedded offline through onnxruntime, and embedded offline through torch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from exporters.cli import app as export_app
from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.client.replay import replay
from nuclr_stream.client.subscriber import Query
from nuclr_stream.inference.model import Model, check_bundle
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.stream.playback import recording_messages
from offline_training.config import TrainConfig
from offline_training.pretraining.pretrain import pretrain
from offline_training.pretraining.runs import Run
from offline_training.readouts.embed import embed_recording, one_by_one, through_torch
from offline_training.readouts.run_readouts import fit_readouts
from offline_training.readouts.task_model import load_task_models
from offline_training.simulation.animals import simulate
from tests.nuclr_stream.conftest import running, where

CONFIG = {
    "name": "contract",
    "kind": "simulated animals",
    "encoder": {
        "dim": 16,
        "heads": 2,
        "head_dim": 8,
        "ffn_hidden": 32,
        "temporal_blocks": 1,
        "spatiotemporal_blocks": 1,
    },
    "training": {
        "seed": 0,
        "steps": 6,
        "batch_windows": 2,
        "warmup_steps": 2,
        "peak_lr": 1e-3,
        "max_pair_distance_s": 30,
    },
    "tasks": {
        "cell_type": {"column": "cell_type", "classes": {c: [c] for c in ("E", "PV", "SST", "VIP")}},
        "brain_region": {"column": "brain_region", "classes": {c: [c] for c in ("BLA", "CTX", "HPF", "PIR")}},
    },
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: pretrained on three small animals, with readouts."""
    recordings = [simulate(1000 + k, units=32, duration_s=60.0) for k in range(3)]
    folder = tmp_path_factory.mktemp("contract") / "run"
    pretrain(TrainConfig.parse(CONFIG), recordings, folder)
    fit_readouts(folder, recordings)
    return folder


@pytest.fixture(scope="module")
def model(run_dir: Path) -> Model:
    """The run's bundle, exported and checked, on one thread."""
    folder = run_dir.parent / "bundle"
    result = CliRunner().invoke(export_app, ["bundle", str(run_dir), "--out", str(folder), "--name", "contract"])
    assert result.exit_code == 0, result.output
    bundle = load_bundle(folder)
    graphs = {f"logits_{task.name}_{name}" for task in bundle.manifest.tasks for name in task.predictors}
    assert set(check_bundle(bundle)) == {"embedding"} | graphs and len(graphs) >= 4
    return Model(bundle, provider="cpu", threads=1)


def test_streamed_labelled_and_offline_results_are_equal(run_dir: Path, model: Model) -> None:
    recording = simulate(9500, units=32, duration_s=30.0)
    with running(model) as daemon:
        streamed = [
            [received.predictions for received in replay(recording, stream=f"s{speed}", speed=speed, **where(daemon))]
            for speed in (None, 60.0)
        ]
        with Query(daemon.endpoints["query"]) as query:
            embeddings = query.embeddings("sNone")

    labeler = Labeler(model, stream="offline")
    labelled = []
    for message in recording_messages(recording, stream="offline", block_samples=12_345):
        labeler.push(message)
        while (done := labeler.step()) is not None:
            labelled.append(done)
    assert len(labelled) == len(streamed[0]) == len(streamed[1]) == 21
    for one, *others in zip(labelled, *streamed, strict=True):
        for other in others:
            assert other.skipped_steps == 0
            for ours, theirs in zip(one.predictions.tasks, other.tasks, strict=True):
                assert np.array_equal(ours.probabilities, theirs.probabilities), "bitwise, at any speed"
                assert np.array_equal(ours.why, theirs.why) and np.array_equal(ours.sets, theirs.sets)
                assert np.array_equal(ours.stable_since, theirs.stable_since) and ours.flips == theirs.flips

    last = labelled[-1]
    assert np.array_equal(embeddings.mean, last.mean[last.predictions.windows > 0])
    spec, rules = model.manifest.spec, model.manifest.window_rules
    embedded = embed_recording(one_by_one(model.embed), recording, spec, rules)
    through_onnx = embedded.snapshot(0, len(embedded.end_bin))
    encoder = Run.open(run_dir).encoder
    with_torch = embed_recording(through_torch(encoder), recording, spec, rules).snapshot(0, len(embedded.end_bin))
    assert np.abs(last.mean - through_onnx.features["embedding"]).max() <= 1e-5
    assert np.abs(last.mean - with_torch.features["embedding"]).max() <= 1e-4
    assert last.predictions.exposure == pytest.approx(through_onnx.exposure)
    for task, fitted in load_task_models(run_dir).items():
        offline = fitted.answer(through_onnx)
        (live,) = (one for one in last.predictions.tasks if one.name == task)
        assert np.abs(live.probabilities - offline.probabilities).max() <= 1e-3


def test_a_bundle_says_what_it_was_made_of(model: Model) -> None:
    manifest = model.manifest
    assert manifest.trained_on.subjects == ("sim_001000", "sim_001001", "sim_001002")
    assert [task.name for task in manifest.tasks] == ["cell_type", "brain_region"]
    assert (manifest.spec.window_s, manifest.spec.hop_s) == (10.0, 1.0)
