"""Proof against numbers of the published code: encoder, losses and exported graph on one reference file.

A file holds weights under their published names, two views of a few populations and what the published code makes of
them; populations stand one after the other. Shapes: N populations, U units of the largest, M units of all, T bins, D
embedding.
"""

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nuclr_stream.errors import NuclrStreamError
from offline_training.model.encoder import LAYOUTS, Encoder, infer_config, load_layout
from offline_training.model.loss import ContrastiveLoss, LossConfig, WithinView

EMBEDDING_BAR = 1e-5
LOSS_BAR = 1e-5
ONNX_BAR = 1e-4
TEMPERATURE = 0.2
LOSS_NAME = re.compile(r"loss_dcl([01])_full([01])(_scaled)?")
REQUIRED = ("view1", "view2", "view2_units", "embedding1", "embedding2", "population_sizes", "population_sizes2")

# counts (U, T) f32, mask (U,) bool -> embedding (U, D) f32
Embed = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]


class ReferenceFileError(NuclrStreamError):
    """A reference file cannot be read or lacks a field."""


@dataclass(frozen=True)
class ReferenceReport:
    """Largest absolute differences from the published numbers. `layout` is the file's own order of modules."""

    layout: str
    embedding_max_abs: float
    loss_max_abs: float
    onnx_max_abs: float

    @property
    def passed(self) -> bool:
        """Whether every figure is within its bar; NaN is not."""
        return (
            self.embedding_max_abs <= EMBEDDING_BAR and self.loss_max_abs <= LOSS_BAR and self.onnx_max_abs <= ONNX_BAR
        )

    def as_dict(self) -> dict[str, str | float | bool]:
        """What the command prints as JSON."""
        return {
            "embedding_max_abs": self.embedding_max_abs,
            "loss_max_abs": self.loss_max_abs,
            "onnx_max_abs": self.onnx_max_abs,
            "layout": self.layout,
            "passed": self.passed,
        }


@dataclass(frozen=True)
class View:
    """One view as the published code saw it: counts (M, T), sizes (N,), row of each unit in the first view (M,), and
    the embedding (M, D) it came to."""

    counts: NDArray[np.float32]
    sizes: NDArray[np.int64]
    rows: NDArray[np.int64]
    embedding: NDArray[np.float32]


def check_reference(path: Path, embedder: Callable[[Encoder], Embed]) -> ReferenceReport:
    """Run encoder (in both layouts), losses and graph on a reference file.

    `embedder` exports an encoder and returns its graph as a function. A file does not say which layout it has: the one
    that reproduces its embeddings is. Raises ReferenceFileError for what is no reference file.
    """
    arrays = _read(path)
    weights = {name: torch.from_numpy(value) for name, value in arrays.items() if name.startswith("model.")}
    views = _views(arrays)
    layout = min(LAYOUTS, key=lambda layout: _distance(_encoder(load_layout(weights, layout), views[0]), views))
    encoder = _encoder(load_layout(weights, layout), views[0])
    embed = embedder(encoder)
    swapped = _encoder(load_layout(load_layout(weights, "brainwidebench"), _other(layout)), views[0])
    return ReferenceReport(
        layout=layout,
        embedding_max_abs=float(np.max([_distance(encoder, views), _distance(swapped, views)])),
        loss_max_abs=_loss_distance(encoder, views, arrays),
        onnx_max_abs=float(np.max([_graph_distance(embed, view) for view in views])),
    )


def _other(layout: str) -> str:
    """The layout in which the same file reads once its pairs have been swapped."""
    return "brainwidebench" if layout == "nuclr" else "nuclr"


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ReferenceFileError(f"{path}: cannot be read as .npz ({error})") from error
    missing = [name for name in (*REQUIRED, "model.read_in.weight", "projector.0.weight") if name not in arrays]
    if missing or not any(LOSS_NAME.fullmatch(name) for name in arrays):
        raise ReferenceFileError(f"{path}: lacks {', '.join(missing) or 'every loss_dcl*_full* field'}")
    return arrays


def _views(arrays: dict[str, NDArray[Any]]) -> tuple[View, View]:
    rows = arrays["view2_units"]
    every = np.arange(len(arrays["view1"]))
    first = View(arrays["view1"], arrays["population_sizes"], every, arrays["embedding1"])
    return first, View(arrays["view2"][rows], arrays["population_sizes2"], rows, arrays["embedding2"])


def _encoder(weights: dict[str, Tensor], view: View) -> Encoder:
    bins_per_patch = weights["read_in.weight"].shape[1]
    encoder = Encoder(infer_config(weights, patches=view.counts.shape[1] // bins_per_patch))
    encoder.load_state_dict(weights)
    return encoder.eval()


def _padded(values: NDArray[np.float32], sizes: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Rows (M, ...) of consecutive populations as (N, U, ...) with their mask (N, U)."""
    mask = np.arange(sizes.max()) < sizes[:, None]
    padded = np.zeros((*mask.shape, *values.shape[1:]), values.dtype)
    padded[mask] = values
    return torch.from_numpy(padded), torch.from_numpy(mask)


@torch.inference_mode()
def _embed(encoder: Encoder, view: View) -> NDArray[np.float32]:
    counts, mask = _padded(view.counts, view.sizes)
    embedding: NDArray[np.float32] = encoder(counts, mask)[mask].numpy()
    return embedding


def _distance(encoder: Encoder, views: tuple[View, View]) -> float:
    return float(np.max([np.abs(_embed(encoder, view) - view.embedding).max() for view in views]))


@torch.inference_mode()
def _loss_distance(encoder: Encoder, views: tuple[View, View], arrays: dict[str, NDArray[Any]]) -> float:
    first, second = views
    view1, present1 = _padded(_embed(encoder, first), first.sizes)
    found = np.zeros_like(first.embedding)
    found[second.rows] = _embed(encoder, second)
    present = np.zeros(len(found), bool)
    present[second.rows] = True
    view2, _ = _padded(found, first.sizes)
    present2, _ = _padded(present, first.sizes)
    projector = {name: torch.from_numpy(value) for name, value in arrays.items() if name.startswith("projector.")}
    distances = []
    for name in filter(LOSS_NAME.fullmatch, arrays):
        loss = ContrastiveLoss(view1.shape[-1], _loss_config(name))
        loss.load_state_dict(projector)
        distances.append(abs(loss(view1, view2, present1, present2).total.item() - float(arrays[name])))
    return float(np.max(distances))


def _loss_config(name: str) -> LossConfig:
    found = LOSS_NAME.fullmatch(name)
    assert found is not None, name
    decoupled, full, scaled = found.groups()
    within: WithinView = "none" if full == "0" else "scaled" if scaled else "published"
    return LossConfig(temperature=TEMPERATURE, within_view=within, decoupled=decoupled == "1")


def _graph_distance(embed: Embed, view: View) -> float:
    ends = np.cumsum(view.sizes)
    differences = [
        np.abs(embed(view.counts[end - size : end], np.ones(size, bool)) - view.embedding[end - size : end]).max()
        for size, end in zip(view.sizes, ends, strict=True)
    ]
    return float(np.max(differences))
