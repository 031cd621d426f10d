"""The losses against their definitions written out unit by unit, and what presence masks must not change."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from offline_training.model.loss import ContrastiveLoss, LossConfig, VicregLoss, build_loss

DIM = 8


def views(windows: int = 2, units: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(windows, units, DIM, generator=generator) for _ in range(2))


def everyone(windows: int = 2, units: int = 5) -> torch.Tensor:
    return torch.ones(windows, units, dtype=torch.bool)


def contrast(**settings: object) -> ContrastiveLoss:
    torch.manual_seed(1)
    return ContrastiveLoss(DIM, LossConfig(**settings))


@torch.no_grad()
def written_out(loss: ContrastiveLoss, view1, view2, present1, present2) -> float:
    """The scaled, decoupled loss, one sum at a time."""
    tau, numerator, denominator, matched = loss.config.temperature, 0.0, 0.0, 0
    for window in range(len(view1)):
        x = [normalize(loss.projector(view[window]), dim=-1) for view in (view1, view2)]
        here = [present[window].nonzero().flatten().tolist() for present in (present1, present2)]
        for unit in sorted(set(here[0]) & set(here[1])):
            matched += 1
            numerator += (1 - x[0][unit] @ x[1][unit]).item() / tau
            for own, other in ((0, 1), (1, 0)):
                across = [math.exp(x[own][unit] @ x[other][j] / tau) for j in here[other] if j != unit]
                within = [math.exp(x[own][unit] @ x[own][j] / tau) for j in here[own] if j != unit]
                columns = len(here[0]) + len(here[1])
                denominator += math.log((sum(across) + sum(within)) / columns) / 2
    return (numerator + denominator) / matched


def test_the_loss_is_its_definition_with_different_units_in_each_view() -> None:
    loss, (view1, view2) = contrast(), views()
    present1 = torch.tensor([[1, 1, 0, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    present2 = torch.tensor([[0, 1, 1, 1, 1], [1, 0, 1, 0, 0]], dtype=torch.bool)
    with torch.no_grad():
        terms = loss(view1, view2, present1, present2)
    assert terms.total.item() == pytest.approx(written_out(loss, view1, view2, present1, present2), abs=1e-5)
    assert terms.total.item() == pytest.approx((terms.numerator + terms.denominator).item())


@pytest.mark.parametrize("within_view", ["scaled", "published", "none"])
@pytest.mark.parametrize("decoupled", [True, False])
def test_absent_units_change_nothing(within_view: str, decoupled: bool) -> None:
    loss, (view1, view2) = contrast(within_view=within_view, decoupled=decoupled), views()
    wide1, wide2 = torch.full((2, 9, DIM), 5.0), torch.full((2, 9, DIM), -4.0)
    wide1[:, :5], wide2[:, :5] = view1, view2
    present = everyone(2, 9)
    present[:, 5:] = False
    with torch.no_grad():
        torch.testing.assert_close(
            loss(wide1, wide2, present, present).total, loss(view1, view2, everyone(), everyone()).total
        )


def test_windows_weigh_by_their_matched_units() -> None:
    loss, (view1, view2) = contrast(), views()
    present = everyone()
    present[1, 3:] = False
    with torch.no_grad():
        both = loss(view1, view2, present, present).total
        first = loss(view1[:1], view2[:1], present[:1], present[:1]).total
        second = loss(view1[1:], view2[1:], present[1:], present[1:]).total
    torch.testing.assert_close(both, (5 * first + 3 * second) / 8)


def test_units_of_other_windows_are_no_negatives() -> None:
    loss, (view1, view2) = contrast(), views()
    with torch.no_grad():
        together = loss(view1, view2, everyone(), everyone()).total
        apart = [loss(view1[i : i + 1], view2[i : i + 1], everyone(1), everyone(1)).total for i in range(2)]
    torch.testing.assert_close(together, sum(apart) / 2)


def test_swapping_the_views_changes_nothing() -> None:
    loss, (view1, view2) = contrast(), views()
    present1, present2 = everyone(), everyone()
    present1[0, 0] = present2[1, 1:3] = False
    with torch.no_grad():
        one, other = loss(view1, view2, present1, present2), loss(view2, view1, present2, present1)
    torch.testing.assert_close(one.total, other.total)


def test_equal_views_have_no_numerator_and_alike_units_a_large_denominator() -> None:
    loss, (view1, _) = contrast(), views()
    with torch.no_grad():
        different = loss(view1, view1, everyone(), everyone())
        alike = loss(view1[:, :1].expand(-1, 5, -1), view1[:, :1].expand(-1, 5, -1), everyone(), everyone())
    assert different.numerator.item() == pytest.approx(0, abs=1e-5)
    assert alike.denominator.item() == pytest.approx(5 + math.log(8 / 10), abs=1e-5)
    assert different.denominator < alike.denominator


@pytest.mark.parametrize("lone", [[True, False, False], [False, False, False]])
def test_a_window_without_negatives_is_left_out_and_gradients_stay_finite(lone: list[bool]) -> None:
    loss, (view1, view2) = contrast(), views(2, 3)
    view1.requires_grad_()
    present = torch.stack([torch.ones(3, dtype=torch.bool), torch.tensor(lone)])
    total = loss(view1, view2, present, present).total
    total.backward()
    torch.testing.assert_close(total, loss(view1[:1], view2[:1], everyone(1, 3), everyone(1, 3)).total)
    assert torch.isfinite(view1.grad).all()
    assert not view1.grad[1].any()


def test_similarities_keep_full_precision_under_autocast() -> None:
    loss, (view1, view2) = contrast(), views()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        terms = loss(view1, view2, everyone(), everyone())
    assert terms.total.dtype == torch.float32
    with torch.no_grad():
        full = loss(view1, view2, everyone(), everyone())
    assert terms.total.item() == pytest.approx(full.total.item(), abs=0.02)


def test_vicreg_is_its_definition_over_all_matched_units() -> None:
    torch.manual_seed(1)
    loss, (view1, view2) = VicregLoss(DIM, LossConfig(kind="vicreg", vicreg_hidden=6)), views()
    present1, present2 = everyone(), everyone()
    present1[0, 0] = present2[1, 4] = False
    with torch.no_grad():
        terms = loss(view1, view2, present1, present2)
        x1, x2 = (loss.projector(view[present1 & present2]) for view in (view1, view2))
        assert len(x1) == 8
        variance = sum((1 - (x.var(0) + 1e-4).sqrt()).clamp(min=0).mean() / 2 for x in (x1, x2))
        covariances = [torch.cov(x.T) for x in (x1, x2)]
        covariance = sum((c.square().sum() - c.diagonal().square().sum()) / 6 for c in covariances)
    torch.testing.assert_close(terms.numerator, 25 * (x1 - x2).square().mean())
    torch.testing.assert_close(terms.denominator, 25 * variance + covariance)
    torch.testing.assert_close(terms.total, terms.numerator + terms.denominator)


def test_a_config_names_its_loss_and_projector_layers_are_named_as_published() -> None:
    assert {name for name, _ in build_loss(DIM, LossConfig()).named_parameters()} == {
        f"projector.{layer}.{kind}" for layer in (0, 1, 3) for kind in ("weight", "bias")
    }
    vicreg = build_loss(DIM, LossConfig(kind="vicreg"))
    assert [layer.out_features for layer in vicreg.projector if hasattr(layer, "out_features")] == [1024] * 3


@pytest.mark.parametrize("field, value", [("kind", "clip"), ("within_view", "half"), ("temperature", 0.0)])
def test_unknown_settings_are_rejected_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"loss\.{field} = "):
        LossConfig(**{field: value})
