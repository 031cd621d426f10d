"""The NuCLR encoder in plain PyTorch: counts of one population and window in, one embedding per unit out.

The published form (nerdslab/nuclr): patches of bins are tokens, temporal blocks look along one unit's patches,
spatio-temporal blocks first look across the units of the population, patch by patch, then along time again. Module names
are those of the published checkpoints without their `model.` prefix, so that weights load by name.

Shapes: N windows, U units, T bins, P patches, B bins per patch, D embedding, H heads, K head size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

InputKind = Literal["spikes", "traces"]
Layout = Literal["nuclr", "brainwidebench"]
LAYOUTS: tuple[Layout, ...] = ("nuclr", "brainwidebench")

# Large and finite: a row whose keys are all masked then averages them instead of turning into NaN.
MASKED_SCORE = -1e9


@dataclass(frozen=True)
class EncoderConfig:
    """Every size of the encoder. The defaults are the published model for spikes (10 s of 20 ms bins).

    `ffn_hidden` is the width of the value (the gate has as many, in_proj gives both); `rope_ratio` the share of every head
    that is rotated; `rope_max_period_factor` times `patches` the longest period, in patches.
    """

    input_kind: InputKind = "spikes"
    bins_per_patch: int = 50
    patches: int = 10
    dim: int = 256
    heads: int = 4
    head_dim: int = 64
    ffn_hidden: int = 1024
    temporal_blocks: int = 2
    spatiotemporal_blocks: int = 2
    dropout: float = 0.2
    rope_ratio: float = 0.5
    rope_max_period_factor: float = 8.0

    def __post_init__(self) -> None:
        for name in ("bins_per_patch", "patches", "dim", "heads", "head_dim", "ffn_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"encoder.{name} = {getattr(self, name)}: must be at least 1")
        if self.head_dim % 2:
            raise ValueError(f"encoder.head_dim = {self.head_dim}: must be even, rotary positions turn pairs")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"encoder.dropout = {self.dropout}: must lie in [0, 1)")

    @property
    def bins(self) -> int:
        """T, the bins of one window."""
        return self.patches * self.bins_per_patch


class RotaryAngles(nn.Module):
    """Angular speeds of the rotary position code, radians per patch, one for every pair of a head's channels."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        pairs = config.head_dim // 2
        turning = round(pairs * config.rope_ratio)
        longest = math.log10(config.rope_max_period_factor * config.patches)
        omega = torch.zeros(pairs)
        omega[:turning] = 2 * math.pi / torch.logspace(0, longest, turning)
        self.register_buffer("omega", omega)

    def forward(self, patches: int) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine for `patches` positions, both (P, K), each pair's value standing twice."""
        angles = torch.arange(patches, device=self.omega.device)[:, None] * self.omega
        sine = angles.sin()
        return angles.cos().repeat_interleave(2, dim=-1), torch.stack((-sine, sine), dim=-1).flatten(-2)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn interleaved channel pairs of x (..., K) by the angles behind `cosine` and the signed `sine`."""
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return x * cosine + swapped * sine


class Attention(nn.Module):
    """Pre-norm multi-head self-attention over the last but one axis of (..., L, D); dropout on what it returns."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.scale = config.head_dim**-0.5
        self.norm = nn.LayerNorm(config.dim)
        self.to_qkv = nn.Linear(config.dim, 3 * inner)
        self.to_out = nn.Linear(inner, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values of tokens (..., D) as (..., 3, H, K)."""
        return self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Softmax attention over (..., L, K); `bias` is added to the scores."""
        scores = (query * self.scale) @ key.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        return scores.softmax(dim=-1) @ value

    def merge(self, heads: Tensor) -> Tensor:
        """(..., H, K) of every token back to (..., D)."""
        return self.dropout(self.to_out(heads.flatten(-2)))


class TemporalAttention(Attention):
    """Attention along the patches of each unit. Values are rotated too and the output is rotated back."""

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """x (N, U, P, D); cosine, sine (P, K)."""
        qkv = rotate(self.project(x), cosine[:, None, None], sine[:, None, None])
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
        out = self.attend(query, key, value, None).transpose(-2, -3)
        return self.merge(rotate(out, cosine[:, None], -sine[:, None]))


class SpatialAttention(Attention):
    """Attention across the units of one population, separately for every patch, without a position code."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x (N, U, P, D); bias (N, 1, 1, 1, U) is 0 at real units and very low at padding."""
        query, key, value = self.project(x).permute(3, 0, 2, 4, 1, 5).unbind(0)
        return self.merge(self.attend(query, key, value, bias).permute(0, 3, 1, 2, 4))


class FeedForward(nn.Module):
    """Pre-norm gated feed-forward: value * GELU(gate), exact (erf) GELU."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.in_proj = nn.Linear(config.dim, 2 * config.ffn_hidden)
        self.out_proj = nn.Linear(config.ffn_hidden, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        value, gate = self.in_proj(self.norm(x)).chunk(2, dim=-1)
        return self.dropout(self.out_proj(self.dropout(value * functional.gelu(gate))))


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
            nn.ModuleList((TemporalAttention(config), FeedForward(config), SpatialAttention(config), FeedForward(config)))
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
        return self._blocks(self.read_in(patches), mask).mean(dim=2).masked_fill(absent, 0.0)

    def _blocks(self, x: Tensor, mask: Tensor) -> Tensor:
        cosine, sine = self.rotary_emb(self.config.patches)
        bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, MASKED_SCORE)[:, None, None, None]
        for attention, feed_forward in self.t_blocks:
            x = x + attention(x, cosine, sine)
            x = x + feed_forward(x)
        for temporal, temporal_feed_forward, spatial, spatial_feed_forward in self.st_blocks:
            x = x + spatial(x, bias)
            x = x + spatial_feed_forward(x)
            x = x + temporal(x, cosine, sine)
            x = x + temporal_feed_forward(x)
        return x


def load_layout(state_dict: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Encoder weights of a published checkpoint under this module's names.

    Takes the entries named `model.*` (or all, where none is) and, for "brainwidebench", swaps the temporal and spatial
    pairs of each spatio-temporal block: both layouts have identical shapes, so only the caller can know which it is.
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
