"""The parity bar: which windows it tries, and that a graph which differs is not let through."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from exporters import parity
from exporters.graphs import ExportError
from exporters.parity import ParityReport, check_encoder, graph_embedder, random_cases, require_parity
from offline_training.model.encoder import Encoder

GOOD = ParityReport(cases=200, max_units=64, max_abs=1e-4, min_cosine=0.999999, padding_max_abs=1e-4)


def scaled(graph: onnx.ModelProto, weight: str, factor: float) -> bytes:
    """The graph with one weight array multiplied."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    target = next(entry for entry in model.graph.initializer if entry.name == weight)
    target.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(target) * np.float32(factor), weight))
    return model.SerializeToString()


def test_an_exported_encoder_passes(encoder: Encoder, graph: onnx.ModelProto) -> None:
    report = check_encoder(encoder, graph.SerializeToString(), max_units=150)
    assert report.cases == 200
    assert report.max_units == 150
    assert report.max_abs <= 1e-5
    assert report.padding_max_abs <= 1e-5
    assert set(report.as_dict()) == {"cases", "max_units", "max_abs", "min_cosine", "padding_max_abs"}


def test_the_check_leaves_the_mode_of_the_encoder_alone(encoder: Encoder, graph: onnx.ModelProto) -> None:
    assert encoder.training
    check_encoder(encoder, graph.SerializeToString(), cases=200, max_units=2)
    assert encoder.training


def test_an_encoder_of_traces_is_tried_on_traces(encoder: Encoder, graph: onnx.ModelProto) -> None:
    traces = Encoder(replace(encoder.config, input_kind="traces"))
    traces.load_state_dict(encoder.state_dict())
    assert any((case.counts < 0).any() for case in random_cases(traces, cases=200, max_units=40, seed=0))
    assert check_encoder(traces, graph.SerializeToString(), max_units=40).max_abs <= 1e-5


@pytest.mark.parametrize("weight", ["read_in.bias", "st_blocks.0.2.to_qkv.bias", "st_blocks.0.0.to_qkv.weight"])
def test_a_graph_with_other_weights_is_not_exported(encoder: Encoder, graph: onnx.ModelProto, weight: str) -> None:
    with pytest.raises(ExportError, match=r"parity: max_abs = .* the bar is 0\.0001; not exported"):
        check_encoder(encoder, scaled(graph, weight, 1.1), max_units=32)


def test_a_graph_that_returns_nan_is_not_exported(encoder: Encoder, graph: onnx.ModelProto) -> None:
    with pytest.raises(ExportError, match="NaN or infinity for 1 units"):
        check_encoder(encoder, scaled(graph, "read_in.bias", np.nan), max_units=32)


def test_the_windows_hold_every_hard_size_silent_units_and_padding(encoder: Encoder) -> None:
    cases = random_cases(encoder, cases=200, max_units=300, seed=0)
    sizes = [len(case.mask) for case in cases]
    assert len(cases) == 200
    assert {1, 2, 13, 300} <= set(sizes)
    assert max(sizes) == 300
    assert all(case.counts.shape == (units, encoder.config.bins) for case, units in zip(cases, sizes, strict=True))
    assert all(case.mask.any() for case in cases)
    assert sum(not case.mask.all() for case in cases) > 50
    assert sum((case.counts[case.mask].sum(1) == 0).any() for case in cases) > 50


@pytest.mark.parametrize(
    "change, named",
    [
        ({"cases": 199}, "199 cases"),
        ({"max_abs": 1.1e-4}, "max_abs"),
        ({"max_abs": float("nan")}, "max_abs"),
        ({"padding_max_abs": 2e-4}, "padding_max_abs"),
        ({"min_cosine": 0.9999989}, "min_cosine"),
    ],
)
def test_each_figure_beyond_the_bar_is_named(change: dict[str, float], named: str) -> None:
    require_parity(GOOD)
    with pytest.raises(ExportError, match=named):
        require_parity(replace(GOOD, **change))


def test_an_embedder_runs_the_graph_of_its_encoder(
    encoder: Encoder, graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "encoder_graph", {encoder: graph}.__getitem__)
    counts, mask = np.ones((3, encoder.config.bins), np.float32), np.array([True, True, False])
    same = Encoder(encoder.config).eval()
    same.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        expected = same(torch.from_numpy(counts), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(graph_embedder(encoder)(counts, mask), expected, atol=1e-5)
