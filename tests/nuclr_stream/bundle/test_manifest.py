"""The bundle contract: whole and as hashed, or rejected with the cause."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from nuclr_stream.bundle import manifest as bundle_module
from nuclr_stream.bundle.manifest import (
    SHIPPED,
    TrainedOn,
    find_bundle,
    load_bundle,
    manifest_digest,
    shipped_bundles,
)
from nuclr_stream.errors import BundleError
from nuclr_stream.features.accumulator import SPIKE_SETS
from nuclr_stream.inference.model import Model, check_bundle
from nuclr_stream.windows.binning import WindowRules, WindowSpec
from tests.conftest import change_manifest, replace_file

READOUTS = ("readout_cell_type_embedding.onnx", "readout_brain_region_embedding.onnx")
FILES = ("encoder.onnx", *READOUTS, "sample.npz", "MODEL_CARD.md")


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "spoiled"))


def test_a_bundle_is_read_as_it_was_written(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    assert bundle.manifest.spec == WindowSpec(Fraction(50), 50, 10, 50)
    assert bundle.manifest.window_rules == WindowRules()
    assert [task.classes for task in bundle.manifest.tasks] == [("E", "PV", "SST", "VIP"), ("CTX", "HPF", "TH")]
    assert bundle.manifest.trained_on == TrainedOn(description="Nothing: random weights.", subjects=(), recordings=())
    assert bundle.out_of_distribution is None
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
    change_manifest(folder, lambda manifest: manifest["files"].pop(READOUTS[1]))
    with pytest.raises(BundleError, match=r"files does not list " + READOUTS[1]):
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
        (_task(lambda t: t.update(prior=[float("nan")] * 4)), "prior.0: Input should be a finite number"),
        (_task(lambda t: t.update(prior=[0.5, 0.5, 0.5, -0.5])), "prior of cell_type must be 4 probabilities"),
        (_task(lambda t: t.update(temperature=[1.0])), "tasks.0.temperature: Extra inputs"),
        (_task(lambda t: t.update(classes=["E", "PV", "SST", "V\nIP"])), "classes of cell_type must be printable"),
        (lambda m: m["rules"].update(active_units_only=False), "rules.active_units_only is False for spikes"),
        (lambda m: m["rules"].update(one_probe_one_population=False), "rules.one_probe_one_population"),
        (lambda m: m["rules"].pop("cut_masks"), "rules.cut_masks: Field required"),
        (lambda m: m.update(tasks=m["tasks"] * 9), "tasks: Tuple should have at most 16 items"),
        (lambda m: m.update(tasks=[m["tasks"][0], m["tasks"][0]]), "names of tasks repeat: cell_type"),
        (_task(lambda t: t.update(name="../../etc")), "tasks.0.name"),
    ],
)
def test_a_manifest_that_breaks_the_contract_is_rejected_with_its_field(
    folder: Path, edit: Callable[[dict[str, Any]], object], cause: str
) -> None:
    change_manifest(folder, edit)
    with pytest.raises(BundleError) as rejected:
        load_bundle(folder)
    assert str(rejected.value).startswith("spoiled/manifest.json: ") and cause in str(rejected.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_rejected(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"spoiled/manifest\.json: "):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/file", "..", "."])
def test_file_names_cannot_leave_the_bundle(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_bytes(b"secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    change_manifest(folder, lambda manifest: manifest["files"].update({name: digest}))
    with pytest.raises(BundleError, match=r"leaves the bundle|no such file"):
        load_bundle(folder)


def test_huge_files_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "MAX_FILE_BYTES", 10_000)
    with pytest.raises(BundleError, match="larger than 10000 bytes"):
        load_bundle(folder)


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


# -- pools of several predictors ---------------------------------------------------------------------------------------


@pytest.fixture
def with_pools(pooled_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with pools that a test may spoil."""
    return Path(shutil.copytree(pooled_bundle, tmp_path / "spoiled"))


def test_a_bundle_says_how_its_predictors_are_pooled(pooled_bundle: Path) -> None:
    bundle = load_bundle(pooled_bundle)
    task = bundle.manifest.tasks[0]
    assert task.predictors == SPIKE_SETS and task.file_of("coupling") == "readout_cell_type_coupling.onnx"
    graphs = {task.file_of(name) for task in bundle.manifest.tasks for name in task.predictors}
    assert len(graphs) == 12 and graphs < set(bundle.files)
    together, alone = task.log_linear_pools
    assert (together.predictors, alone.predictors) == (SPIKE_SETS, ("statistics",))
    assert alone.n == (1.0, 6.0) and alone.weight == ((0.5, 1.0),)
    assert alone.abstain_below == (0.6, 0.4) and alone.set_above == (0.2, 0.25)
    assert bundle.out_of_distribution is not None
    assert set(check_bundle(bundle)) == {"embedding"} | {
        f"logits_{task.name}_{name}" for task in bundle.manifest.tasks for name in task.predictors
    }


def _pool(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest["tasks"][0]["pools"][1].update(values)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (_pool(predictors=[]), "predictors"),
        (_pool(predictors=["moods"]), "predictors"),
        (_pool(predictors=["statistics", "statistics"], weight=[[1, 1], [1, 1]]), "predictors differ"),
        (_pool(n=[]), "n"),
        (_pool(n=[6.0, 1.0]), "n must ascend from at least 1"),
        (_pool(n=[0.5, 1.0]), "n must ascend from at least 1"),
        (_pool(weight=[]), "one row of 2 values each is needed"),
        (_pool(weight=[[1.0]]), "one row of 2 values each is needed"),
        (_pool(weight=[[1.0, -0.1]]), "weights below 0 or thresholds outside 0 to 1"),
        (_pool(weight=[[1.0, float("inf")]]), "finite number"),
        (_pool(abstain_below=[0.5]), "one row of 2 values each is needed"),
        (_pool(abstain_below=[0.5, 1.5]), "weights below 0 or thresholds outside 0 to 1"),
        (_pool(set_above=[-0.1, 0.5]), "weights below 0 or thresholds outside 0 to 1"),
        (_pool(temperature=[1.0]), "Extra inputs"),
        (_task(lambda task: task.update(predictors=["embedding", "statistics"])), "must differ and hold coupling"),
        (_task(lambda task: task.update(predictors=[*SPIKE_SETS, "embedding"])), "must differ and hold no more"),
        (_task(lambda task: task.update(pools=[])), "tasks.0.pools"),
    ],
)
def test_a_pool_that_can_not_be_is_rejected(with_pools: Path, edit: Any, says: str) -> None:
    change_manifest(with_pools, edit)
    with pytest.raises(BundleError, match=r"manifest\.json: .*" + says):
        load_bundle(with_pools)


def test_a_predictor_without_its_graph_is_named(with_pools: Path) -> None:
    name = "readout_brain_region_embedding_neighbourhood.onnx"
    change_manifest(with_pools, lambda manifest: manifest["files"].pop(name))
    with pytest.raises(BundleError, match=f"files does not list {name}"):
        load_bundle(with_pools)


def test_a_predictor_with_the_graph_of_another_is_rejected(with_pools: Path) -> None:
    other = (with_pools / "readout_cell_type_embedding_neighbourhood.onnx").read_bytes()
    replace_file(with_pools, "readout_cell_type_statistics.onnx", other)
    with pytest.raises(BundleError, match=r"readout_cell_type_statistics\.onnx: input"):
        Model(load_bundle(with_pools), provider="cpu", threads=1)


# -- what a manifest says of itself ------------------------------------------------------------------------------------


def altered(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit manifest.json and leave its digest as it was."""
    content = json.loads((folder / "manifest.json").read_text())
    edit(content)
    (folder / "manifest.json").write_text(json.dumps(content, indent=1))


def every_value(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the plain values of a manifest stand."""
    if isinstance(content, dict | list):
        inner = content.items() if isinstance(content, dict) else enumerate(content)
        return [found for key, value in inner for found in every_value(value, (*path, key))]
    return [path]


@pytest.mark.parametrize(
    "edit",
    [
        _task(lambda task: task.update(classes=["PV", "E", "SST", "VIP"])),
        _task(lambda task: task["pools"][0].update(abstain_below=[0.5, 0.4])),
        lambda manifest: manifest["trained_on"].update(subjects=["rat 1"]),
        lambda manifest: manifest.update(digest="0" * 64),
        lambda manifest: manifest.update(digest=None),
        lambda manifest: manifest.update(digest=["0"]),
        lambda manifest: manifest.pop("digest"),
        lambda manifest: manifest.update(surprise=1),
    ],
)
def test_a_manifest_that_was_altered_is_rejected(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    altered(folder, edit)
    with pytest.raises(
        BundleError, match=r"spoiled/manifest\.json: digest is .*it was altered.*export the bundle again"
    ):
        load_bundle(folder)


def test_every_single_value_of_a_manifest_is_covered_by_its_digest(tiny_bundle: Path) -> None:
    content = json.loads((tiny_bundle / "manifest.json").read_text())
    places = every_value(content)
    assert len(places) > 60
    for *path, last in places:
        other = json.loads(json.dumps(content))
        part = other
        for key in path:
            part = part[key]
        part[last] = "something else"
        assert (manifest_digest(other) == content["digest"]) == (last == "digest"), [*path, last]


def test_the_digest_is_that_of_values_and_not_of_their_layout(folder: Path) -> None:
    before = load_bundle(folder).bundle_id
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(dict(reversed(content.items())), separators=(",", ":")))
    assert load_bundle(folder).bundle_id == before == f"tiny-{content['digest'][:12]}"


def test_of_a_key_given_twice_the_value_that_was_hashed_is_the_one_that_is_used(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"max_units": 256', '"max_units": 7, "max_units": 256'))
    assert load_bundle(folder).manifest.max_units == 256


def test_a_pinned_id_is_the_only_one_that_loads(folder: Path, tiny_bundle: Path) -> None:
    right = load_bundle(tiny_bundle).bundle_id
    assert load_bundle(folder, right).bundle_id == right
    assert find_bundle(str(folder), right) == find_bundle(f"{folder}@{right}") == folder
    # a consistent forgery: classes swapped, digest made anew
    change_manifest(folder, _task(lambda task: task.update(classes=["PV", "E", "SST", "VIP"])))
    forged = load_bundle(folder).bundle_id
    for load in (lambda: load_bundle(folder, right), lambda: find_bundle(f"{folder}@{right}")):
        with pytest.raises(BundleError, match=f"spoiled: the bundle is {forged}, expected was {right}"):
            load()
    with pytest.raises(BundleError, match=f"the bundle is {forged}, expected was $"):
        find_bundle(f"{folder}@")


def test_a_folder_with_an_at_sign_in_its_name_is_found_all_the_same(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "rat@home"))
    assert find_bundle(str(folder)) == folder
    assert find_bundle(f"{folder}@{load_bundle(folder).bundle_id}") == folder
    with pytest.raises(BundleError, match="no bundle 'nobody'"):
        find_bundle("nobody@home")
