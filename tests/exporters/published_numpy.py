"""The published encoder once more, in float64 numpy, written from its description alone: what an import is tested by.

Names and order of modules are those of the files of either code base; nothing here knows the torch encoder.
Shapes: U units, P patches, B bins per patch, D embedding, H heads, K head size.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[np.float64]
Weights = Mapping[str, NDArray[np.floating]]

# Where attention over time, its feed-forward, attention across units and its feed-forward stand in a block.
ORDER = {"nuclr": (0, 1, 2, 3), "brainwidebench": (2, 3, 0, 1)}


def embed(weights: Weights, counts: Array, *, layout: str, heads: int) -> Array:
    """Embeddings (U, D) of one population's counts (U, P * B), all units active."""
    w = {name.removeprefix("model."): value.astype(np.float64) for name, value in weights.items()}
    bins = w["read_in.weight"].shape[1]
    x = counts.reshape(len(counts), -1, bins) @ w["read_in.weight"].T + w["read_in.bias"]  # (U, P, D)
    omega = w["rotary_emb.omega"]
    for i in range(_blocks(w, "t_blocks")):
        x = x + _along_time(w, f"t_blocks.{i}.0", x, omega, heads)
        x = x + _feed_forward(w, f"t_blocks.{i}.1", x)
    time, time_ffn, space, space_ffn = ORDER[layout]
    for i in range(_blocks(w, "st_blocks")):
        x = x + _across_units(w, f"st_blocks.{i}.{space}", x, heads)
        x = x + _feed_forward(w, f"st_blocks.{i}.{space_ffn}", x)
        x = x + _along_time(w, f"st_blocks.{i}.{time}", x, omega, heads)
        x = x + _feed_forward(w, f"st_blocks.{i}.{time_ffn}", x)
    return x.mean(axis=1)


def _blocks(w: Mapping[str, Array], kind: str) -> int:
    return len({name.split(".")[1] for name in w if name.startswith(f"{kind}.")})


def _norm(w: Mapping[str, Array], name: str, x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred / spread * w[f"{name}.norm.weight"] + w[f"{name}.norm.bias"]


def _linear(w: Mapping[str, Array], name: str, x: Array) -> Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _heads(w: Mapping[str, Array], name: str, x: Array, heads: int) -> list[Array]:
    """Query, key and value (H, ..., K) of tokens (..., D)."""
    parts = np.split(_linear(w, f"{name}.to_qkv", _norm(w, name, x)), 3, axis=-1)
    return [np.moveaxis(part.reshape(*part.shape[:-1], heads, -1), -2, 0) for part in parts]


def _attend(query: Array, key: Array, value: Array) -> Array:
    """Softmax attention along the last but one axis."""
    scores = query @ np.swapaxes(key, -1, -2) / np.sqrt(query.shape[-1])
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True) @ value


def _joined(out: Array) -> Array:
    out = np.moveaxis(out, 0, -2)
    return out.reshape(*out.shape[:-2], -1)


def _along_time(w: Mapping[str, Array], name: str, x: Array, omega: Array, heads: int) -> Array:
    """Queries, keys and values turn with their patch, the output turns back; pairs of neighbouring channels."""
    angle = np.arange(x.shape[1])[:, None] * omega
    query, key, value = (_turned(part, angle) for part in _heads(w, name, x, heads))  # (H, U, P, K)
    return _linear(w, f"{name}.to_out", _joined(_turned(_attend(query, key, value), -angle)))


def _turned(x: Array, angle: Array) -> Array:
    pair = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([pair.real, pair.imag], axis=-1).reshape(x.shape)


def _across_units(w: Mapping[str, Array], name: str, x: Array, heads: int) -> Array:
    """Patch by patch, without positions."""
    out = _joined(_attend(*_heads(w, name, x.swapaxes(0, 1), heads)))
    return _linear(w, f"{name}.to_out", out).swapaxes(0, 1)


def _feed_forward(w: Mapping[str, Array], name: str, x: Array) -> Array:
    value, gate = np.split(_linear(w, f"{name}.in_proj", _norm(w, name, x)), 2, axis=-1)
    return _linear(w, f"{name}.out_proj", value * gate * (1 + erf(gate / np.sqrt(2))) / 2)
