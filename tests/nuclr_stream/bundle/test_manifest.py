"""The bundle contract: whole and as hashed, or refused with the cause."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclr_stream.bundle import manifest as bundle_module
from nuclr_stream.bundle.manifest import SHIPPED, find_bundle, load_bundle, shipped_bundles
from nuclr_stream.errors import BundleError
from nuclr_stream.features.mean_embedding import Calibration
from nuclr_stream.inference.model import Model, check_bundle
from nuclr_stream.windows.binning import WindowRules, WindowSpec

FILES = ("encoder.onnx", "readout_cell_type.onnx", "readout_brain_region.onnx", "sample.npz", "MODEL_CARD.md")


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "spoiled"))


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit manifest.json as plain values."""
    content = json.loads((folder / "manifest.json").read_text())
    edit(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put another file in, with its right hash: a bundle that is consistent and wrong."""
    (folder / name).write_bytes(content)
    change(folder, lambda manifest: manifest["files"].update({name: hashlib.sha256(content).hexdigest()}))


def test_a_bundle_is_read_as_it_was_written(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    assert bundle.manifest.spec == WindowSpec(Fraction(50), 50, 10, 50)
    assert bundle.manifest.window_rules == WindowRules()
    assert [task.classes for task in bundle.manifest.tasks] == [("E", "PV", "SST", "VIP"), ("CTX", "HPF", "TH")]
    assert bundle.manifest.tasks[0].calibration == Calibration((1.0, 10.0), (2.0, 1.0), 0.4)
    assert set(bundle.files) == set(FILES)
    assert bundle.files["encoder.onnx"] == (tiny_bundle / "encoder.onnx").read_bytes()


def test_the_bundle_id_names_every_byte(folder: Path) -> None:
    before = load_bundle(folder).bundle_id
    replace_file(folder, "MODEL_CARD.md", b"# other\n")
    after = load_bundle(folder).bundle_id
    assert before.startswith("tiny-") and after.startswith("tiny-") and before != after


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_flipped_byte_in_any_file_is_noticed(folder: Path, name: str, place: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"spoiled/{name}: SHA-256 is [0-9a-f]{{12}}\.\.\., the manifest says"):
        load_bundle(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=rf"spoiled/{name}: no such file; the bundle is incomplete"):
        load_bundle(folder)


def test_a_file_that_the_manifest_does_not_list_is_named(folder: Path) -> None:
    change(folder, lambda manifest: manifest["files"].pop("readout_brain_region.onnx"))
    with pytest.raises(BundleError, match=r"files does not list readout_brain_region\.onnx"):
        load_bundle(folder)


def _task(edit: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: edit(manifest["tasks"][0])


@pytest.mark.parametrize(
    ("edit", "cause"),
    [
        (lambda m: m.update(format_version=2), "format_version is 2; this version reads 1"),
        (lambda m: m.pop("format_version"), "format_version is None"),
        (lambda m: m.update(surprise=1), "surprise: Extra inputs are not permitted"),
        (lambda m: m.pop("window"), "window: Field required"),
        (lambda m: m["window"].update(bins_per_second="0"), "window: '0' must be above 0"),
        (lambda m: m["window"].update(patches=0), "window.patches"),
        (lambda m: m.update(encoder_kind="mystery"), "encoder_kind"),
        (lambda m: m.update(name="../elsewhere"), "name: String should match pattern"),
        (_task(lambda t: t.pop("classes")), "tasks.0.classes: Field required"),
        (_task(lambda t: t.update(classes=["E"])), "tasks.0.classes"),
        (_task(lambda t: t.update(classes=["E", "E", "SST", "VIP"])), "classes of cell_type repeat"),
        (_task(lambda t: t.update(prior=[0.5, 0.5])), "prior of cell_type must be 4 probabilities"),
        (_task(lambda t: t.update(temperature=[1.0])), "n and temperature of cell_type"),
        (_task(lambda t: t.update(temperature=[1.0, 0.0])), "temperature of cell_type must be positive"),
        (_task(lambda t: t.update(n=[10.0, 1.0])), "n ascending"),
        (_task(lambda t: t.update(prior=[float("nan")] * 4)), "prior.0: Input should be a finite number"),
        (_task(lambda t: t.update(temperature=[1.0, float("nan")])), "temperature.1: Input should be a finite number"),
        (_task(lambda t: t.update(classes=["E", "PV", "SST", "V\nIP"])), "classes of cell_type must be printable"),
        (lambda m: m["rules"].update(active_units_only=False), "rules.active_units_only is False for spikes"),
        (lambda m: m["rules"].update(one_probe_one_population=False), "rules.one_probe_one_population"),
        (lambda m: m["rules"].pop("cut_masks"), "rules.cut_masks: Field required"),
        (lambda m: m.update(tasks=m["tasks"] * 9), "tasks: Tuple should have at most 16 items"),
        (lambda m: m.update(tasks=[m["tasks"][0], m["tasks"][0]]), "names of tasks repeat: cell_type"),
        (_task(lambda t: t.update(name="../../etc")), "tasks.0.name"),
    ],
)
def test_a_manifest_that_breaks_the_contract_is_refused_with_its_field(
    folder: Path, edit: Callable[[dict[str, Any]], object], cause: str
) -> None:
    change(folder, edit)
    with pytest.raises(BundleError) as refused:
        load_bundle(folder)
    assert str(refused.value).startswith("spoiled/manifest.json: ") and cause in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"spoiled/manifest\.json: "):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/file", "..", "."])
def test_file_names_cannot_leave_the_bundle(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_bytes(b"secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    change(folder, lambda manifest: manifest["files"].update({name: digest}))
    with pytest.raises(BundleError, match=r"leaves the bundle|no such file"):
        load_bundle(folder)


def test_huge_files_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "MAX_FILE_BYTES", 10_000)
    with pytest.raises(BundleError, match="larger than 10000 bytes"):
        load_bundle(folder)


def test_a_sample_without_the_output_of_a_task_is_refused(folder: Path) -> None:
    with np.load(folder / "sample.npz") as archive:
        arrays = {name: archive[name] for name in archive.files if name != "logits_cell_type"}
    np.savez(folder / "changed.npz", **arrays)
    replace_file(folder, "sample.npz", (folder / "changed.npz").read_bytes())
    with pytest.raises(BundleError, match=r"sample\.npz: cell_type missing"):
        check_bundle(load_bundle(folder))


def test_a_sample_that_is_no_archive_of_arrays_or_a_bomb_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (folder / "sample.npz").read_bytes()
    replace_file(folder, "sample.npz", b"no archive")
    with pytest.raises(BundleError, match=r"sample\.npz: not a readable"):
        check_bundle(load_bundle(folder))
    replace_file(folder, "sample.npz", good)
    bundle = load_bundle(folder)
    monkeypatch.setattr(bundle_module, "MAX_FILE_BYTES", 1000)
    with pytest.raises(BundleError, match=r"sample\.npz: unpacks to \d+ bytes"):
        check_bundle(bundle)


@pytest.mark.parametrize(("field", "change_of"), [("counts", lambda a: a[:, :-1]), ("mask", lambda a: ~a)])
def test_a_sample_that_does_not_fit_the_manifest_is_refused(folder: Path, field: str, change_of: Any) -> None:
    with np.load(folder / "sample.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(folder / "changed.npz", **(arrays | {field: change_of(arrays[field])}))
    replace_file(folder, "sample.npz", (folder / "changed.npz").read_bytes())
    with pytest.raises(BundleError, match=rf"sample\.npz: .*{field}"):
        check_bundle(load_bundle(folder))


def test_bundles_are_found_by_path_and_by_shipped_name(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "SHIPPED", tmp_path)
    shutil.copytree(tiny_bundle, tmp_path / "house")
    assert find_bundle(str(tiny_bundle)) == tiny_bundle
    assert find_bundle("house") == tmp_path / "house"
    assert shipped_bundles() == ["house"]
    with pytest.raises(BundleError, match=r"no bundle 'hous': .* one of \['house'\]"):
        find_bundle("hous")


# -- the bundles that come with the package --------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_bundles())
def test_shipped_bundles_are_whole_small_and_right(name: str) -> None:
    bundle = load_bundle(find_bundle(name))
    assert bundle.manifest.name == name
    assert bundle.manifest.parameters <= 3_000_000
    assert max(check_bundle(bundle).values()) <= 1e-3


@pytest.mark.skipif(not shipped_bundles(), reason="no bundle is shipped yet")
def test_shipped_bundles_stay_below_40_megabytes_together() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= 40e6


# -- predictors --------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_experts(pooled_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with predictors that a test may spoil."""
    return Path(shutil.copytree(pooled_bundle, tmp_path / "spoiled"))


def test_a_bundle_with_experts_says_how_they_speak_together(pooled_bundle: Path) -> None:
    bundle = load_bundle(pooled_bundle)
    task = bundle.manifest.tasks[0]
    assert task.file_of("statistics") == "readout_cell_type_statistics.onnx"
    assert {task.file_of(predictor) for task in bundle.manifest.tasks for predictor in task.predictors} < set(
        bundle.files
    )
    together, alone, encoder = task.ways
    assert (together.predictors, alone.predictors, encoder.predictors) == (
        task.predictors,
        ("statistics",),
        ("embedding",),
    )
    assert encoder.weight == ((0.5, 1.0),) and encoder.abstain_below == (0.4, 0.4) and encoder.set_above == (0.0, 0.0)
    assert bundle.manifest.typical_scatter == 0.5 and bundle.out_of_distribution is not None
    assert set(check_bundle(bundle)) == {"embedding", "logits_cell_type", "logits_brain_region"}


def test_a_bundle_without_experts_has_the_encoder_alone(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    assert [way.predictors for way in bundle.manifest.tasks[0].ways] == [("embedding",)]
    assert bundle.out_of_distribution is None and bundle.manifest.typical_scatter is None


def _fusion(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest["tasks"][0]["pools"][1].update(values)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (_fusion(predictors=[]), "predictors"),
        (_fusion(predictors=["moods"]), "predictors"),
        (_fusion(predictors=["statistics", "statistics"], weight=[[1, 1], [1, 1]]), "predictors differ"),
        (_fusion(n=[]), "n"),
        (_fusion(n=[6.0, 1.0]), "n must ascend from at least 1"),
        (_fusion(n=[0.5, 1.0]), "n must ascend from at least 1"),
        (_fusion(weight=[]), "one row of 2 values each is needed"),
        (_fusion(weight=[[1.0]]), "one row of 2 values each is needed"),
        (_fusion(weight=[[1.0, -0.1]]), "weights below 0 or thresholds outside 0 to 1"),
        (_fusion(weight=[[1.0, float("inf")]]), "finite number"),
        (_fusion(abstain_below=[0.5]), "one row of 2 values each is needed"),
        (_fusion(abstain_below=[0.5, 1.5]), "weights below 0 or thresholds outside 0 to 1"),
        (_fusion(set_above=[-0.1, 0.5]), "weights below 0 or thresholds outside 0 to 1"),
        (_fusion(temperature=[1.0]), "Extra inputs"),
        (_task(lambda task: task.update(predictors=["embedding", "statistics"])), "must hold embedding and"),
        (_task(lambda task: task.update(predictors=["statistics"], pools=[])), "must hold embedding"),
        (lambda manifest: manifest.update(typical_scatter=0.0), "typical_scatter"),
    ],
)
def test_a_fusion_that_can_not_be_is_refused(with_experts: Path, edit: Any, says: str) -> None:
    change(with_experts, edit)
    with pytest.raises(BundleError, match=r"manifest\.json: .*" + says):
        load_bundle(with_experts)


def test_an_expert_without_its_graph_is_named(with_experts: Path) -> None:
    name = "readout_brain_region_embedding_company.onnx"
    change(with_experts, lambda manifest: manifest["files"].pop(name))
    with pytest.raises(BundleError, match=f"files does not list {name}"):
        load_bundle(with_experts)


def test_an_expert_with_the_graph_of_another_is_refused(with_experts: Path) -> None:
    other = (with_experts / "readout_cell_type_embedding_company.onnx").read_bytes()
    replace_file(with_experts, "readout_cell_type_statistics.onnx", other)
    with pytest.raises(BundleError, match=r"readout_cell_type_statistics\.onnx: input"):
        Model(load_bundle(with_experts), provider="cpu", threads=1)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("embedding.whiten", np.eye(15), "centres"),
        ("short_intervals", np.array(np.nan), "NaN"),
        ("statistics.limits", np.array([-1.0]), "limits be positive"),
        ("rate_hz", np.array([1.0]), ""),
    ],
)
def test_a_broken_familiarity_is_refused_before_anything_runs(
    with_experts: Path, name: str, value: np.ndarray, says: str
) -> None:
    with np.load(with_experts / "out_of_distribution.npz") as archive:
        arrays = dict(archive)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays | {name: value})
    replace_file(with_experts, "out_of_distribution.npz", buffer.getvalue())
    with pytest.raises(BundleError, match=rf"out_of_distribution\.npz: .*{says}.*export the bundle again"):
        Model(load_bundle(with_experts), provider="cpu", threads=1)


def test_a_familiarity_of_other_embeddings_is_refused(with_experts: Path) -> None:
    with np.load(with_experts / "out_of_distribution.npz") as archive:
        arrays = dict(archive)
    arrays |= {"embedding.whiten": np.eye(15), "embedding.centres": np.zeros((1, 15))}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    replace_file(with_experts, "out_of_distribution.npz", buffer.getvalue())
    with pytest.raises(BundleError, match="embedding has 15 features, the bundle's has 16; export"):
        Model(load_bundle(with_experts), provider="cpu", threads=1)


def test_a_familiarity_that_is_no_archive_is_refused(with_experts: Path) -> None:
    replace_file(with_experts, "out_of_distribution.npz", b"PK but not really")
    with pytest.raises(BundleError, match=r"out_of_distribution\.npz: not a readable \.npz"):
        Model(load_bundle(with_experts), provider="cpu", threads=1)
