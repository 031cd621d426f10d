"""What `nuclr-train` promises: simulated recordings in, a run out; intended errors are one line and exit code 2."""

import json
import sys
from pathlib import Path

import pytest

from offline_training.commands.cli import main
from offline_training.simulation import network
from offline_training.studies import reference
from offline_training.studies.reference import ReferenceReport
from tests.offline_training.tiny import SMALLEST_TOML

CONFIG = SMALLEST_TOML


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Exit code of `nuclr-train` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["nuclr-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of two simulated animals, 40 s each, written by the command."""
    out = tmp_path_factory.mktemp("simulated")
    with pytest.MonkeyPatch.context() as patch:
        arguments = ("--animals", "2", "--first-seed", "7", "--units", "20", "--duration-s", "40", "--sessions", "1")
        assert run(patch, "simulate", "--out", out, *arguments) == 0
    return out


def test_a_network_is_simulated_by_kind_and_keeps_judging_seeds_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = {}

    def written(out: Path, **arguments: object) -> list[Path]:  # test_network.py runs the real one
        asked.update(arguments, out=out)
        return [out / "network_5_000.npz"]

    arguments = ("simulate", "--kind", "network", "--out", tmp_path / "raw", "--animals", "1", "--duration-s", "30")
    assert run(monkeypatch, *arguments, "--first-seed", "10000") == 2
    assert "nuclr-train: seed 10000: from 10000 on seeds of the network are reserved" in capfd.readouterr().err
    assert run(monkeypatch, *arguments, "--units", "50") == 2
    assert "--units: the network draws its own units" in capfd.readouterr().err
    assert not (tmp_path / "raw").exists()
    monkeypatch.setattr(network, "write_networks", written)
    assert run(monkeypatch, *arguments, "--first-seed", "5") == 0
    assert asked == {"out": tmp_path / "raw", "animals": 1, "seed": 5, "duration_s": 30.0}
    assert "1 recordings in" in capfd.readouterr().out


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG)
    return path


def test_pretraining_leaves_a_run_of_the_subjects_seed_and_steps_asked_for(
    folder: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--only", "sim_000007", "--seed", "5", "--steps", "2")
    assert run(monkeypatch, "pretrain", config, "--recordings", folder, "--out", tmp_path / "run", *options) == 0
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (info["subjects"], info["seed"], info["steps"]) == (["sim_000007"], 5, 2)
    out, err = capfd.readouterr()
    assert "2/2 steps" in out and "finished" in out
    assert "left" in err


def test_a_finished_run_can_be_resumed_but_not_overwritten(
    folder: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("pretrain", config, "--recordings", folder, "--out", tmp_path / "run", "--without", "sim_000008")
    assert run(monkeypatch, *arguments) == 0
    assert run(monkeypatch, *arguments, "--resume") == 0
    capfd.readouterr()
    assert run(monkeypatch, *arguments) == 2
    assert "holds a training already" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("extra", "options", "message"),
    [
        ("peek_lr = 1", (), "unknown key 'peek_lr'; the nearest known key is 'peak_lr'"),
        ("", ("--only", "nobody"), "no recording of subject nobody; there are sim_000007, sim_000008"),
        ("", ("--steps", "0"), "training.steps = 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    extra: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    config.write_text(CONFIG + extra)
    assert run(monkeypatch, "pretrain", config, "--recordings", folder, "--out", tmp_path / "run", *options) == 2
    err = capfd.readouterr().err
    assert err.startswith("nuclr-train: ") and message in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("distance", "code"), [(1e-7, 0), (1e-2, 1)])
def test_the_reference_is_one_line_of_json_and_exit_code_0_only_within_the_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], distance: float, code: int
) -> None:
    report = ReferenceReport("nuclr", embedding_max_abs=distance, loss_max_abs=0.0, onnx_max_abs=0.0)
    monkeypatch.setattr(reference, "check_reference", lambda path, embedder: report)  # test_reference runs the real one
    assert run(monkeypatch, "check-reference", tmp_path / "any.npz") == code
    printed = json.loads(capfd.readouterr().out)
    assert {"embedding_max_abs", "loss_max_abs", "onnx_max_abs"} <= printed.keys()


def test_what_is_no_reference_file_is_rejected_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "check-reference", tmp_path / "absent.npz") == 2
    assert "absent.npz" in capfd.readouterr().err


def test_every_promised_command_is_there(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "--help")
    out = capfd.readouterr().out
    assert all(name in out for name in ("simulate", "pretrain", "readout", "evaluate", "check-reference"))
