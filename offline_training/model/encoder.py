"""The NuCLR encoder in plain PyTorch: counts of one population and window in, one embedding per unit out.

The published form (nerdslab/nuclr): patches of bins are tokens, temporal blocks look along one unit's patches,
spatio-temporal blocks first look across the units of the population, patch by patch, then along time again. Modules are
named as in the published checkpoints, without their `model.` prefix, so that weights load by name.

Shapes: N windows, U units, T bins, P patches, B bins per patch, D embedding, H heads, K head size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclr_stream.windows.binning import InputKind, WindowSpec
from offline_training.config import EncoderSizes

LAYOUTS = ("nuclr", "brainwidebench")
"""The code bases that published checkpoints; they order the modules of a block differently."""

# Large and finite: a row whose keys are all masked then averages them instead of turning into NaN.
MASKED_SCORE = -1e9


@dataclass(frozen=True)
class EncoderConfig(EncoderSizes):
    """The sizes of the encoder and the window that it takes, by default the published one for spikes (10 s of 20 ms
    bins). Raises ValueError naming what cannot be."""

    input_kind: InputKind = "spikes"
    bins_per_patch: int = 50
    patches: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bins_per_patch", "patches"):
            if getattr(self, name) < 1:
                raise ValueError(f"encoder.{name} = {getattr(self, name)}: must be at least 1")

    @classmethod
    def of(cls, sizes: EncoderSizes, spec: WindowSpec) -> EncoderConfig:
        """These sizes for windows of this shape."""
        return cls(
            **asdict(sizes), input_kind=spec.input_kind, bins_per_patch=spec.bins_per_patch, patches=spec.patches
        )

    @property
    def bins(self) -> int:
        """T, the bins of one window."""
        return self.patches * self.bins_per_patch


class RotaryAngles(nn.Module):
    """Angular speeds of the rotary position code, radians per patch, one for every pair of a head's channels."""

    omega: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        pairs = config.head_dim // 2
        turning = round(pairs * config.rope_ratio)
        longest = math.log10(config.rope_max_period_factor * config.patches)
        omega = torch.zeros(pairs)
        omega[:turning] = 2 * math.pi / torch.logspace(0, longest, turning)
        self.register_buffer("omega", omega)

    def forward(self, patches: int) -> Tensor:
        """Cosine and sine (2, P, K/2) of every pair's angle at `patches` positions."""
        angles = torch.arange(patches, device=self.omega.device)[:, None] * self.omega
        return torch.stack((angles.cos(), angles.sin()))


def turn(weight: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the interleaved channel pairs of weight (G, K, D), G stacked heads, for every patch: (P, G * K, D)."""
    cosine, sine = rotation[:, :, None, :, None]
    even, odd = weight[:, 0::2], weight[:, 1::2]
    turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=3)
    return turned.flatten(1, 3)


class Dropout(nn.Module):
    """Dropout that draws one random byte per channel: on a CPU drawing the mask is what costs.

    The rate is rounded to a multiple of 1/256, and what survives is scaled by exactly that."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropped_of_256 = round(rate * 256)

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape, same shape back; the identity in evaluation."""
        if not (self.training and self.dropped_of_256):
            return x
        if x.is_cuda:
            return functional.dropout(x, self.dropped_of_256 / 256)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped_of_256
        return x * (kept * (256 / (256 - self.dropped_of_256))).to(x.dtype)


class Attention(nn.Module):
    """Weights of pre-norm multi-head self-attention, and the softmax over heads (..., L, K)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads, self.head_dim = config.heads, config.head_dim
        self.norm = nn.LayerNorm(config.dim)
        self.to_qkv = nn.Linear(config.dim, 3 * inner)
        self.to_out = nn.Linear(inner, config.dim)
        self.dropout = Dropout(config.dropout)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        """Softmax attention over (..., L, K); `bias` is added to the scores."""
        scores = (query * self.head_dim**-0.5) @ key.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        attended: Tensor = scores.softmax(dim=-1) @ value
        return attended


class TemporalAttention(Attention):
    """Attention along the patches of each unit. Values are rotated like queries and keys, the output is rotated back.

    The rotation of a patch is linear, so it is applied to the weights, once per patch, instead of to every token.
    """

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """x (P, N, U, D); rotation (2, P, K/2)."""
        patches, windows, units, _ = x.shape
        rows = torch.cat((self.to_qkv.weight, self.to_qkv.bias[:, None]), dim=1)
        rows = turn(rows.unflatten(0, (-1, self.head_dim)), rotation)
        qkv = torch.baddbmm(rows[:, None, :, -1], self.norm(x).flatten(1, 2), rows[..., :-1].transpose(1, 2))
        query, key, value = qkv.view(patches, windows * units, 3, self.heads, self.head_dim).permute(2, 1, 3, 0, 4)
        out = self.attend(query, key, value).permute(2, 0, 1, 3).flatten(2)
        back = turn(self.to_out.weight.T.unflatten(0, (self.heads, -1)), rotation)
        joined: Tensor = self.dropout(torch.baddbmm(self.to_out.bias, out, back).unflatten(1, (windows, units)))
        return joined


class SpatialAttention(Attention):
    """Attention across the units of one population, separately for every patch, without a position code."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x (P, N, U, D); bias (N, 1, 1, U) is 0 at real units and very low at padding."""
        qkv = self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, self.head_dim))
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)
        out = self.attend(query, key, value, bias).transpose(2, 3).flatten(-2)
        joined: Tensor = self.dropout(self.to_out(out))
        return joined


class FeedForward(nn.Module):
    """Pre-norm gated feed-forward: value * GELU(gate), exact (erf) GELU."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.in_proj = nn.Linear(config.dim, 2 * config.ffn_hidden)
        self.out_proj = nn.Linear(config.ffn_hidden, config.dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D). Value and gate are two products, which spares joining their gradients."""
        x = self.norm(x)
        value_weight, gate_weight = self.in_proj.weight.chunk(2)
        value_bias, gate_bias = self.in_proj.bias.chunk(2)
        gate = functional.gelu(functional.linear(x, gate_weight, gate_bias))
        hidden = functional.linear(x, value_weight, value_bias) * gate
        out: Tensor = self.dropout(self.out_proj(self.dropout(hidden)))
        return out


class Encoder(nn.Module):
    """Counts or traces of whole populations -> one embedding per unit and window."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.rotary_emb = RotaryAngles(config)
        self.read_in = nn.Linear(config.bins_per_patch, config.dim)
        self.t_blocks = nn.ModuleList(
            nn.ModuleList((TemporalAttention(config), FeedForward(config))) for _ in range(config.temporal_blocks)
        )
        self.st_blocks = nn.ModuleList(
            nn.ModuleList(
                (TemporalAttention(config), FeedForward(config), SpatialAttention(config), FeedForward(config))
            )
            for _ in range(config.spatiotemporal_blocks)
        )

    def forward(self, counts: Tensor, mask: Tensor) -> Tensor:
        """Embed every unit of every population.

        counts: (N, U, T) or, for one population, (U, T), float. mask: (N, U) or (U,), bool, True at real units. Returns
        (N, U, D) or (U, D). What stands in the other rows influences nothing; their embeddings are zero.
        """
        if counts.dim() == 2:
            return self.forward(counts[None], mask[None])[0]
        absent = ~mask[..., None]
        patches = counts.masked_fill(absent, 0.0).unflatten(-1, (self.config.patches, self.config.bins_per_patch))
        # Under autocast the residual stream stays in full precision; that costs nothing measurable.
        tokens = self._blocks(self.read_in(patches.permute(2, 0, 1, 3)).float(), mask)
        return tokens.mean(dim=0).masked_fill(absent, 0.0)

    def _blocks(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens (P, N, U, D), patches first: the units of a patch lie together for the products across units."""
        rotation = self.rotary_emb(self.config.patches)
        bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, MASKED_SCORE)[:, None, None]
        for attention, feed_forward in cast(Iterable[tuple[nn.Module, ...]], self.t_blocks):
            x = x + attention(x, rotation)
            x = x + feed_forward(x)
        for block in cast(Iterable[tuple[nn.Module, ...]], self.st_blocks):
            temporal, temporal_feed_forward, spatial, spatial_feed_forward = block
            x = x + spatial(x, bias)
            x = x + spatial_feed_forward(x)
            x = x + temporal(x, rotation)
            x = x + temporal_feed_forward(x)
        return x


def load_layout(state_dict: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Encoder weights of a published checkpoint under this module's names.

    Takes the entries named `model.*` (or all, where none is) and, for "brainwidebench", swaps the temporal and spatial
    pairs of each spatio-temporal block: both layouts have identical shapes, so the weights do not show which it is.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout = {layout!r}: must be one of {', '.join(LAYOUTS)}")
    prefix = "model." if any(name.startswith("model.") for name in state_dict) else ""
    weights = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    return weights if layout == "nuclr" else {_swap_pair(name): value for name, value in weights.items()}


def _swap_pair(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "st_blocks":
        parts[2] = str((int(parts[2]) + 2) % 4)
    return ".".join(parts)


def infer_config(
    state_dict: Mapping[str, Tensor],
    *,
    input_kind: InputKind = "spikes",
    dropout: float = 0.0,
    patches: int | None = None,
) -> EncoderConfig:
    """Sizes of the encoder whose weights these are (names as `load_layout` returns them).

    Without `patches` their number follows from the longest rotary period, taken as the published 8 times it.
    """
    omega = state_dict["rotary_emb.omega"]
    turning = omega[omega > 0]
    longest_period = 2 * math.pi / turning.min().item()
    patches = patches or round(longest_period / 8)
    dim, bins_per_patch = state_dict["read_in.weight"].shape
    blocks = {tuple(name.split(".")[:2]) for name in state_dict}
    first = "t_blocks.0" if ("t_blocks", "0") in blocks else "st_blocks.0"
    return EncoderConfig(
        input_kind=input_kind,
        bins_per_patch=bins_per_patch,
        patches=patches,
        dim=dim,
        heads=state_dict[f"{first}.0.to_qkv.weight"].shape[0] // (6 * len(omega)),
        head_dim=2 * len(omega),
        ffn_hidden=state_dict[f"{first}.1.out_proj.weight"].shape[1],
        temporal_blocks=sum(kind == "t_blocks" for kind, *_ in blocks),
        spatiotemporal_blocks=sum(kind == "st_blocks" for kind, *_ in blocks),
        dropout=dropout,
        rope_ratio=len(turning) / len(omega),
        rope_max_period_factor=longest_period / patches,
    )
