"""One step of training: weights, optimiser, schedule, and what a batch of view pairs does to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nuclr_stream.errors import NonFiniteError
from offline_training.config import TrainConfig
from offline_training.model.encoder import Encoder, EncoderConfig
from offline_training.model.loss import LossConfig, LossTerms, build_loss
from offline_training.pretraining.distributed import NOTHING, Processes, Share
from offline_training.pretraining.views import Views

ALONE = Processes()


@dataclass
class Training:
    """Everything that changes while training: what a checkpoint holds. `selected`: the weights that validation
    animals chose so far, see `checkpoint_choice`."""

    encoder: Encoder
    loss: nn.Module
    optimiser: torch.optim.AdamW
    step: int = 0
    windows: int = 0
    seconds: float = 0.0
    selected: dict[str, Any] | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All trained weights, the encoder's first."""
        return [*self.encoder.parameters(), *self.loss.parameters()]

    def save(self, path: Path) -> None:
        """Write a checkpoint; it appears whole or not at all."""
        state = {
            "encoder": self.encoder.state_dict(),
            "loss": self.loss.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "windows": self.windows,
            "seconds": self.seconds,
            "selected": self.selected,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        # A rename is all or nothing: a process that dies while writing leaves the checkpoint before.
        temporary = path.with_name(path.name + ".part")
        torch.save(state, temporary)
        temporary.replace(path)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue as if the training had never stopped: the next step is bitwise the same on the same machine."""
        self.encoder.load_state_dict(state["encoder"])
        self.loss.load_state_dict(state["loss"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.windows, self.seconds = state["step"], state["windows"], state["seconds"]
        self.selected = state.get("selected")
        torch.set_rng_state(state["rng"])
        # On other GPUs than before dropout differs; everything else goes on exactly.
        if torch.cuda.is_available() and len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_rng"])


def new_training(config: TrainConfig, device: torch.device) -> Training:
    """Fresh weights from torch's generator, and the optimiser in the published groups."""
    encoder = build_encoder(config).to(device)
    loss = build_loss(config.encoder.dim, _loss_config(config)).to(device)
    if config.training.compile == "encoder":
        encoder.compile(dynamic=True)
    return Training(encoder, loss, build_optimiser([encoder, loss], config))


def build_encoder(config: TrainConfig) -> Encoder:
    """An encoder of the sizes and for the windows that `config` gives, with weights from torch's generator."""
    return Encoder(EncoderConfig.of(config.encoder, config.window.spec))


def build_optimiser(modules: Sequence[nn.Module], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; parameters whose NAME holds 'norm' or 'bias' are not decayed (so the projector's LayerNorm weight is)."""
    named = [pair for module in modules for pair in module.named_parameters()]
    plain = [p for name, p in named if "norm" in name or "bias" in name]
    decayed = [p for name, p in named if not ("norm" in name or "bias" in name)]
    groups = [{"params": decayed, "weight_decay": config.training.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.training.peak_lr, fused=True)


def learning_rate(config: TrainConfig, *, step: int, steps: int, per_epoch: int) -> float:
    """Linear rise over the warm-up, then a cosine to `final_lr_share` of the peak at the last step."""
    settings = config.training
    warmup = min(per_epoch if settings.warmup_steps is None else settings.warmup_steps, steps // 2)
    if step < warmup:
        return settings.peak_lr * (step + 1) / warmup
    fall = (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2
    return settings.peak_lr * (settings.final_lr_share + (1 - settings.final_lr_share) * fall)


def train_step(
    training: Training,
    views: Views | None,
    config: TrainConfig,
    *,
    rate: float,
    autocast: torch.autocast,
    processes: Processes = ALONE,
) -> dict[str, float] | None:
    """One step of the optimiser on one batch, of which `views` is what this process has of it (None: nothing).

    Returns the line of metrics.jsonl for the whole batch; None, with all weights as they were, when no process had a
    pair. Raises NonFiniteError when the loss is not a number.
    """
    for group in training.optimiser.param_groups:
        group["lr"] = rate
    training.optimiser.zero_grad(set_to_none=True)
    share = processes.combine(backward(training, views, autocast), training.parameters)
    if not share.windows:
        return None
    # Clipped apart: a large gradient of the projector does not shorten the encoder's.
    encoder_norm = nn.utils.clip_grad_norm_(training.encoder.parameters(), config.training.clip_norm)
    projector_norm = nn.utils.clip_grad_norm_(training.loss.parameters(), config.training.clip_norm)
    if not math.isfinite(share.loss):
        raise NonFiniteError(f"the loss is {share.loss} at step {training.step}; lower training.peak_lr")
    training.optimiser.step()
    return {
        "step": training.step,
        "loss": share.loss,
        "numerator": share.numerator,
        "denominator": share.denominator,
        "lr": rate,
        "encoder_norm": encoder_norm.item(),
        "projector_norm": projector_norm.item(),
        "windows": share.windows,
        "units": share.units,
    }


def backward(training: Training, views: Views | None, autocast: torch.autocast) -> Share:
    """Leave the gradients of the loss of some pairs, and return what it came to; nothing for None."""
    if views is None:
        return NOTHING
    device = next(training.encoder.parameters()).device
    counts1, counts2, present1, present2 = (torch.from_numpy(v).to(device, non_blocking=True) for v in views[:4])
    training.encoder.train()
    training.loss.train()
    with autocast:
        embeddings = _embed_both(training.encoder, counts1.float(), counts2.float(), present1, present2)
        terms: LossTerms = training.loss(*embeddings, present1, present2)
    terms.total.backward()
    loss, numerator, denominator, weight = (term.item() for term in terms)
    units = int((views.present1 & views.present2).sum())
    return Share(loss, numerator, denominator, weight, len(views.units), units)


def _embed_both(
    encoder: Encoder, counts1: Tensor, counts2: Tensor, present1: Tensor, present2: Tensor
) -> tuple[Tensor, Tensor]:
    """Both views (N, U, T) in one run of the encoder: (N, U, D) each."""
    embeddings = encoder(torch.cat([counts1, counts2]), torch.cat([present1, present2]))
    return embeddings[: len(counts1)], embeddings[len(counts1) :]


def _loss_config(config: TrainConfig) -> LossConfig:
    if config.loss.kind == "vicreg":
        return LossConfig(kind="vicreg")
    return LossConfig(kind="contrastive", temperature=config.loss.temperature, within_view=config.loss.kind)


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether the encoder runs in bf16: as the config sets, or with "auto" where `device` computes in it."""
    if config.training.precision != "auto":
        return config.training.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Elsewhere bf16 is emulated and slow; these instructions make steps faster (docs/performance.md).
    return bool(torch.cpu._is_avx512_bf16_supported())
