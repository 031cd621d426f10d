"""Encoder and readouts of a bundle on ONNX Runtime: provider choice, warm-up, padding to a few unit counts.

Sessions are made from the very bytes that were hashed. A graph that keeps data in other files is refused, and so is one
with an operator of an unknown domain, for no library of custom operators is ever registered.

On one machine the same window gives bitwise the same result, whatever was computed before. For another padded number of
units, or on another machine, kernels may add up in another order, and results may differ in the last bits.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from nuclr_stream.bundle.manifest import Bundle, TaskPart
from nuclr_stream.errors import BundleError, NonFiniteError, ProviderError
from nuclr_stream.features.accumulator import FeatureSet, FeatureSnapshot, feature_count
from nuclr_stream.windows.binning import BoolArray, Float32Array, active_units

Provider = Literal["auto", "cpu", "cuda"]

SAMPLE_BAR = 1e-4
"""Largest difference between a bundle's sample and what this machine computes from it."""

_WARM_RUNS = 2
_ERRORS_ONLY, _FATAL_ONLY = 3, 4
_CUDA = "CUDAExecutionProvider"
# TF32 keeps 10 bits of the mantissa, too few for the parity bar.
_CUDA_OPTIONS = {"use_tf32": "0"}
# ONNX Runtime's exceptions have no root of their own.
_LOAD_ERRORS = (
    ort_state.EPFail,
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NoSuchFile,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)

log = logging.getLogger(__name__)


class Model:
    """The graphs of one bundle, ready to run.

    `provider` is what the encoder really runs on ("cpu" or "cuda"), `provider_note` why it is not what one might have
    hoped for, or "". `threads` are the encoder's threads, by default all cores but one. Raises BundleError when a graph
    cannot be loaded or differs from the manifest, ProviderError when "cuda" is asked for and not really there.
    """

    def __init__(self, bundle: Bundle, *, provider: Provider = "auto", threads: int | None = None) -> None:
        self.bundle_id = bundle.bundle_id
        self.manifest = bundle.manifest
        self.threads = threads or max(1, _cores() - 1)
        self._tasks = {task.name: task for task in bundle.manifest.tasks}
        self.provider, self.provider_note, self._encoder = _encoder_session(bundle, provider, self.threads)
        self.out_of_distribution = bundle.out_of_distribution
        self._readouts: dict[tuple[str, FeatureSet], ort.InferenceSession] = {}
        _check_encoder(self._encoder, bundle)
        for task in self._tasks.values():
            for predictor in task.predictors:
                name = task.file_of(predictor)
                session = _cpu_session(bundle.files[name], name, 1)
                _check_readout(session, task, name, feature_count(predictor, bundle.manifest.embedding_dim))
                self._readouts[task.name, predictor] = session

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks in the manifest's order."""
        return tuple(self._tasks)

    def task(self, name: str) -> TaskPart:
        """Return what the manifest says of a task."""
        return self._tasks[name]

    def embed(self, counts: Float32Array, active: BoolArray) -> Float32Array:
        """Return the embeddings (U_active, D) of the active units of one window, in their order.

        `counts` (U, T), `active` (U,): other rows never reach the encoder. Raises NonFiniteError when the encoder
        returns NaN or infinity, BundleError when there are more active units than the bundle was checked for.
        """
        rows = counts[active]
        units = len(rows)
        if units > self.manifest.max_units:
            raise BundleError(f"{units} active units: bundle {self.bundle_id} takes at most {self.manifest.max_units}")
        if not units:
            return np.zeros((0, self.manifest.embedding_dim), dtype=np.float32)
        size = self._bucket(units)
        feed = {"counts": _padded(rows, size), "mask": np.arange(size) < units}
        return _finite(self._encoder.run(["embedding"], feed)[0][:units], "encoder.onnx")

    def readout(self, task: str, predictor: FeatureSet, features: Float32Array, exposure: Float32Array) -> Float32Array:
        """Return the logits (U, C) of a predictor for its features (U, F) at exposure (U,). Raises NonFiniteError."""
        units = len(features)
        if not units:
            return np.zeros((0, len(self._tasks[task].classes)), dtype=np.float32)
        size = self._bucket(units)
        feed = {"features": _padded(features, size), "exposure": _padded(exposure, size)}
        logits = self._readouts[task, predictor].run(["logits"], feed)[0][:units]
        return _finite(logits, self._tasks[task].file_of(predictor))

    def logits(self, task: str, snapshot: FeatureSnapshot) -> dict[FeatureSet, Float32Array]:
        """Return the logits (U, C) of every predictor of a task for the units of `snapshot`. Raises NonFiniteError."""
        return {
            name: self.readout(task, name, snapshot.features[name], snapshot.exposure_of({name}))
            for name in self._tasks[task].predictors
        }

    def warm_up(self, units: int) -> None:
        """Run everything twice with `units` units, so that the first real window finds memory and kernels ready."""
        manifest = self.manifest
        counts = np.ones((units, manifest.spec.bins), dtype=np.float32)
        for _ in range(_WARM_RUNS):
            self.embed(counts, np.ones(units, dtype=bool))
            for task, predictor in self._readouts:
                features = np.zeros((units, feature_count(predictor, manifest.embedding_dim)), dtype=np.float32)
                self.readout(task, predictor, features, np.ones(units, dtype=np.float32))

    def _bucket(self, units: int) -> int:
        return max(units, min(bucket(units), self.manifest.max_units))


def bucket(units: int) -> int:
    """Return the padded number of units: few different shapes, at most 12.5 % of waste above 128 units."""
    step = max(16, (1 << units.bit_length()) // 16)
    return -(-units // step) * step


def check_bundle(bundle: Bundle) -> dict[str, float]:
    """Replay the sample of a bundle on the CPU and return the largest absolute differences per output.

    Embeddings must agree within SAMPLE_BAR, logits within SAMPLE_BAR times the largest winning logit (at least 1).
    Raises BundleError when they do not, or when the sample does not fit the manifest.
    """
    sample = bundle.sample
    manifest = bundle.manifest
    if not np.array_equal(sample.mask, active_units(sample.counts, manifest.window.input_kind)):
        raise BundleError("sample.npz: mask does not name the active units; export the bundle again")
    model = Model(bundle, provider="cpu")
    found = {"embedding": _difference(model.embed(sample.counts, sample.mask), sample.embedding, "embedding", 1.0)}
    for task in manifest.tasks:
        for predictor in task.predictors:
            features, expected = sample.features[predictor], sample.logits[task.file_of(predictor)]
            scale = max(1.0, float(np.abs(expected.max(axis=1)).max()))
            logits = model.readout(task.name, predictor, features, np.ones(len(features), dtype=np.float32))
            name = task.file_of(predictor).removeprefix("readout_").removesuffix(".onnx")
            found[f"logits_{name}"] = _difference(logits, expected, name, scale)
    return found


def _difference(found: Float32Array, expected: Float32Array, name: str, scale: float) -> float:
    largest = float(np.abs(found - expected).max())
    if not largest <= SAMPLE_BAR * scale:
        raise BundleError(f"sample.npz: {name} differs by {largest:g}, more than {SAMPLE_BAR * scale:g} allowed")
    return largest


def _padded(rows: Float32Array, size: int) -> Float32Array:
    padded = np.zeros((size, *rows.shape[1:]), dtype=np.float32)
    padded[: len(rows)] = rows
    return padded


def _finite(values: Float32Array, graph: str) -> Float32Array:
    bad = np.count_nonzero(~np.isfinite(values).all(axis=1))
    if bad:
        raise NonFiniteError(f"{graph}: NaN or infinite output for {bad} of {len(values)} units")
    return values


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _encoder_session(bundle: Bundle, provider: Provider, threads: int) -> tuple[str, str, ort.InferenceSession]:
    """Return where the encoder really runs, why not elsewhere, and its session."""
    note = ""
    if provider != "cpu":
        note = _why_no_cuda_device()
        session = None if note else _cuda_session(bundle.files["encoder.onnx"], threads)
        if session is not None:
            return "cuda", "", session
        note = note or "ONNX Runtime could not load CUDA; try: pip install 'onnxruntime-gpu[cuda,cudnn]'"
    if provider == "cuda":
        raise ProviderError(
            f"device cuda is not usable: {note}. Remedy: device = 'cpu', or 'auto' to take what is there"
        )
    return "cpu", note, _cpu_session(bundle.files["encoder.onnx"], "encoder.onnx", threads)


def _why_no_cuda_device() -> str:
    """Return why there is no CUDA device, or "". ONNX Runtime lists CUDA wherever its GPU package is installed."""
    if _CUDA not in ort.get_available_providers():
        return "this onnxruntime package is built without CUDA"
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "no NVIDIA driver on this machine"
    devices = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(devices)) or not devices.value:
        return "the NVIDIA driver finds no usable device"
    return ""


def _cuda_session(graph: bytes, threads: int) -> ort.InferenceSession | None:
    """Return a session that really runs on CUDA, or None. ONNX Runtime would fall back without an error."""
    options = _options(threads)
    options.log_severity_level = _FATAL_ONLY
    options.use_deterministic_compute = True
    ort.set_default_logger_severity(_FATAL_ONLY)
    preload = getattr(ort, "preload_dlls", None)
    if preload:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it cannot find
            preload()
    try:
        session = ort.InferenceSession(graph, options, providers=[(_CUDA, _CUDA_OPTIONS), "CPUExecutionProvider"])
    except _LOAD_ERRORS as error:
        log.warning("CUDA session: %s", error)
        return None
    finally:
        ort.set_default_logger_severity(_ERRORS_ONLY)
    return session if session.get_providers()[0] == _CUDA else None


def _cpu_session(graph: bytes, name: str, threads: int) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(graph, _options(threads), providers=["CPUExecutionProvider"])
    except _LOAD_ERRORS as error:
        raise BundleError(f"{name}: ONNX Runtime cannot load it ({error})") from error


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A pattern is kept for every shape: with changing unit counts memory would grow for ever.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = True
    # Even a graph given as bytes may name other files, looked up from the working directory: let there be none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    options.log_severity_level = _ERRORS_ONLY
    return options


def _check_encoder(session: ort.InferenceSession, bundle: Bundle) -> None:
    manifest = bundle.manifest
    inputs = {"counts": ("tensor(float)", (manifest.spec.bins,)), "mask": ("tensor(bool)", ())}
    _check_ends(session.get_inputs(), inputs, "encoder.onnx: input")
    _check_ends(
        session.get_outputs(), {"embedding": ("tensor(float)", (manifest.embedding_dim,))}, "encoder.onnx: output"
    )


def _check_readout(session: ort.InferenceSession, task: TaskPart, name: str, dim: int) -> None:
    inputs = {"features": ("tensor(float)", (dim,)), "exposure": ("tensor(float)", ())}
    _check_ends(session.get_inputs(), inputs, f"{name}: input")
    _check_ends(session.get_outputs(), {"logits": ("tensor(float)", (len(task.classes),))}, f"{name}: output")


def _check_ends(ends: list[Any], expected: dict[str, tuple[str, tuple[int, ...]]], where: str) -> None:
    """Compare inputs or outputs of a graph with (type, shape after the free unit dimension) by name."""
    found = {end.name: (end.type, end.shape) for end in ends}
    if set(found) != set(expected):
        raise BundleError(f"{where}s are {sorted(found)}; the manifest means {sorted(expected)}")
    for name, (kind, rest) in expected.items():
        found_kind, shape = found[name]
        if found_kind != kind or tuple(shape[1:]) != rest:
            meant = ["units", *rest]
            raise BundleError(f"{where} {name} is {found_kind} {shape}; the manifest means {kind} {meant}")
        if isinstance(shape[0], int):
            raise BundleError(f"{where} {name} takes exactly {shape[0]} units; any number is needed")
