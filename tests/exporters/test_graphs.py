"""Graphs of a bundle: the contract of their inputs and outputs, and that nothing of the build machine is inside."""

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from exporters.graphs import ExportError, readout_graph, require_symbolic_units
from offline_training.model.encoder import Encoder

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


def test_a_graph_for_one_number_of_units_is_refused(graph: onnx.ModelProto) -> None:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(graph)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    with pytest.raises(ExportError, match="unit dimension must be one symbol"):
        require_symbolic_units(fixed)


def fitted() -> tuple[StandardScaler, LogisticRegression, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    x = (rng.normal(size=(200, 6)) + labels[:, None]) * [1, 10, 0.1, 3, 1, 1] + 5
    scaler = StandardScaler().fit(x)
    return scaler, LogisticRegression(max_iter=500).fit(scaler.transform(x), labels), x


def test_a_readout_gives_the_logits_of_scaler_and_classifier() -> None:
    scaler, classifier, x = fitted()
    mean, scale = scaler.mean_[None], scaler.scale_[None]
    model = readout_graph(classifier.coef_, classifier.intercept_, mean=mean, scale=scale, n=np.ones(1))
    logits = run(model, embedding=x.astype(np.float32), exposure=np.arange(len(x), dtype=np.float32))
    np.testing.assert_allclose(logits, classifier.decision_function(scaler.transform(x)), atol=1e-4)


def test_a_readout_standardises_for_the_evidence_that_its_features_rest_on() -> None:
    """Between knots linearly in log n, beyond them as at the nearest; it requires the exposure."""
    knots, means, scales = [1, 4, 16], [[0.0], [8.0], [12.0]], [[1.0], [2.0], [8.0]]
    model = readout_graph(
        np.ones((1, 1)), np.zeros(1), mean=np.array(means), scale=np.array(scales), n=np.array(knots, float)
    )
    float32 = onnx.TensorProto.FLOAT
    assert shapes(model.graph.input) == {"embedding": (float32, [*UNITS, 1]), "exposure": (float32, UNITS)}
    assert shapes(model.graph.output) == {"logits": (float32, [*UNITS, 1])}
    n, x = np.array([0, 1, 2, 4, 8, 16, 3600], np.float32), np.full((7, 1), 20, np.float32)
    expected = [20, 20, 16 / 1.5, 6, 10 / 5, 1, 1]
    np.testing.assert_allclose(run(model, embedding=x, exposure=n)[:, 0], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="exposure"):
        run(model, embedding=x)


def test_no_feature_of_a_readout_says_more_than_its_limit() -> None:
    model = readout_graph(np.eye(2), np.zeros(2), mean=np.zeros((1, 2)), scale=np.ones((1, 2)), n=np.ones(1), limit=2)
    x = np.array([[-1e9, 1.5], [3.0, np.inf]], np.float32)
    np.testing.assert_array_equal(run(model, embedding=x, exposure=np.ones(2, np.float32)), [[-2, 1.5], [2, 2]])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bias": np.zeros(4)}, "do not fit"),
        ({"mean": np.zeros((1, 4))}, "do not fit"),
        ({"n": np.array([1.0, 2.0])}, "do not fit"),
        ({"scale": np.zeros((1, 5))}, r"readout\.scale: must be positive"),
        ({"mean": np.full((1, 5), np.nan)}, r"readout\.mean: holds NaN"),
        ({"n": np.array([0.5])}, r"readout\.n: \[0\.5\] must ascend"),
    ],
)
def test_a_readout_that_cannot_work_is_refused(change: dict[str, np.ndarray], message: str) -> None:
    parts = {"weight": np.eye(3, 5), "bias": np.zeros(3), "mean": np.zeros((1, 5)), "scale": np.ones((1, 5))}
    with pytest.raises(ExportError, match=message):
        readout_graph(**(parts | {"n": np.ones(1)} | change))
