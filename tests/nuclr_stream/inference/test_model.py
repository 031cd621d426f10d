"""Encoder and readouts on ONNX Runtime: membership, padding, determinism, refusals."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from nuclr_stream.bundle.manifest import Bundle, load_bundle
from nuclr_stream.errors import BundleError, NonFiniteError, ProviderError
from nuclr_stream.inference.model import Model, bucket, check_bundle
from nuclr_stream.windows.binning import BoolArray, Float32Array


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model(bundle, provider="cpu", threads=2)


def window(units: int, *, bins: int = 500, seed: int = 0) -> tuple[Float32Array, BoolArray]:
    """Counts (U, T) of which every fifth unit is silent, and who is active (U,)."""
    counts = np.random.default_rng(seed).poisson(0.2, (units, bins)).astype(np.float32)
    counts[::5] = 0
    return counts, counts.any(axis=1)


def with_graph(bundle: Bundle, name: str, graph: bytes) -> Bundle:
    return dataclasses.replace(bundle, files=bundle.files | {name: graph})


def edited(bundle: Bundle, name: str) -> onnx.ModelProto:
    return onnx.load_from_string(bundle.files[name])


def test_only_active_units_are_embedded_in_their_order(model: Model) -> None:
    counts, active = window(23)
    embedding = model.embed(counts, active)
    assert embedding.shape == (active.sum(), 16) and embedding.dtype == np.float32
    loud = counts.copy()
    loud[~active] = 50.0
    assert np.array_equal(model.embed(loud, active), embedding)
    order = np.arange(23)[::-1]
    np.testing.assert_allclose(model.embed(counts[order], active[order]), embedding[::-1], atol=1e-5)


@pytest.mark.parametrize("units", [2, 16, 17, 100, 129, 256])
def test_padding_does_not_reach_the_result(model: Model, bundle: Bundle, units: int) -> None:
    counts = window(units)[0] + np.float32(1)
    unpadded = model._encoder.run(["embedding"], {"counts": counts, "mask": np.ones(units, dtype=bool)})[0]
    np.testing.assert_allclose(model.embed(counts, np.ones(units, dtype=bool)), unpadded, atol=1e-5)


@given(st.integers(1, 65536))
def test_buckets_hold_the_units_and_waste_little(units: int) -> None:
    size = bucket(units)
    assert units <= size < units + max(16, units / 8 + 1)
    assert bucket(units + 1) >= size


def test_there_are_few_buckets() -> None:
    assert len({bucket(units) for units in range(1, 1025)}) <= 32


def test_a_window_gives_the_same_bits_whatever_ran_before(bundle: Bundle) -> None:
    counts, active = window(40)
    fresh = Model(bundle, provider="cpu", threads=2)
    first = fresh.embed(counts, active)
    used = Model(bundle, provider="cpu", threads=2)
    for units in (3, 200, 40, 77):
        used.embed(*window(units, seed=units))
    assert np.array_equal(used.embed(counts, active), first)
    exposure = np.ones(len(first), dtype=np.float32)
    assert np.array_equal(
        used.readout("cell_type", "embedding", first, exposure),
        fresh.readout("cell_type", "embedding", first, exposure),
    )


def test_no_active_unit_is_no_embedding(model: Model) -> None:
    counts = np.zeros((5, 500), dtype=np.float32)
    assert model.embed(counts, np.zeros(5, dtype=bool)).shape == (0, 16)
    nobody = np.zeros((0, 16), dtype=np.float32)
    assert model.readout("brain_region", "embedding", nobody, np.zeros(0, dtype=np.float32)).shape == (0, 3)


def test_the_largest_population_runs_and_one_more_unit_is_refused(model: Model) -> None:
    assert len(model.embed(np.ones((256, 500), dtype=np.float32), np.ones(256, dtype=bool))) == 256
    with pytest.raises(BundleError, match=r"257 active units: bundle tiny-\w+ takes at most 256"):
        model.embed(np.ones((257, 500), dtype=np.float32), np.ones(257, dtype=bool))


def test_nan_and_infinity_are_never_returned(model: Model) -> None:
    counts, active = window(20)
    counts[1, 7] = np.nan
    with pytest.raises(NonFiniteError, match=r"encoder\.onnx: NaN or infinite"):
        model.embed(counts, active)
    bad = np.full((3, 16), np.nan, dtype=np.float32)
    with pytest.raises(NonFiniteError, match=r"readout_cell_type_embedding\.onnx"):
        model.readout("cell_type", "embedding", bad, np.ones(3, dtype=np.float32))


def test_warming_up_runs_every_graph_and_changes_nothing(bundle: Bundle, model: Model) -> None:
    counts, active = window(30)
    warm = Model(bundle, provider="cpu", threads=2)
    warm.warm_up(30)
    assert np.array_equal(warm.embed(counts, active), model.embed(counts, active))


def test_threads_leave_one_core_free_by_default(bundle: Bundle) -> None:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    assert Model(bundle, provider="cpu").threads == max(1, cores - 1)
    assert Model(bundle, provider="cpu", threads=3).threads == 3


def test_the_sample_of_a_bundle_is_replayed(bundle: Bundle) -> None:
    found = check_bundle(bundle)
    assert set(found) == {"embedding", "logits_cell_type_embedding", "logits_brain_region_embedding"}
    assert max(found.values()) < 1e-4


def test_a_sample_that_differs_is_refused(bundle: Bundle) -> None:
    encoder = edited(bundle, "encoder.onnx")
    weights = max(encoder.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.raw_data = bytes(len(weights.raw_data))
    with pytest.raises(BundleError, match=r"sample\.npz: embedding differs by"):
        check_bundle(with_graph(bundle, "encoder.onnx", encoder.SerializeToString()))


# -- graphs that do not fit the manifest -----------------------------------------------------------------------------


def graph_of(inputs: dict[str, tuple[int, list[str | int]]], output: tuple[str, list[str | int]]) -> bytes:
    """A graph with these ends that returns zeros of no particular meaning."""
    name, shape = output
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1, 1], [0.0])
    ends = [helper.make_tensor_value_info(key, kind, dims) for key, (kind, dims) in inputs.items()]
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    node = helper.make_node("Identity", ["zero"], [name])
    graph = helper.make_graph([node], "g", ends, [out], [zero])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    return bytes(model.SerializeToString())


FLOAT, BOOL, DOUBLE = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.DOUBLE
COUNTS: dict[str, tuple[int, list[str | int]]] = {"counts": (FLOAT, ["u", 500]), "mask": (BOOL, ["u"])}


@pytest.mark.parametrize(
    ("name", "graph", "cause"),
    [
        ("encoder.onnx", b"not a graph", "encoder.onnx: ONNX Runtime cannot load it"),
        (
            "encoder.onnx",
            graph_of({"x": (FLOAT, ["u", 500])}, ("embedding", ["u", 16])),
            "inputs are ['x']; the manifest means ['counts', 'mask']",
        ),
        (
            "encoder.onnx",
            graph_of(COUNTS | {"counts": (DOUBLE, ["u", 500])}, ("embedding", ["u", 16])),
            "input counts is tensor(double)",
        ),
        (
            "encoder.onnx",
            graph_of(COUNTS | {"counts": (FLOAT, ["u", 499])}, ("embedding", ["u", 16])),
            "input counts is tensor(float) ['u', 499]; the manifest means tensor(float) ['units', 500]",
        ),
        ("encoder.onnx", graph_of(COUNTS | {"mask": (BOOL, [7])}, ("embedding", ["u", 16])), "takes exactly 7 units"),
    ],
)
def test_a_graph_that_does_not_fit_the_manifest_is_refused(bundle: Bundle, name: str, graph: bytes, cause: str) -> None:
    with pytest.raises(BundleError, match=re.escape(cause)):
        Model(with_graph(bundle, name, graph), provider="cpu")


def test_outputs_must_be_as_wide_as_the_manifest_says(bundle: Bundle) -> None:
    narrow = dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"embedding_dim": 8}))
    with pytest.raises(BundleError, match=r"encoder\.onnx: output embedding is tensor\(float\) \['units', 16\]"):
        Model(narrow, provider="cpu")
    cell_type, region = bundle.manifest.tasks
    fewer = cell_type.model_copy(update={"classes": ("E", "I"), "prior": (0.5, 0.5)})
    other = dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"tasks": (fewer, region)}))
    with pytest.raises(
        BundleError, match=r"readout_cell_type_embedding\.onnx: output logits is tensor\(float\) \['units', 4\]"
    ):
        Model(other, provider="cpu")


def test_an_operator_of_an_unknown_domain_is_refused(bundle: Bundle) -> None:
    encoder = edited(bundle, "encoder.onnx")
    encoder.graph.node[0].domain = "example.custom"
    encoder.opset_import.append(helper.make_opsetid("example.custom", 1))
    with pytest.raises(BundleError, match=r"example\.custom"):
        Model(with_graph(bundle, "encoder.onnx", encoder.SerializeToString()), provider="cpu")


@pytest.mark.parametrize("location", ["weights.bin", "../{folder}/weights.bin", "{path}/weights.bin"])
def test_data_outside_the_graph_are_never_read(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    encoder = edited(bundle, "encoder.onnx")
    weights = max(encoder.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (tmp_path / "weights.bin").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location.format(folder=tmp_path.name, path=tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"encoder\.onnx: ONNX Runtime cannot load it"):
        Model(with_graph(bundle, "encoder.onnx", encoder.SerializeToString()), provider="cpu")


# -- where it runs ---------------------------------------------------------------------------------------------------

HAS_GPU = shutil.which("nvidia-smi") is not None


@pytest.mark.skipif(HAS_GPU, reason="a GPU may be usable here")
def test_cuda_is_refused_where_it_is_not_really_there(bundle: Bundle) -> None:
    with pytest.raises(ProviderError, match=r"device cuda is not usable: .*Remedy: device = 'cpu'"):
        Model(bundle, provider="cuda")


@pytest.mark.skipif(HAS_GPU, reason="a GPU may be usable here")
def test_auto_says_why_it_runs_on_the_cpu(bundle: Bundle) -> None:
    model = Model(bundle, provider="auto")
    assert model.provider == "cpu" and model.provider_note
    assert Model(bundle, provider="cpu").provider_note == ""


def test_a_session_that_fell_back_silently_is_noticed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime lists CUDA and then returns a CPU session: a driver without its libraries looks just like that."""
    monkeypatch.setattr("nuclr_stream.inference.model._why_no_cuda_device", lambda: "")
    monkeypatch.setattr("nuclr_stream.inference.model._CUDA", "NoSuchExecutionProvider")
    monkeypatch.setattr("nuclr_stream.inference.model.ort.preload_dlls", lambda: None)
    with (
        pytest.warns(UserWarning, match="NoSuchExecutionProvider"),
        pytest.raises(ProviderError, match="could not load"),
    ):
        Model(bundle, provider="cuda")


def test_the_terminal_stays_clean(tiny_bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nuclr_stream.bundle.manifest import load_bundle;"
        "from nuclr_stream.inference.model import Model; Model(load_bundle(Path(sys.argv[1]))).warm_up(12)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny_bundle)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
