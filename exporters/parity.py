"""Does the graph compute what the model computes? The bar that every encoder has to pass before it is exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from exporters.graphs import ExportError, encoder_graph
from offline_training.model.encoder import Encoder

MAX_ABS = 1e-4
MIN_COSINE = 0.999999
MIN_CASES = 200
# Sizes that every check holds: a lone unit, a pair, primes, a full chunk.
FIXED_UNITS = (1, 2, 11, 13, 32)


@dataclass(frozen=True)
class ParityReport:
    """Worst figures over all cases. `padding_max_abs`: the graph against itself without the padding rows."""

    cases: int
    max_units: int
    max_abs: float
    min_cosine: float
    padding_max_abs: float

    def as_dict(self) -> dict[str, float]:
        """The report for a manifest."""
        return asdict(self)


@dataclass(frozen=True)
class Case:
    """One window: counts (U, T) f32 and mask (U,) bool, some real units silent, some rows padding."""

    counts: NDArray[np.float32]
    mask: NDArray[np.bool_]


def optimised_session(graph: bytes) -> onnxruntime.InferenceSession:
    """The graph as it will run: every optimisation on, CPU."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def random_cases(encoder: Encoder, *, cases: int, max_units: int, seed: int) -> list[Case]:
    """`cases` windows of random rates: the fixed sizes and the largest first, then mostly small populations."""
    rng = np.random.default_rng(seed)
    sizes = [units for units in FIXED_UNITS if units <= max_units] + [max_units]
    small = min(max_units, 64)
    sizes += [int(units) for units in rng.integers(1, small + 1, max(0, cases - len(sizes)))]
    return [_case(rng, units, bins=encoder.config.bins, kind=encoder.config.input_kind) for units in sizes]


def _case(rng: np.random.Generator, units: int, *, bins: int, kind: str) -> Case:
    if kind == "spikes":
        rates = rng.gamma(0.7, 0.3, (units, 1))
        counts = rng.poisson(np.broadcast_to(rates, (units, bins))).astype(np.float32)
    else:
        counts = rng.normal(0.1, 0.4, (units, bins)).astype(np.float32)
    counts[rng.random(units) < 0.1] = 0.0
    mask = rng.random(units) >= rng.choice([0.0, 0.3])
    mask[rng.integers(units)] = True
    return Case(counts, mask)


def check_encoder(
    encoder: Encoder, graph: bytes, *, cases: int = MIN_CASES, max_units: int = 512, seed: int = 0
) -> ParityReport:
    """Compare the module with its graph on random windows and the graph with itself unpadded.

    Raises ExportError when any figure is beyond the bar: |difference| <= 1e-4, cosine >= 0.999999.
    """
    session = optimised_session(graph)
    was_training = encoder.training
    encoder.eval()
    worst, cosine, padding = 0.0, 1.0, 0.0
    windows = random_cases(encoder, cases=cases, max_units=max_units, seed=seed)
    for case in windows:
        expected = _embed_torch(encoder, case)
        found = embed_graph(session, case.counts, case.mask)
        if not np.isfinite(found).all():
            raise ExportError(f"parity: the graph returned NaN or infinity for {len(case.mask)} units")
        worst = max(worst, float(np.abs(found - expected).max()))
        cosine = min(cosine, _cosine(found[case.mask], expected[case.mask]))
        alone = embed_graph(session, case.counts[case.mask], np.ones(case.mask.sum(), bool))
        padding = max(padding, float(np.abs(found[case.mask] - alone).max()))
    encoder.train(was_training)
    report = ParityReport(len(windows), max_units, worst, cosine, padding)
    require_parity(report)
    return report


def require_parity(report: ParityReport) -> None:
    """Raise ExportError when the report is beyond the bar, naming the figure."""
    if report.cases < MIN_CASES:
        raise ExportError(f"parity: {report.cases} cases, at least {MIN_CASES} are needed")
    for name in ("max_abs", "padding_max_abs"):
        if not getattr(report, name) <= MAX_ABS:
            raise ExportError(f"parity: {name} = {getattr(report, name):.3g}, the bar is {MAX_ABS:g}; not exported")
    if not report.min_cosine >= MIN_COSINE:
        raise ExportError(f"parity: min_cosine = {report.min_cosine:.8f}, the bar is {MIN_COSINE}; not exported")


def embed_graph(
    session: onnxruntime.InferenceSession, counts: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Embeddings (U, D) of counts (U, T) and mask (U,) through the encoder graph."""
    embedding: NDArray[np.float32] = session.run(["embedding"], {"counts": counts, "mask": mask})[0]
    return embedding


def graph_embedder(encoder: Encoder) -> Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]:
    """Export the encoder and return what maps counts (U, T), mask (U,) to embeddings (U, D) through its graph."""
    session = optimised_session(encoder_graph(encoder).SerializeToString())
    return partial(embed_graph, session)


def _embed_torch(encoder: Encoder, case: Case) -> NDArray[np.float32]:
    device = encoder.read_in.weight.device
    with torch.inference_mode():
        embedding = encoder(torch.from_numpy(case.counts).to(device), torch.from_numpy(case.mask).to(device))
    found: NDArray[np.float32] = embedding.cpu().numpy()
    return found


def _cosine(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    one, other = found.astype(np.float64), expected.astype(np.float64)
    return float(((one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))).min())
