"""Peers: each learns an obvious difference, sees no label of a tested animal, and says what its training took."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nuclr_stream.recordings.recording import Recording
from offline_training.commands.cli import app
from offline_training.config import TrainConfig
from offline_training.data.splits import parse_split
from offline_training.evaluation.aggregate import combine
from offline_training.evaluation.evaluate import EvaluationError
from offline_training.studies.comparison import PEERS, Peer, run_peer, score_neuprint
from offline_training.studies.neuprint import NeuprintSettings

UNITS = 20
SECONDS = 60
RATE_HZ = 1000
SETTINGS = {
    "name": "tiny",
    "kind": "made-up animals",
    "window": {"hop_s": 10.0},
    "training": {"steps": 1, "precision": "fp32"},
    "tasks": {
        "kind": {"column": "kind", "classes": {"regular": ["regular"], "bursty": ["bursty"]}, "min_spikes": 5},
        "width": {"column": "peak_to_trough_ms", "classes": {"narrow": [0.0, 0.35], "broad": [0.45, 9.0]}},
    },
}
CONFIG = TrainConfig.parse(SETTINGS)
SHORT: dict[Peer, float] = {"lolcat": 0.1, "nemo": 0.1, "neuprint": 0.002, "depth": 1.0}
ROWS = {
    "lolcat": {"kind": {"lolcat"}, "width": {"lolcat"}},
    "nemo": {"kind": {"nemo", "nemo_acg"}, "width": {"nemo_acg"}},
    "neuprint": {"kind": {"neuprint"}, "width": {"neuprint"}},
    "depth": {"kind": {"depth_only"}, "width": {"depth_only"}},
}
SMALL = NeuprintSettings(
    vector=8,
    width=16,
    heads=2,
    feed_forward=16,
    bins=50,
    held_out=10,
    batch=72,
    steps=200,
    vector_rate=3e-2,
    network_rate=1e-2,
)
"""NeuPRINT of its own size takes long to learn anything."""


def animal(number: int) -> Recording:
    """Half the units fire regularly at 5 Hz with a narrow waveform, above the others, which fire in bursts of five."""
    rng = np.random.default_rng(number)
    trains = [_regular(rng) if unit % 2 else _bursty(rng) for unit in range(UNITS)]
    samples = np.concatenate(trains)
    rows = np.repeat(np.arange(UNITS, dtype=np.int32), [len(train) for train in trains])
    order = np.argsort(samples, kind="stable")
    regular = np.arange(UNITS) % 2 == 1
    at_ms = np.arange(-10, 30) / 30
    waves = [-np.exp(-((at_ms / w) ** 2)) + 0.4 * np.exp(-(((at_ms - 3 * w) / w) ** 2)) for w in (0.2, 0.1)]
    return Recording(
        recording_id=f"r{number}",
        subject_id=f"animal{number}",
        sample_rate=Fraction(RATE_HZ),
        num_samples=SECONDS * RATE_HZ,
        spike_samples=samples[order],
        spike_units=rows[order],
        unit_ids=np.array([f"r{number}:{unit}" for unit in range(UNITS)]),
        units={
            "kind": np.where(regular, "regular", "bursty"),
            "peak_to_trough_ms": np.where(regular, 0.3, 0.6).astype(np.float32),
            "depth_um": np.where(regular, 1000.0, 0.0) + 10.0 * np.arange(UNITS),
            "waveform_uv": 100 * np.stack([waves[int(one)] for one in regular]) + rng.normal(size=(UNITS, 40)),
        },
    )


def _regular(rng: np.random.Generator) -> np.ndarray:
    times = np.arange(0.1, SECONDS - 0.1, 0.2)
    return ((times + rng.uniform(-0.02, 0.02, len(times))) * RATE_HZ).astype(np.int64)


def _bursty(rng: np.random.Generator) -> np.ndarray:
    begins = np.sort(rng.choice(SECONDS - 1, SECONDS - 2, replace=False)) + rng.random(SECONDS - 2) * 0.9
    return ((begins[:, None] + 0.01 * np.arange(5)).ravel() * RATE_HZ).astype(np.int64)


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [animal(number) for number in (1, 2, 3)]


def run(peer: Peer, recordings: list[Recording], out: Path, *, seed: int = 0, length: float | None = None) -> dict:
    """The result of a peer on the fold of the first animal, after a training that is short unless `length` is given."""
    split = parse_split("leave-one-subject-out", CONFIG, recordings)
    path = run_peer(
        peer, CONFIG, recordings, split.folds[0], seed=seed, out_dir=out, split=split, length=length or SHORT[peer]
    )
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> dict[Peer, dict]:
    """What each peer says of the first animal, trained on the others."""
    out = tmp_path_factory.mktemp("peers")
    return {peer: run(peer, recordings, out / peer) for peer in PEERS}


def right(result: dict, task: str, row: str) -> float:
    """Share of the units of `task` that the row names rightly after the whole recording."""
    found = result["tasks"][task]
    return float(np.mean(np.array(found["features"][row]["seconds"]["all"]["prediction"]) == found["label"]))


@pytest.mark.parametrize("peer", ["lolcat", "nemo", "depth"])
def test_an_obvious_difference_is_learnt(peer: Peer, results: dict[Peer, dict]):
    found = {task: set(of["features"]) for task, of in results[peer]["tasks"].items()}
    assert found == ROWS[peer]
    for task, rows in found.items():
        for row in rows:
            assert right(results[peer], task, row) >= 0.9, row


def test_vectors_that_predict_activity_tell_the_classes_apart(recordings: list[Recording], tmp_path: Path):
    split = parse_split("leave-one-subject-out", CONFIG, recordings)
    tasks = score_neuprint(CONFIG, recordings, split.folds[0], settings=SMALL, keep=tmp_path / "vectors.npz")
    assert right({"tasks": tasks}, "kind", "neuprint") >= 0.9


@pytest.mark.parametrize("peer", PEERS)
def test_every_row_says_its_budget_and_setting(peer: Peer, results: dict[Peer, dict]):
    result = results[peer]
    assert result["setting"] == ("transductive zero-shot" if peer == "neuprint" else "inductive zero-shot")
    assert result["seed"] == (None if peer == "depth" else 0)
    for found in result["tasks"].values():
        for row in found["features"].values():
            assert set(row["budget"]) == {"steps", "cpu_s", "parameters", "how"}
            assert (row["budget"]["steps"] > 0) == (peer != "depth")


def test_a_waveform_is_no_input_where_it_is_the_label(results: dict[Peer, dict]):
    assert set(results["nemo"]["tasks"]["width"]["features"]) == {"nemo_acg"}


@pytest.mark.parametrize("peer", PEERS)
def test_labels_of_the_tested_animal_change_no_prediction(
    peer: Peer, recordings: list[Recording], results: dict[Peer, dict], tmp_path: Path
):
    stated = recordings[0].units
    shuffled = np.random.default_rng(0).permutation(UNITS)
    lies = {name: stated[name][shuffled] for name in ("kind", "peak_to_trough_ms")}
    liar = replace(recordings[0], units=stated | lies)
    again = run(peer, [liar, *recordings[1:]], tmp_path)
    for task in again["tasks"]:
        for row, found in again["tasks"][task]["features"].items():
            before = results[peer]["tasks"][task]["features"][row]
            assert {k: v for k, v in found.items() if k != "budget"} == {
                k: v for k, v in before.items() if k != "budget"
            }
            assert again["tasks"][task]["label"] != results[peer]["tasks"][task]["label"]


def test_nothing_inductive_is_claimed_for_a_peer_that_sees_the_tested_activity(
    recordings: list[Recording], tmp_path: Path
):
    split = parse_split("leave-one-subject-out", CONFIG, recordings)
    with pytest.raises(EvaluationError, match="neuprint on animal1 is 'transductive zero-shot'"):
        run_peer(
            "neuprint", CONFIG, recordings, split.folds[0], seed=0, out_dir=tmp_path, split=split, claim="inductive"
        )
    assert not list(tmp_path.iterdir())


def test_an_unknown_peer_is_refused(recordings: list[Recording], tmp_path: Path):
    split = parse_split("leave-one-subject-out", CONFIG, recordings)
    with pytest.raises(EvaluationError, match="must be one of lolcat, nemo, neuprint, depth"):
        run_peer("c4", CONFIG, recordings, split.folds[0], seed=0, out_dir=tmp_path, split=split)


def test_traces_are_refused(recordings: list[Recording], tmp_path: Path):
    traces = TrainConfig.parse(SETTINGS | {"window": {"input_kind": "traces"}})
    split = parse_split("leave-one-subject-out", CONFIG, recordings)
    with pytest.raises(EvaluationError, match="the peers read spikes"):
        run_peer("nemo", traces, recordings, split.folds[0], seed=0, out_dir=tmp_path, split=split)


def test_what_is_there_is_not_trained_again_and_not_mistaken(recordings: list[Recording], tmp_path: Path):
    first = run("depth", recordings, tmp_path)
    assert run("depth", recordings, tmp_path) == first
    with pytest.raises(EvaluationError, match="other settings, recordings or versions"):
        run("depth", recordings, tmp_path, length=2.0)


def test_vectors_of_other_settings_are_not_mistaken(recordings: list[Recording], tmp_path: Path):
    run("neuprint", recordings, tmp_path, length=0.001)
    (tmp_path / "fold_animal1_neuprint_seed0.json").unlink()
    with pytest.raises(EvaluationError, match=r"neuprint_vectors_seed0\.npz: comes from other settings"):
        run("neuprint", recordings, tmp_path, length=0.002)


def test_a_vector_is_known_at_the_end_of_a_recording_only(results: dict[Peer, dict]):
    assert set(results["neuprint"]["tasks"]["kind"]["features"]["neuprint"]["seconds"]) == {"all"}
    assert set(results["lolcat"]["tasks"]["kind"]["features"]["lolcat"]["seconds"]) == {"10", "60", "300", "all"}


def test_one_command_runs_all_folds_and_the_scorer_takes_them(recordings: list[Recording], tmp_path: Path):
    for recording in recordings:
        recording.save(tmp_path / f"{recording.recording_id}.npz")
    config = tmp_path / "tiny.toml"
    config.write_text(
        'name = "tiny"\n[window]\nhop_s = 10.0\n[training]\nsteps = 1\nprecision = "fp32"\n'
        '[tasks.kind]\ncolumn = "kind"\nmin_spikes = 5\nclasses = { regular = ["regular"], bursty = ["bursty"] }\n'
    )
    out = tmp_path / "out"
    for peer, length in (("depth", "1"), ("lolcat", "0.05")):
        arguments = ["peer", peer, str(config), "--recordings", str(tmp_path), "--out", str(out), "--length", length]
        done = CliRunner().invoke(app, [*arguments, "--json"])
        assert done.exit_code == 0, done.output
    summary = json.loads(done.output.splitlines()[-1])
    rows = summary["tasks"]["kind"]["features"]
    assert set(rows) == {"depth_only", "lolcat"}
    assert rows["depth_only"]["mean"]["all"]["macro_f1"] == 1.0
    assert [budget["steps"] > 0 for budget in rows["lolcat"]["budgets"]] == [True] * 3
    assert summary == combine(out)
