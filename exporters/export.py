"""Writing a bundle: graphs, sample, card and manifest in one directory that is there whole or not at all.

The same weights give the same bytes on the same machine: nothing that is written holds a time or a path.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript
import torch
from pydantic import ValidationError

from exporters.card import model_card
from exporters.graphs import ExportError, encoder_graph, readout_graph
from exporters.parity import MAX_ABS, MIN_CASES, MIN_COSINE, check_encoder, optimised_session
from nuclr_stream import __version__
from nuclr_stream.bundle.manifest import (
    FORMAT_VERSION,
    Manifest,
    MembershipPart,
    NormaliserPart,
    RulesPart,
    TrainedOn,
    WindowPart,
    load_bundle,
    manifest_digest,
)
from nuclr_stream.prediction.out_of_distribution import OutOfDistribution
from nuclr_stream.windows.binning import Float32Array, WindowRules, WindowSpec, active_units
from offline_training.model.encoder import Encoder
from offline_training.readouts.predictor import Predictor
from offline_training.readouts.task_model import TaskModel

MAX_UNITS = 1024
"""Active units that an exported encoder is checked for, and that the daemon may therefore give it."""

SAMPLE_UNITS = 24
_NEAR_TIE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that a bundle is made of. `training` and `evaluation` are plain JSON values for the manifest and the card."""

    name: str
    encoder: Encoder
    spec: WindowSpec
    rules: WindowRules
    tasks: dict[str, TaskModel]
    trained_on: TrainedOn
    training: dict[str, Any]
    evaluation: dict[str, Any]
    membership: MembershipPart | None = None
    out_of_distribution: OutOfDistribution | None = None
    max_units: int = MAX_UNITS


def write_bundle(contents: Contents, folder: Path) -> dict[str, float]:
    """Write the bundle to `folder`, replacing an older bundle there, and return the parity figures.

    Raises ExportError when a graph is beyond the parity bar, when the parts do not fit together, or when `folder` is
    something else than a bundle.
    """
    if folder.exists() and not (folder / "manifest.json").is_file():
        raise ExportError(f"{folder}: exists and is no bundle; give another --out")
    files, parity = _graphs(contents)
    files["sample.npz"] = _sample(contents)
    if contents.out_of_distribution is not None:
        files["out_of_distribution.npz"] = _archive(contents.out_of_distribution.arrays())
    manifest = _manifest(contents)
    files["MODEL_CARD.md"] = model_card(manifest).encode()
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    listed = _stated(manifest.model_copy(update={"files": hashes}).model_dump(mode="json"))
    listed["window"] = _stated(listed["window"])
    content = json.loads(json.dumps(listed))  # as whoever reads it will see it
    content["digest"] = manifest_digest(content)
    files["manifest.json"] = (json.dumps(content, indent=1) + "\n").encode()
    with _whole_or_absent(folder) as temporary:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        load_bundle(temporary)
    return parity


def _stated(part: dict[str, Any]) -> dict[str, Any]:
    """What a part of the manifest says: without what it leaves open, so that earlier releases read it too."""
    return {key: value for key, value in part.items() if value is not None}


def _graphs(contents: Contents) -> tuple[dict[str, bytes], dict[str, float]]:
    encoder = encoder_graph(contents.encoder).SerializeToString(deterministic=True)
    parity = check_encoder(contents.encoder, encoder, max_units=contents.max_units).as_dict()
    files = {"encoder.onnx": encoder}
    for task, model in contents.tasks.items():
        part = model.part(task)
        for name in part.predictors:
            file, predictor = part.file_of(name), model.predictors[name]
            files[file] = readout_graph(**vars(predictor)).SerializeToString(deterministic=True)
            parity[f"logits_{task}_{name}_max"] = _check_readout(file, predictor, files[file])
    return files, parity


def _check_readout(file: str, predictor: Predictor, graph: bytes) -> float:
    """Return the largest difference of logits over random features of all exposures, in units of the largest winning
    logit."""
    rng = np.random.default_rng(0)
    exposure = np.exp(rng.uniform(-0.5, np.log(2 * predictor.n[-1]), 1024)).astype(np.float32)
    features = _typical_features(predictor, len(exposure), rng)
    found = optimised_session(graph).run(["logits"], {"features": features, "exposure": exposure})[0]
    expected = predictor.logits(features, exposure)
    scale = max(1.0, float(np.abs(expected.max(axis=1)).max()))
    worst = float(np.abs(np.exp(found) - np.exp(expected)).max())
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > _NEAR_TIE * scale
    agree = found.argmax(axis=1) == expected.argmax(axis=1)
    if not worst <= MAX_ABS or not agree[clear].all():
        raise ExportError(f"{file}: probabilities differ by {worst:g}; the bar is {MAX_ABS:g}")
    return worst


def _typical_features(predictor: Predictor, rows: int, rng: np.random.Generator) -> Float32Array:
    noise = rng.standard_normal((rows, len(predictor.mean)))
    typical: Float32Array = (predictor.mean + noise * predictor.scale).astype(np.float32)
    return typical


def sample_counts(spec: WindowSpec, seed: int = 0) -> Float32Array:
    """Return a synthetic window (U, T): gamma-distributed rates around 5 Hz, every sixth unit silent; traces: noise."""
    rng = np.random.default_rng(seed)
    shape = (SAMPLE_UNITS, spec.bins)
    if spec.input_kind == "traces":
        return rng.normal(0.1, 0.4, shape).astype(np.float32)
    rates_hz = rng.gamma(1.0, 5.0, (SAMPLE_UNITS, 1))
    counts = rng.poisson(rates_hz / float(spec.bins_per_second), shape).astype(np.float32)
    counts[::6] = 0.0
    return counts


def _sample(contents: Contents) -> bytes:
    counts = sample_counts(contents.spec)
    mask = active_units(counts, contents.spec.input_kind)
    embedding = _embed(contents.encoder, counts[mask])
    arrays: dict[str, Any] = {"counts": counts, "mask": mask, "embedding": embedding}
    once = np.ones(SAMPLE_UNITS, dtype=np.float32)
    for task, model in contents.tasks.items():
        part = model.part(task)
        for name in part.predictors:
            predictor, key = model.predictors[name], f"features_{name}"
            if key not in arrays:  # one sample a feature set, whichever task it comes from
                arrays[key] = _typical_features(predictor, SAMPLE_UNITS, np.random.default_rng(0))
            arrays[part.file_of(name)] = predictor.logits(arrays[key], once)
    return _archive(arrays)


def _archive(arrays: dict[str, np.ndarray[Any, Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _embed(encoder: Encoder, counts: Float32Array) -> Float32Array:
    was_training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    with torch.inference_mode():
        present = torch.ones(len(counts), dtype=torch.bool, device=device)
        embedding: Float32Array = encoder(torch.from_numpy(counts).to(device), present).cpu().numpy()
    encoder.train(was_training)
    return embedding


def _manifest(contents: Contents) -> Manifest:
    spec = contents.spec
    try:
        return Manifest(
            format_version=FORMAT_VERSION,
            name=contents.name,
            window=WindowPart(
                bins_per_second=str(spec.bins_per_second),
                bins_per_patch=spec.bins_per_patch,
                patches=spec.patches,
                hop_bins=spec.hop_bins,
                input_kind=spec.input_kind,
                normaliser=NormaliserPart(**asdict(spec.normaliser)) if spec.normaliser else None,
            ),
            rules=RulesPart(
                active_units_only=contents.spec.input_kind == "spikes",
                one_probe_one_population=True,
                cut_masks=True,
                **asdict(contents.rules),
            ),
            membership=contents.membership,
            embedding_dim=contents.encoder.config.dim,
            max_units=contents.max_units,
            parameters=sum(parameter.numel() for parameter in contents.encoder.parameters()),
            tasks=tuple(model.part(name) for name, model in contents.tasks.items()),
            trained_on=contents.trained_on,
            training={**contents.training, "parity_bar": _PARITY_BAR},
            evaluation=contents.evaluation,
            versions=_versions(),
            files={},
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise ExportError(f"manifest: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


# The figures themselves may move in the last bits from run to run; the bar that they passed does not.
_PARITY_BAR = {"max_abs": MAX_ABS, "min_cosine": MIN_COSINE, "cases": MIN_CASES}


def _versions() -> dict[str, str]:
    return {
        "nuclr_stream": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxscript": onnxscript.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }


@contextmanager
def _whole_or_absent(folder: Path) -> Iterator[Path]:
    """Give a temporary directory beside `folder` that takes its place at the end, or vanishes on an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if folder.exists():
            folder.rename(temporary / "replaced")
            try:
                temporary.rename(folder)
            except OSError:
                (temporary / "replaced").rename(folder)
                raise
            shutil.rmtree(folder / "replaced")
        else:
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
