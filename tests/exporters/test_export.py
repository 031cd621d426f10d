"""A run becomes a bundle: reproducible, whole or absent, and never above the parity bar."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from exporters import cli, export, parity
from exporters.card import model_card
from exporters.export import Contents, sample_counts, write_bundle
from exporters.figures import read_evaluation
from exporters.graphs import ExportError
from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.inference.model import Model, check_bundle
from nuclr_stream.windows.binning import WindowSpec
from offline_training.config import TrainConfig
from offline_training.model.encoder import Encoder
from offline_training.readouts.task_model import save_task_models
from tests.conftest import tiny_contents

SCORES = {"macro_f1": 0.6789, "balanced_accuracy": 0.7, "ece": 0.05, "called": 0.4, "precision": None, "units": 42}
RESULT = {
    "format": 3,
    "name": "tiny",
    "protocol": "Every animal once left out of encoder and readouts.",
    "command": "nuclr-train evaluate",
    "machine": "a CPU",
    "seed": 0,
    "versions": {"torch": "2"},
    "tasks": {
        "cell_type": {
            "rows": [
                {"row": "product", "role": "shipped", "seconds": {"whole": SCORES, "60": SCORES | {"macro_f1": 0.5}}},
                {"row": "rate", "role": "floor", "seconds": {"whole": SCORES}},
                {"row": "another", "role": "comparison", "seconds": {"whole": SCORES}},
            ]
        }
    },
}


@pytest.fixture
def few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small parity check: the whole one stands behind `tiny_bundle`."""
    check = parity.check_encoder
    monkeypatch.setattr(parity, "MIN_CASES", 8)
    monkeypatch.setattr(export, "check_encoder", lambda *given, **named: check(*given, **(named | {"cases": 8})))


@pytest.fixture
def quick(few_cases: None, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds: take the graph of `tiny_bundle`, which has the weights of seed 0."""
    graph = onnx.load_from_string((tiny_bundle / "encoder.onnx").read_bytes())
    monkeypatch.setattr(export, "encoder_graph", lambda _: graph)


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_exported_computes_what_the_model_computes(tiny_bundle: Path) -> None:
    contents = tiny_contents()
    bundle = load_bundle(tiny_bundle)
    counts = sample_counts(contents.spec, seed=5)
    active = counts.any(axis=1)
    with torch.inference_mode():
        expected = contents.encoder.eval()(torch.from_numpy(counts), torch.from_numpy(active)).numpy()[active]
    model = Model(bundle, provider="cpu")
    np.testing.assert_allclose(model.embed(counts, active), expected, atol=1e-5)
    predictor = contents.tasks["cell_type"].predictors["embedding"]
    exposure = np.full(len(expected), 3.0, dtype=np.float32)
    found = model.readout("cell_type", "embedding", expected, exposure)
    np.testing.assert_allclose(np.exp(found), np.exp(predictor.logits(expected, exposure)), atol=1e-5)


def test_the_same_weights_give_the_same_bytes(tiny_bundle: Path, tmp_path: Path) -> None:
    write_bundle(tiny_contents(), tmp_path / "deeper" / "again")
    assert contents_of(tmp_path / "deeper" / "again") == contents_of(tiny_bundle)


@pytest.mark.usefixtures("quick")
def test_a_new_bundle_replaces_an_older_one(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_bundle(tiny_contents(), folder)
    (folder / "readout_old.onnx").write_bytes(b"left over")
    before = load_bundle(folder).bundle_id
    write_bundle(dataclasses.replace(tiny_contents(), training={"seed": 7}), folder)
    assert load_bundle(folder).bundle_id != before
    assert not (folder / "readout_old.onnx").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="exists and is no bundle; give another --out"):
        write_bundle(tiny_contents(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.usefixtures("quick")
def test_nothing_is_written_above_the_parity_bar(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"parity: max_abs = .*, the bar is 0\.0001; not exported"):
        write_bundle(tiny_contents(seed=1), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_a_readout_that_answers_differently_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = export.readout_graph
    monkeypatch.setattr(export, "readout_graph", lambda weight, **named: right(weight=weight * 1.1, **named))
    with pytest.raises(ExportError, match=r"readout_cell_type_embedding\.onnx: probabilities differ by"):
        write_bundle(tiny_contents(), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_a_failed_write_leaves_the_older_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bundle"
    write_bundle(tiny_contents(), folder)
    before = contents_of(folder)

    def full(_: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(export, "load_bundle", full)
    with pytest.raises(OSError, match="disk full"):
        write_bundle(tiny_contents(), folder)
    assert contents_of(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.usefixtures("quick")
def test_a_name_that_no_manifest_may_have_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="manifest: name"):
        write_bundle(dataclasses.replace(tiny_contents(), name="Not A Name"), tmp_path / "bundle")


@pytest.mark.usefixtures("few_cases")
def test_traces_are_exported_with_all_units(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_contents().encoder.config, input_kind="traces", bins_per_patch=8, patches=16)
    spec = WindowSpec(Fraction(100000, 23344), 8, 16, 4, "traces")
    write_bundle(dataclasses.replace(tiny_contents(), encoder=Encoder(config), spec=spec), tmp_path / "traces")
    bundle = load_bundle(tmp_path / "traces")
    assert bundle.sample.mask.all() and bundle.manifest.window.bins_per_second == "6250/1459"
    assert max(check_bundle(bundle).values()) < 1e-4


def test_nothing_of_the_building_machine_is_in_the_files(tiny_bundle: Path) -> None:
    for name, content in contents_of(tiny_bundle).items():
        for trace in (b"/home", b"/root", b"/work", b"/tmp", b"site-packages", str(Path.cwd()).encode()):
            assert trace not in content, f"{name} names {trace!r}"


def test_the_sample_has_silent_units_and_is_fixed() -> None:
    counts = sample_counts(tiny_contents().spec)
    assert np.array_equal(counts, sample_counts(tiny_contents().spec))
    assert 0 < np.count_nonzero(~counts.any(axis=1)) < len(counts) / 2
    assert 1 < counts.sum() / counts.shape[0] / 10 < 15  # Hz


# -- the card --------------------------------------------------------------------------------------------------------


def test_the_card_says_what_the_manifest_says(tiny_bundle: Path) -> None:
    manifest = load_bundle(tiny_bundle).manifest
    card = (tiny_bundle / "MODEL_CARD.md").read_text()
    assert card == model_card(manifest)
    assert "E, PV, SST, VIP" in card and "(0.6 at 1 windows, 0.4 at 6 windows;" in card
    assert "Windows of 10 s of spike counts (500 bins at 50 per second), one every 1 s" in card
    assert "No evaluation was given" in card and "not a cell type" not in card


def test_the_card_of_a_waveform_class_warns(tiny_bundle: Path) -> None:
    manifest = load_bundle(tiny_bundle).manifest
    task = manifest.tasks[0].model_copy(update={"name": "waveform_class"})
    assert "**it is not a cell type.**" in model_card(manifest.model_copy(update={"tasks": (task,)}))


def test_the_card_repeats_what_the_manifest_promises(pooled_bundle: Path) -> None:
    manifest, card = load_bundle(pooled_bundle).manifest, (pooled_bundle / "MODEL_CARD.md").read_text()
    for task in manifest.tasks:
        assert f"Predictors, weighing alike: {', '.join(task.pools[0].predictors)}." in card
        assert f"Calibrated on: {task.calibrated_on}." in card
        assert f"{task.threshold_promise}. Sets of classes: {task.sets_promise}." in card


def test_figures_come_with_their_protocol(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    evaluation = read_evaluation(tmp_path / "result.json")
    card = model_card(load_bundle(tiny_bundle).manifest.model_copy(update={"evaluation": evaluation}))
    assert RESULT["protocol"] in card
    assert "| cell_type | product (shipped) | whole | 0.679 | 0.700 | 0.050 | 0.400 | - |" in card
    assert "| cell_type | product (shipped) | 60 s | 0.500 |" in card and "rate (floor)" in card
    assert "another" not in json.dumps(evaluation)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"tasks": {}}', '{"tasks": []}', '{"format": 2}'])
def test_a_file_that_is_no_evaluation_is_rejected(tmp_path: Path, content: str) -> None:
    (tmp_path / "figures.json").write_text(content)
    with pytest.raises(ExportError, match=r"figures\.json: not a result of `nuclr-train evaluate`"):
        read_evaluation(tmp_path / "figures.json")


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run as training and readout leave it, with random weights."""
    folder = tmp_path / "run"
    folder.mkdir()
    contents: Contents = tiny_contents()
    sizes = {"dim": 16, "heads": 2, "head_dim": 8, "ffn_hidden": 32, "temporal_blocks": 1, "spatiotemporal_blocks": 1}
    config = TrainConfig.parse(
        {"name": "tiny", "kind": "random numbers", "encoder": sizes, "training": {"steps": 3}, "tasks": {}}
    )
    info: dict[str, Any] = {"name": "tiny", "kind": "random numbers", "step": 3, "machine": "a CPU"}
    seen = {"subjects": ["A"], "recordings": ["A1"]}
    (folder / "config.json").write_text(json.dumps(config.model_dump(mode="json", exclude_none=True)))
    (folder / "run.json").write_text(json.dumps(info | seen))
    torch.save({"encoder": contents.encoder.state_dict()}, folder / "checkpoint.pt")
    save_task_models(folder, contents.tasks, {"hop_s": 10.0, "subjects": ["A", "B"], "recordings": ["A1", "B1"]})
    return folder


@pytest.mark.usefixtures("quick")
def test_a_run_is_exported_and_checked_from_the_command_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    out = tmp_path / "out"
    arguments = [
        "bundle",
        str(run),
        "--out",
        str(out),
        "--name",
        "small",
        "--evaluation",
        str(tmp_path / "result.json"),
    ]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    bundle = load_bundle(out)
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["bundle"] == bundle.bundle_id and last["parity"]["max_abs"] < 1e-4
    assert bundle.manifest.name == "small"
    assert bundle.manifest.trained_on.description == "random numbers"
    assert bundle.manifest.trained_on.subjects == ("A", "B") and bundle.manifest.trained_on.recordings == ("A1", "B1")
    assert bundle.manifest.training["encoder"]["step"] == 3
    assert bundle.manifest.evaluation["protocol"] == RESULT["protocol"]

    checked = CliRunner().invoke(cli.app, ["check", str(out)])
    assert checked.exit_code == 0 and json.loads(checked.stdout.splitlines()[-1])["bundle"] == bundle.bundle_id
    whole = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(whole.replace('"E"', '"@"').replace('"PV"', '"E"').replace('"@"', '"PV"'))
    swapped = CliRunner().invoke(cli.app, ["check", str(out)]).exception
    assert isinstance(swapped, NuclrStreamError) and "it was altered" in str(swapped)
    (out / "manifest.json").write_text(whole)
    (out / "encoder.onnx").write_bytes(b"")
    assert isinstance(CliRunner().invoke(cli.app, ["check", str(out)]).exception, NuclrStreamError)


def test_an_error_on_purpose_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["nuclr-export", "check", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("nuclr-export: ")
