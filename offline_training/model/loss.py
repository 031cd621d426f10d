"""What pretraining minimises: the contrastive loss between two views of a population, or VICReg.

Both views come in one unit order with a presence mask each: unit i of view 1 is unit i of view 2, and a unit that a
view lacks is absent from its mask. Shapes: N windows, U units, D embedding.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

WithinView = Literal["scaled", "published", "none"]


class LossTerms(NamedTuple):
    """total = numerator + denominator; the numerator pulls the two views of a unit together, the denominator pushes
    units apart. For VICReg: the invariance term, and the variance and covariance terms. `weight`: the matched units
    that the terms are means over, with which means over parts of a batch add up to that of the whole batch."""

    total: Tensor
    numerator: Tensor
    denominator: Tensor
    weight: Tensor


@dataclass(frozen=True)
class LossConfig:
    """Which loss, and its settings.

    `within_view`: what the units of a view's own side do as negatives: "scaled" divides their similarities by the
    temperature like all others, "published" leaves them undivided as the paper's code does, "none" leaves them out.
    `decoupled`: the positive pair leaves the denominator.
    """

    kind: Literal["contrastive", "vicreg"] = "contrastive"
    temperature: float = 0.2
    within_view: WithinView = "scaled"
    decoupled: bool = True
    vicreg_hidden: int = 1024

    def __post_init__(self) -> None:
        if self.kind not in ("contrastive", "vicreg"):
            raise ValueError(f"loss.kind = {self.kind!r}: must be contrastive or vicreg")
        if self.within_view not in ("scaled", "published", "none"):
            raise ValueError(f"loss.within_view = {self.within_view!r}: must be scaled, published or none")
        if self.temperature <= 0:
            raise ValueError(f"loss.temperature = {self.temperature}: must be above 0")


class ContrastiveLoss(nn.Module):
    """Sample-wise contrast: a unit against the other units of the same window, in the other view and in its own."""

    def __init__(self, dim: int, config: LossConfig) -> None:
        super().__init__()
        self.config = config
        self.projector = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, view1: Tensor, view2: Tensor, present1: Tensor, present2: Tensor) -> LossTerms:
        """view1, view2: (N, U, D), one unit order; present1, present2: (N, U) bool. Every matched unit weighs the
        same, so windows weigh by their matched units. A window where a view has a lone unit is left out."""
        x1, x2 = self.projector(view1), self.projector(view2)
        with torch.autocast(view1.device.type, enabled=False):
            return self._contrast(
                functional.normalize(x1.float(), dim=-1), functional.normalize(x2.float(), dim=-1), present1, present2
            )

    def _contrast(self, x1: Tensor, x2: Tensor, present1: Tensor, present2: Tensor) -> LossTerms:
        """Unit vectors x1, x2 (N, U, D) in full precision: the temperature magnifies what bf16 would round off."""
        several = (present1.sum(1) > 1) & (present2.sum(1) > 1)
        matched = present1 & present2 & several[:, None]
        across = x1 @ x2.transpose(1, 2) / self.config.temperature
        positive = across.diagonal(dim1=1, dim2=2)
        # 1 / temperature is the largest that a positive can be: the term is 0 where both views agree exactly.
        numerator = 1 / self.config.temperature - _mean_where(positive, matched)
        forth = self._spread(across, x1, present1, present2)
        back = self._spread(across.transpose(1, 2), x2, present2, present1)
        denominator = _mean_where((forth + back) / 2, matched)
        return LossTerms(numerator + denominator, numerator, denominator, matched.sum())

    def _spread(self, across: Tensor, own: Tensor, present_own: Tensor, present_other: Tensor) -> Tensor:
        """log of the mean over negatives, (N, U). All columns count in the mean, the masked positive and self too."""
        self_pair = torch.eye(own.shape[1], dtype=torch.bool, device=own.device)
        lowest = torch.finfo(across.dtype).min
        absent = ~present_other[:, None, :]
        # The lowest finite number, not -inf: a row without any column would turn into NaN.
        scores = across.masked_fill(absent | self_pair if self.config.decoupled else absent, lowest)
        columns = present_other.sum(1)
        if self.config.within_view != "none":
            within = own @ own.transpose(1, 2) / (self.config.temperature if self.config.within_view == "scaled" else 1)
            scores = torch.cat((scores, within.masked_fill(~present_own[:, None, :] | self_pair, lowest)), dim=-1)
            columns = columns + present_own.sum(1)
        return scores.logsumexp(dim=-1) - columns.clamp(min=1).log()[:, None]


class VicregLoss(nn.Module):
    """Variance-invariance-covariance regularisation over all matched units of the batch together."""

    INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0

    def __init__(self, dim: int, config: LossConfig) -> None:
        super().__init__()
        hidden = config.vicreg_hidden
        self.projector = nn.Sequential(
            nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden)
        )

    def forward(self, view1: Tensor, view2: Tensor, present1: Tensor, present2: Tensor) -> LossTerms:
        """view1, view2: (N, U, D), one unit order; present1, present2: (N, U) bool. Needs two matched units."""
        matched = present1 & present2
        x1, x2 = self.projector(view1[matched]).float(), self.projector(view2[matched]).float()
        with torch.autocast(view1.device.type, enabled=False):
            invariance = self.INVARIANCE * functional.mse_loss(x1, x2)
            variance = self.VARIANCE * (_variance_hinge(x1) + _variance_hinge(x2)) / 2
            spread = variance + self.COVARIANCE * (_covariance(x1) + _covariance(x2))
        return LossTerms(invariance + spread, invariance, spread, matched.sum())


def build_loss(dim: int, config: LossConfig) -> nn.Module:
    """The loss that `config` names, for embeddings of `dim` channels, with its own projector."""
    return ContrastiveLoss(dim, config) if config.kind == "contrastive" else VicregLoss(dim, config)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    return values.masked_fill(~chosen, 0.0).sum() / chosen.sum().clamp(min=1)


def _variance_hinge(x: Tensor) -> Tensor:
    return functional.relu(1 - (x.var(dim=0) + 1e-4).sqrt()).mean()


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=0)
    covariance = centred.T @ centred / (len(x) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / x.shape[1]
