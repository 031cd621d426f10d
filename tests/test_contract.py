"""The contract, end to end: a small training goes in, live predictions come out, and all three paths agree.

Simulated animals -> pretrain -> readouts -> bundle -> a real daemon over real sockets -> client, against the same
recording labelled in process, embedded offline through onnxruntime, and embedded offline through torch.
"""

from __future__ import annotations

import shutil
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
from offline_training.pretraining.pretrain import load_run, pretrain
from offline_training.readouts.embed import embed_recording, one_by_one, through_torch
from offline_training.readouts.readout import load_readouts
from offline_training.readouts.regression import ReadoutError
from offline_training.readouts.run_readouts import fit_readouts, recalibrate
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
    assert set(check_bundle(bundle)) == {"embedding", "logits_cell_type", "logits_brain_region"}
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
    through_onnx, exposure = embed_recording(one_by_one(model.embed), recording, spec, rules).unit_means()
    encoder, _, _ = load_run(run_dir)
    with_torch, _ = embed_recording(through_torch(encoder), recording, spec, rules).unit_means()
    assert np.abs(last.mean - through_onnx).max() <= 1e-5
    assert np.abs(last.mean - with_torch).max() <= 1e-4
    assert last.predictions.exposure == pytest.approx(exposure)


def test_a_bundle_says_what_it_was_made_of(model: Model) -> None:
    manifest = model.manifest
    assert manifest.trained_on.subjects == ("sim_001000", "sim_001001", "sim_001002")
    assert [task.name for task in manifest.tasks] == ["cell_type", "brain_region"]
    assert (manifest.spec.window_s, manifest.spec.hop_s) == (10.0, 1.0)


def test_shipped_readouts_are_calibrated_on_animals_that_a_folds_encoder_never_saw(
    run_dir: Path, tmp_path: Path
) -> None:
    recordings = [simulate(1000 + k, units=32, duration_s=60.0) for k in range(3)]
    run = shutil.copytree(run_dir, tmp_path / "run")
    before = load_readouts(run)
    folds = [pretrain(TrainConfig.parse(CONFIG), recordings[:2], tmp_path / "without_the_third")]
    after = recalibrate(run, folds, recordings)
    assert load_readouts(run).keys() == after.keys()
    for task, readout in load_readouts(run).items():
        assert readout.calibrated_on.startswith("units of 1 animals (sim_001002), each unseen by its fold's encoder")
        assert readout.calibration == after[task].calibration != before[task].calibration
        assert np.array_equal(readout.linear.weight, before[task].linear.weight), "what is predicted does not change"
    with pytest.raises(ReadoutError, match="none of 1 folds holds out an animal"):
        recalibrate(run, [run_dir], recordings)
