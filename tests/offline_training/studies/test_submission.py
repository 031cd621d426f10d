"""BrainWideBench submissions: the files of docs/submission.md, and the public scorer where it is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nuclr_stream.recordings.recording import Recording
from offline_training.commands.cli import main
from offline_training.config import TrainConfig
from offline_training.pretraining.pretrain import pretrain
from offline_training.pretraining.runs import Run
from offline_training.readouts.embed import embed_recording, through_torch
from offline_training.readouts.task_model import load_task_models, save_task_models
from offline_training.scores import macro_f1
from offline_training.simulation.animals import simulate
from offline_training.studies.submission import COSMOS, SubmissionError, encode_ids, write_submission
from tests.conftest import tiny_task

TINY = {"dim": 8, "heads": 1, "head_dim": 8, "ffn_hidden": 8, "temporal_blocks": 1, "spatiotemporal_blocks": 1}
UNITS, SILENT = 16, 3
SCORE = (
    "import json, sys; from pathlib import Path; from ibl_bwb_eval.scoring.ts3 import score_file; "
    "print(json.dumps(score_file(Path(sys.argv[1]), Path(sys.argv[2]))))"
)


def recording_of(seed: int) -> Recording:
    """A simulated recording with unit ids as the benchmark has them; unit SILENT never fires."""
    source = simulate(seed, units=UNITS, duration_s=45.0)
    kept = source.spike_units != SILENT
    ids = np.array([f"session-{seed}/unit-{row}" for row in range(UNITS)])
    depth = 30.0 * np.arange(UNITS)
    return replace(
        source,
        unit_ids=ids,
        spike_samples=source.spike_samples[kept],
        spike_units=source.spike_units[kept],
        units={"depth_um": depth},
    )


def run_of(folder: Path, seed: int, recordings: list[Recording], classes: tuple[str, ...] = COSMOS) -> Path:
    """A run of two steps whose predictors have random coefficients."""
    config = {"name": "tiny", "encoder": TINY, "training": {"steps": 2, "batch_windows": 2, "seed": seed}}
    run_dir = pretrain(TrainConfig.parse(config), recordings, folder / f"run{seed}{len(classes)}")
    model = tiny_task(classes, TINY["dim"], ("embedding", "statistics_neighbourhood"), ("embedding",))
    save_task_models(run_dir, {"brain_region": model}, {})
    return run_dir


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [recording_of(seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def runs(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("submission")
    return [run_of(folder, seed, recordings) for seed in (43, 44)]


@pytest.fixture(scope="module")
def written(runs: list[Path], recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predictions")
    write_submission(runs, recordings, label="ours", out=out)
    return out


def header_of(path: Path) -> dict[str, Any]:
    """The header of a safetensors file as its specification has it: its length in 8 bytes, then JSON."""
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def test_there_is_one_file_for_every_seed_alone_and_pooled(written: Path) -> None:
    found = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    assert found == {
        f"ours_{scope}/ts3-unit_cosmos/seed_{seed}.safetensors" for scope in ("single", "multi") for seed in (43, 44)
    }


def test_the_header_says_what_the_scorer_asks_for(written: Path) -> None:
    header = header_of(written / "ours_multi/ts3-unit_cosmos/seed_44.safetensors")
    assert header["__metadata__"] == {
        "label": "ours_multi",
        "task": "ts3-unit_cosmos",
        "seed": "44",
        "label_names": "CB,CNU,CTXsp,HB,HPF,HY,Isocortex,MB,OLF,TH",
        "ibl_bwb_eval_version": "0.1.0",
    }
    assert (header["pred_proba"]["dtype"], header["pred_proba"]["shape"]) == ("F32", [2 * UNITS, 10])
    assert (header["entity_ids"]["dtype"], header["entity_ids"]["shape"]) == (
        "U8",
        [2 * UNITS, len("session-1/unit-10")],
    )


def test_every_unit_is_there_under_its_id_and_probabilities_add_up(written: Path, recordings: list[Recording]) -> None:
    tensors = load_file(written / "ours_single/ts3-unit_cosmos/seed_43.safetensors")
    ids = [row.tobytes().rstrip(b"\0").decode("ascii") for row in tensors["entity_ids"]]
    assert ids == [name for recording in recordings for name in recording.unit_ids.tolist()]
    assert np.allclose(tensors["pred_proba"].sum(axis=1), 1, atol=1e-6)
    assert np.all(tensors["pred_proba"][SILENT] == np.float32(0.1)), "no window shows it: no class is preferred"
    assert np.ptp(tensors["pred_proba"][0]) > 0.01


def test_probabilities_are_those_of_the_task_model(
    written: Path, runs: list[Path], recordings: list[Recording]
) -> None:
    run = Run.open(runs[0])
    encoder, config = run.encoder, run.config
    embedded = embed_recording(through_torch(encoder), recordings[1], config.window.spec, config.rules.rules)
    answer = load_task_models(runs[0])["brain_region"].answer(embedded.snapshot(0, len(embedded.end_bin)))
    found = load_file(written / "ours_single/ts3-unit_cosmos/seed_43.safetensors")["pred_proba"]
    assert np.allclose(found[UNITS:], answer.probabilities, atol=1e-6)


def test_pooling_is_the_mean_over_the_five_nearest_within_60_um(written: Path) -> None:
    alone = load_file(written / "ours_single/ts3-unit_cosmos/seed_43.safetensors")["pred_proba"]
    pooled = load_file(written / "ours_multi/ts3-unit_cosmos/seed_43.safetensors")["pred_proba"]
    assert np.allclose(pooled[8], alone[6:11].mean(axis=0), atol=1e-6), "30 um apart: two on either side"
    assert np.allclose(pooled[0], alone[0:3].mean(axis=0), atol=1e-6), "the other recording is another probe"


def test_without_depth_there_are_no_pooled_files(runs: list[Path], recordings: list[Recording], tmp_path: Path) -> None:
    flat = [replace(recordings[0], units={}), recordings[1]]
    paths = write_submission(runs[:1], flat, label="ours", out=tmp_path)
    assert [path.parent.parent.name for path in paths] == ["ours_single"]


def test_ids_are_bytes_filled_up_with_zeros() -> None:
    assert encode_ids(["ab", "c"]).tolist() == [[97, 98], [99, 0]]
    with pytest.raises(SubmissionError, match="unit id 'µ1': submissions carry ASCII ids only"):
        encode_ids(["µ1"])


def test_what_cannot_be_scored_is_rejected(runs: list[Path], recordings: list[Recording], tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="unit id 'session-1/unit-0' occurs in sim_000001_0 too"):
        write_submission(runs, [recordings[0], recordings[0]], label="ours", out=tmp_path)
    with pytest.raises(SubmissionError, match="both have seed 43"):
        write_submission([runs[0], runs[0]], recordings, label="ours", out=tmp_path)
    with pytest.raises(SubmissionError, match="label 'a/b': must be a plain ASCII name"):
        write_submission(runs, recordings, label="a/b", out=tmp_path)
    wrong = run_of(tmp_path, 5, recordings, classes=COSMOS[::-1])
    with pytest.raises(SubmissionError, match="needs 'brain_region' with the classes CB, CNU"):
        write_submission([wrong], recordings, label="ours", out=tmp_path)


def test_the_command_names_the_files(
    runs: list[Path],
    recordings: list[Recording],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for recording in recordings:
        recording.save(tmp_path / f"{recording.recording_id}.npz")
    arguments = [
        "submission",
        *map(str, runs),
        "--recordings",
        str(tmp_path),
        "--label",
        "ours",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", ["nuclr-train", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4 and all(Path(line).is_file() for line in printed)


@pytest.mark.skipif(
    "IBL_BWB_EVAL_PYTHON" not in os.environ, reason="IBL_BWB_EVAL_PYTHON names no python with the scorer"
)
def test_the_public_scorer_finds_the_same_macro_f1(written: Path, recordings: list[Recording], tmp_path: Path) -> None:
    """Its ground truth file: ids, class indices and the names of the classes; here one class after the other."""
    ids = [name for recording in recordings for name in recording.unit_ids.tolist()][::-1]
    targets = (np.arange(len(ids)) % 10).astype(np.int64)
    truth = tmp_path / "ts3-unit_cosmos" / "ground_truth.safetensors"
    truth.parent.mkdir()
    names = {"label_names": ",".join(COSMOS)}
    save_file({"entity_ids": encode_ids(ids), "targets": targets}, truth, metadata=names)
    prediction = written / "ours_single/ts3-unit_cosmos/seed_43.safetensors"
    python = os.environ["IBL_BWB_EVAL_PYTHON"]
    arguments = [python, "-c", SCORE, str(prediction), str(truth)]
    theirs = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    ours = load_file(prediction)["pred_proba"].argmax(axis=1)[::-1]
    assert theirs["macro/f1-score"] == pytest.approx(macro_f1(targets, ours, np.arange(10)), abs=1e-9)
    command = [python, "-m", "ibl_bwb_eval.scoring.ts3", "--pred_dir", str(written), "--gt_dir", str(tmp_path)]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "ours_single" in report and "ours_multi" in report and "Error" not in report
