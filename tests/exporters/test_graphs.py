"""Graphs of a bundle: the contract of their inputs and outputs, and that nothing of the build machine is inside."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.graphs import ExportError, readout_graph, require_symbolic_units
from offline_training.model.encoder import Encoder
from offline_training.readouts.predictor import Predictor
from tests.conftest import tiny_predictor

UNITS = ["units"]


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def shapes(values: object) -> dict[str, tuple[int, list[str | int]]]:
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


def test_the_encoder_takes_counts_and_mask_and_gives_embeddings_for_any_number_of_units(graph: onnx.ModelProto) -> None:
    float32, boolean = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
    assert shapes(graph.graph.input) == {"counts": (float32, [*UNITS, 20]), "mask": (boolean, UNITS)}
    assert shapes(graph.graph.output) == {"embedding": (float32, [*UNITS, 16])}
    for units in (1, 2, 7, 50):
        counts, mask = np.zeros((units, 20), np.float32), np.ones(units, bool)
        assert run(graph, counts=counts, mask=mask).shape == (units, 16)


def test_the_encoder_is_plain_operators_in_one_small_file(encoder: Encoder, graph: onnx.ModelProto) -> None:
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 18)]
    assert {node.domain for node in graph.graph.node} == {""}
    assert all(weight.data_location == onnx.TensorProto.DEFAULT for weight in graph.graph.initializer)
    weights = 4 * sum(p.numel() for p in encoder.parameters())
    stored = sum(len(weight.raw_data) for weight in graph.graph.initializer)
    assert stored < 1.3 * weights


def test_nothing_of_the_build_machine_is_in_the_graph(graph: onnx.ModelProto) -> None:
    content = graph.SerializeToString()
    for trace in (b".py", b'File "', b"stack_trace", b"site-packages", b"/work", b"/home", b"/tmp"):
        assert trace not in content
    assert not graph.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)
    assert graph.producer_name == "nuclr-stream"


def test_exporting_leaves_an_encoder_in_training_but_exports_it_without_dropout(
    encoder: Encoder, graph: onnx.ModelProto
) -> None:
    assert encoder.training
    assert not any("Random" in node.op_type or "Dropout" in node.op_type for node in graph.graph.node)


def test_a_graph_for_one_number_of_units_is_rejected(graph: onnx.ModelProto) -> None:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(graph)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    with pytest.raises(ExportError, match="unit dimension must be one symbol"):
        require_symbolic_units(fixed)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 6), st.integers(1, 8))
def test_a_readout_gives_what_its_predictor_gives(seed: int, knots: int, classes: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (knots, classes, dim)
    predictor = Predictor(
        n=np.cumprod(rng.uniform(1.2, 5.0, knots)),
        weight=rng.normal(0, 1, shape),
        bias=rng.normal(0, 1, shape[:2]),
        mean=rng.normal(0, 2, dim),
        scale=rng.uniform(0.2, 3.0, dim),
    )
    x, at = rng.normal(size=(17, dim)).astype(np.float32), np.exp(rng.uniform(-1, 6, 17)).astype(np.float32)
    found = run(readout_graph(**vars(predictor)), features=x, exposure=at)
    np.testing.assert_allclose(np.exp(found), np.exp(predictor.logits(x, at)), atol=1e-5)


def test_a_readout_takes_features_and_exposure_for_any_number_of_units() -> None:
    predictor = tiny_predictor("embedding", 3, 5)
    model = readout_graph(**vars(predictor))
    float32 = onnx.TensorProto.FLOAT
    assert shapes(model.graph.input) == {"features": (float32, [*UNITS, 5]), "exposure": (float32, UNITS)}
    assert shapes(model.graph.output) == {"logits": (float32, [*UNITS, 3])}
    with pytest.raises(ValueError, match="exposure"):
        run(model, features=np.zeros((2, 5), np.float32))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bias": np.zeros((1, 4))}, "do not fit"),
        ({"weight": np.zeros((3, 5))}, "do not fit"),
        ({"mean": np.zeros(4)}, "do not fit"),
        ({"n": np.array([1.0, 2.0])}, "do not fit"),
        ({"scale": np.zeros(5)}, r"readout\.scale: must be positive"),
        ({"mean": np.full(5, np.nan)}, r"readout\.mean: holds NaN"),
        ({"n": np.array([0.5])}, r"readout\.n: \[0\.5\] must ascend"),
    ],
)
def test_a_readout_that_cannot_work_is_rejected(change: dict[str, np.ndarray], message: str) -> None:
    parts = {"weight": np.ones((1, 3, 5)), "bias": np.zeros((1, 3)), "mean": np.zeros(5), "scale": np.ones(5)}
    with pytest.raises(ExportError, match=message):
        readout_graph(**(parts | {"n": np.ones(1)} | change))
