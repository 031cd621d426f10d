"""ONNX graphs of a bundle: the encoder from its PyTorch module, readouts straight from their coefficients.

A graph names its inputs and outputs, its unit dimension is symbolic, and nothing else travels: no source paths, no
stack traces, no external data. What depends on weights alone (their rotation) stays a few nodes, which the runtime
folds when it loads the graph.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nuclr_stream.errors import NuclrStreamError
from offline_training.model.encoder import Encoder
from offline_training.readouts.predictor import LEAST_PROBABILITY

OPSET = 18
IR_VERSION = 10
PRODUCER = "nuclr-stream"
# Units of the traced example: more than one, and no size of any model, so that nothing can be taken for a constant.
TRACED_UNITS = 7
# Constants above this many elements are not folded into the file; shapes, masks and scales are far smaller.
FOLD_LIMIT = 512


class ExportError(NuclrStreamError):
    """A graph could not be exported, or does not compute what the model computes."""


def encoder_graph(encoder: Encoder) -> onnx.ModelProto:
    """The encoder as a graph: counts (U, T) f32, mask (U,) bool -> embedding (U, D) f32, any number of units.

    Raises ExportError where the unit dimension did not stay symbolic.
    """
    was_training = encoder.training
    encoder.eval()
    device = encoder.read_in.weight.device
    counts = torch.zeros(TRACED_UNITS, encoder.config.bins, device=device)
    mask = torch.ones(TRACED_UNITS, dtype=torch.bool, device=device)
    units = torch.export.Dim("units", min=1)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            encoder,
            (counts, mask),
            dynamo=True,
            input_names=["counts", "mask"],
            output_names=["embedding"],
            dynamic_shapes=({0: units}, {0: units}),
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
        if program is None:
            raise ExportError("the encoder could not be exported: torch.onnx.export returned no program")
        onnxscript.optimizer.optimize_ir(program.model, input_size_limit=FOLD_LIMIT, output_size_limit=FOLD_LIMIT)
    encoder.train(was_training)
    model = program.model_proto
    require_symbolic_units(model)
    return _finish(model.graph, "NuCLR encoder: counts (U, T), mask (U,) -> embedding (U, D)")


def readout_graph(
    n: NDArray[np.float64],
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> onnx.ModelProto:
    """A predictor as a graph: features (U, F) f32, exposure (U,) f32 -> logits (U, C) f32, see `predictor.Predictor`.

    weight (K, C, F) and bias (K, C) act on (x - mean) / scale, mean and scale (F,). Log-probabilities at the exposures
    `n` (K,), ascending, are interpolated linearly in log n between them. Raises ExportError for shapes that do not fit
    and for values that are not finite.
    """
    knots, classes, dim = _readout_shape(n, weight, bias, mean, scale)
    rise, fall = _hats(np.log(n))
    constants: dict[str, NDArray[np.generic]] = {
        "weight": weight.reshape(-1, dim).T.astype(np.float32),
        "bias": bias.reshape(-1).astype(np.float32),
        "mean": mean.astype(np.float32),
        "scale": scale.astype(np.float32),
        "by_knot": np.array([-1, knots, classes], np.int64),
        "least": np.array(np.log(LEAST_PROBABILITY), np.float32),
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.float32),
        "axis_1": np.array([1], np.int64),
        "axis_2": np.array([2], np.int64),
        "rise": rise[0],
        "rise_from": rise[1],
        "fall": fall[0],
        "fall_from": fall[1],
    }
    steps = [
        ("Max", ["exposure", "one"], "at_least_one"),
        ("Log", ["at_least_one"], "log_exposure"),
        ("Unsqueeze", ["log_exposure", "axis_1"], "at"),
        ("Mul", ["at", "rise"], "risen"),
        ("Add", ["risen", "rise_from"], "left"),
        ("Mul", ["at", "fall"], "fallen"),
        ("Add", ["fallen", "fall_from"], "right"),
        ("Min", ["left", "right"], "lower"),
        ("Clip", ["lower", "zero", "one"], "shares"),
        ("Unsqueeze", ["shares", "axis_2"], "share_of_knot"),
        ("Sub", ["features", "mean"], "centred"),
        ("Div", ["centred", "scale"], "standardised"),
        ("MatMul", ["standardised", "weight"], "scores"),
        ("Add", ["scores", "bias"], "all_logits"),
        ("Reshape", ["all_logits", "by_knot"], "knot_logits"),
        ("LogSoftmax", ["knot_logits"], "all_log_probabilities"),
        ("Max", ["all_log_probabilities", "least"], "log_probabilities"),
        ("Mul", ["log_probabilities", "share_of_knot"], "shared"),
        ("ReduceSum", ["shared", "axis_1"], "logits"),
    ]
    attributes: dict[str, dict[str, Any]] = {
        "LogSoftmax": {"axis": 2},
        "ReduceSum": {"keepdims": 0},
    }
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **attributes.get(kind, {})) for kind, inputs, output in steps],
        "readout",
        [_tensor("features", ["units", dim]), _tensor("exposure", ["units"])],
        [_tensor("logits", ["units", classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return _finish(graph, "Linear readouts: features (U, F), exposure (U,) -> logits (U, C)")


def _hats(at: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lines (2, K), slope and offset, that rise to 1 at each knot `at` (K,) and fall from it; level beyond the ends."""
    steps = np.diff(at)
    rise = np.stack([np.append(0, 1 / steps), np.append(1, -at[:-1] / steps)])
    fall = np.stack([np.append(-1 / steps, 0), np.append(at[1:] / steps, 1)])
    return rise.astype(np.float32), fall.astype(np.float32)


def require_symbolic_units(model: onnx.ModelProto) -> None:
    """Raise ExportError unless the first dimension of every input and output is one and the same symbol."""
    values = [*model.graph.input, *model.graph.output]
    symbols = {value.type.tensor_type.shape.dim[0].dim_param for value in values}
    if len(symbols) != 1 or "" in symbols:
        names = ", ".join(f"{value.name}: {value.type.tensor_type.shape.dim[0]}".strip() for value in values)
        raise ExportError(f"graph: the unit dimension must be one symbol on every input and output, found {names}")


def _readout_shape(
    n: NDArray[np.float64],
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> tuple[int, int, int]:
    shapes = (weight.shape[:1], weight.shape[:2], weight.shape[2:], weight.shape[2:])
    if weight.ndim != 3 or shapes != (n.shape, bias.shape, mean.shape, scale.shape):
        raise ExportError(
            f"readout: n {n.shape}, weight {weight.shape}, bias {bias.shape}, mean {mean.shape}, scale {scale.shape} "
            "do not fit: expected (K,), (K, C, F), (K, C), (F,), (F,)"
        )
    for name, value in {"n": n, "weight": weight, "bias": bias, "mean": mean, "scale": scale}.items():
        if not np.isfinite(value).all():
            raise ExportError(f"readout.{name}: holds NaN or infinity; fit the readout again on finite features")
    if not (scale > 0).all():
        raise ExportError("readout.scale: must be positive for every feature; a constant one has scale 1")
    if n[0] < 1 or not (np.diff(n) > 0).all():
        raise ExportError(f"readout.n: {n.tolist()} must ascend from at least 1")
    knots, classes, dim = weight.shape
    return knots, classes, dim


def _tensor(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _finish(graph: onnx.GraphProto, description: str) -> onnx.ModelProto:
    """A checked model of this graph without anything that a build machine leaves behind."""
    del graph.metadata_props[:], graph.value_info[:]
    graph.doc_string = ""
    for entry in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del entry.metadata_props[:]
        entry.doc_string = ""
    model = helper.make_model(
        graph,
        producer_name=PRODUCER,
        doc_string=description,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress notes and its warnings about optional packages say nothing about the graph."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
