"""Checkpoints as either public code base leaves them, with random weights of small sizes."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tests.exporters.published_numpy import embed

DIM, HEADS, HEAD_DIM, FFN, BINS = 24, 2, 8, 20, 50


def weights_of(patches: int, blocks: int, *, bins: int = BINS, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """A state dict: attention and feed-forward alternate in every block, whatever they are for."""
    rng = np.random.default_rng(seed)

    def linear(name: str, rows: int, columns: int) -> dict[str, NDArray[np.float64]]:
        return {
            f"{name}.weight": rng.normal(0, columns**-0.5, (rows, columns)),
            f"{name}.bias": rng.normal(0, 0.1, rows),
        }

    def norm(name: str) -> dict[str, NDArray[np.float64]]:
        return {f"{name}.norm.weight": rng.normal(1, 0.1, DIM), f"{name}.norm.bias": rng.normal(0, 0.1, DIM)}

    omega = np.zeros(HEAD_DIM // 2)
    omega[: HEAD_DIM // 4] = 2 * np.pi / np.geomspace(1, 8 * patches, HEAD_DIM // 4)
    found: dict[str, NDArray[np.float64]] = {"rotary_emb.omega": omega, **linear("read_in", DIM, bins)}
    for block in ["t_blocks.0", "t_blocks.1", *(f"st_blocks.{i}" for i in range(blocks))]:
        for place in range(0, 2 if block.startswith("t_") else 4, 2):
            attention, feed_forward = f"{block}.{place}", f"{block}.{place + 1}"
            found |= norm(attention) | linear(f"{attention}.to_qkv", 3 * HEADS * HEAD_DIM, DIM)
            found |= linear(f"{attention}.to_out", DIM, HEADS * HEAD_DIM)
            found |= norm(feed_forward) | linear(f"{feed_forward}.in_proj", 2 * FFN, DIM)
            found |= linear(f"{feed_forward}.out_proj", DIM, FFN)
    return {f"model.{name}": value.astype(np.float32) for name, value in found.items()}


def save_checkpoint(path: Path, weights: dict[str, NDArray[np.float32]], **more: object) -> Path:
    """Pickle it as the training scripts do, with a projector and the arguments of the command line."""
    state = {name: torch.from_numpy(value) for name, value in weights.items()} | {"projector.0.bias": torch.zeros(3)}
    torch.save({"model_state_dict": state, "args": argparse.Namespace(lr=5e-4), **more}, path)
    return path


def spikes(patches: int, units: int = 13, *, bins: int = BINS, seed: int = 0) -> NDArray[np.float32]:
    """Counts (U, T) of a population in which everybody fires."""
    counts = np.random.default_rng(seed).poisson(0.2, (units, patches * bins)).astype(np.float32)
    counts[:, 0] = 1
    return counts


def save_reference(
    path: Path, weights: dict[str, NDArray[np.float32]], counts: NDArray[np.float32], layout: str
) -> Path:
    """What the authors' code would have computed, by way of numpy."""
    np.savez(path, counts=counts, embedding=embed(weights, counts.astype(np.float64), layout=layout, heads=HEADS))
    return path
