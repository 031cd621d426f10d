"""From a published checkpoint to a bundle: without readouts first, with them later; daemon and label take both."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from exporters import cli, export, parity
from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.commands.label import write_labels
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.windows.binning import Grid
from offline_training.readouts.run_readouts import fit_readouts
from tests.exporters.published_numpy import embed
from tests.offline_training.published import HEADS, save_checkpoint, save_reference, spikes, weights_of
from tests.offline_training.tiny import recording_of_steps

TASK = """
name = "ibl"
kind = "weights of somebody else"
[training]
steps = 1
[window]
hop_s = 10.0
[tasks.kind]
column = "kind"
min_spikes = 0
classes = { slow = ["slow"], fast = ["fast"] }
"""


@pytest.fixture(autouse=True)
def few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small parity check: the whole one stands behind `tiny_bundle`."""
    check = parity.check_encoder
    monkeypatch.setattr(parity, "MIN_CASES", 8)
    fewer = {"cases": 8, "max_units": 64}
    monkeypatch.setattr(export, "check_encoder", lambda *given, **named: check(*given, **(named | fewer)))


def recording_of(subject: str) -> Recording:
    """80 s of 14 units, every other one fires five times as often."""
    rng = np.random.default_rng(ord(subject))
    fast = np.arange(14) % 2 == 1
    fired = rng.random((8000, 14)) < np.where(fast, 0.2, 0.04)
    return recording_of_steps(f"{subject}1", subject, fired, units={"kind": np.where(fast, "fast", "slow")})


def invoke(*arguments: str | Path) -> tuple[list[str], dict[str, object]]:
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout.splitlines(), json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("layout", "patches", "blocks"), [("nuclr", 10, 2), ("brainwidebench", 20, 4)])
def test_a_published_checkpoint_becomes_a_bundle_that_embeds(
    tmp_path: Path, layout: str, patches: int, blocks: int
) -> None:
    published, counts = weights_of(patches, blocks), spikes(patches)
    checkpoint = save_checkpoint(tmp_path / "published.pt", published)
    reference = save_reference(tmp_path / "reference.npz", published, counts, layout)
    (tmp_path / "task.toml").write_text(TASK)
    options = ("--layout", layout, "--trust-pickle", "--config", tmp_path / "task.toml", "--reference", reference)
    printed, last = invoke("import", checkpoint, "--out", tmp_path / "run", *options)
    assert any("without readouts" in line for line in printed) and any("layout proven" in line for line in printed)
    assert last["reference_max_abs"] <= 1e-4

    bundle = load_bundle(tmp_path / "run" / "bundle")
    manifest = bundle.manifest
    assert (manifest.tasks, manifest.spec.window_s, manifest.window.patches) == ((), patches, patches)
    assert manifest.rules.active_units_only and manifest.rules.min_population == 11
    assert manifest.training["encoder"]["imported"]["layout"] == layout
    sizes = manifest.training["config"]["encoder"]
    assert (sizes["rope_ratio"], sizes["spatiotemporal_blocks"]) == (0.5, blocks)
    assert "training" not in manifest.training["config"]  # nobody here knows how they were trained
    assert "without readouts" in (tmp_path / "run" / "bundle" / "MODEL_CARD.md").read_text()
    assert "unknown" in manifest.trained_on.description and manifest.trained_on.subjects == ()
    found = Model(bundle, provider="cpu", threads=1).embed(counts, np.ones(len(counts), dtype=bool))
    expected = embed(published, counts.astype(np.float64), layout=layout, heads=HEADS)
    assert np.abs(found - expected).max() <= 1e-4

    if layout == "brainwidebench":
        return
    recordings = [recording_of(subject) for subject in "ab"]
    fit_readouts(tmp_path / "run", recordings)
    invoke("bundle", tmp_path / "run", "--out", tmp_path / "with_readouts")
    taught = load_bundle(tmp_path / "with_readouts").manifest
    assert [task.name for task in taught.tasks] == ["kind"] and taught.trained_on.subjects == ("a", "b")
    assert "unknown: the checkpoint does not say" in taught.tasks[0].calibrated_on

    model = Model(bundle, provider="cpu", threads=1)

    def labeler_of(recording: Recording) -> Labeler:
        return Labeler(model, stream=recording.recording_id)

    rows = write_labels(recordings[:1], labeler_of, tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open() as file:
        table = list(csv.DictReader(file))
    assert rows == len(table) == 14
    assert {(row["task"], row["prediction"], row["final"]) for row in table} == {("", "", "1")}
    assert {row["reason"] for row in table} == {"the bundle has no readouts"}
    assert {int(row["windows"]) for row in table} == {8}
    columns = [[float(row[f"e_{d}"]) for d in range(manifest.embedding_dim)] for row in table]
    windows = recordings[0].counts(Grid(Fraction(1000), Fraction(50)))[:, :4000].reshape(14, 8, 500)
    means = np.mean([model.embed(windows[:, k], np.ones(14, dtype=bool)) for k in range(8)], axis=0)
    np.testing.assert_allclose(columns, means, atol=1e-4)

    short = dataclasses.replace(
        recordings[0], num_samples=5_000, spike_samples=np.array([1]), spike_units=np.array([0])
    )
    assert write_labels([short], labeler_of, tmp_path / "short.csv") == 14
    with (tmp_path / "short.csv").open() as file:
        assert {row["reason"][:20] for row in csv.DictReader(file)} == {"recording of 5 s is "}


def test_without_a_reference_the_layout_is_called_unproven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "write_bundle", lambda contents, folder: {})
    monkeypatch.setattr(cli, "_checked", lambda folder: ("id", {}))
    checkpoint = save_checkpoint(tmp_path / "published.pt", weights_of(10, 2))
    options = ("--layout", "nuclr", "--trust-pickle", "--name", "mine", "--out", tmp_path / "run")
    printed, last = invoke("import", checkpoint, *options)
    assert any("layout not provable" in line for line in printed) and any("no task" in line for line in printed)
    assert last["reference_max_abs"] is None
    assert json.loads((tmp_path / "run" / "run.json").read_text())["name"] == "mine"


def test_without_the_flag_it_is_rejected_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save_checkpoint(tmp_path / "published.pt", weights_of(10, 2))
    arguments = ["import", str(checkpoint), "--layout", "nuclr", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["nuclr-export", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and printed.count("\n") == 1
    assert "runs whatever code is in it: rejected" in printed and "--trust-pickle" in printed
    assert not (tmp_path / "run").exists()
