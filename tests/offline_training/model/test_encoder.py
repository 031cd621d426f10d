"""The encoder's promises: padding is invisible, populations don't mix, order of units is free, weights load by name."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_training.model.encoder import (
    Attention,
    Dropout,
    Encoder,
    EncoderConfig,
    RotaryAngles,
    TemporalAttention,
    infer_config,
    load_layout,
    turn,
)

TINY = EncoderConfig(
    bins_per_patch=5, patches=4, dim=16, heads=2, head_dim=8, ffn_hidden=24, temporal_blocks=1, spatiotemporal_blocks=2
)


def encoder(config: EncoderConfig = TINY, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(config).eval()


def windows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.poisson(torch.full((*shape, TINY.bins), 0.5), generator=torch.Generator().manual_seed(seed))


def everyone(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def test_the_published_sizes_are_the_defaults_and_have_the_published_number_of_parameters() -> None:
    parameters = sum(p.numel() for p in Encoder(EncoderConfig()).parameters())
    assert parameters == pytest.approx(6.33e6, rel=1e-3)


def test_one_population_and_a_batch_of_one_are_the_same() -> None:
    model, counts = encoder(), windows(3)
    with torch.no_grad():
        alone, batched = model(counts, everyone(3)), model(counts[None], everyone(1, 3))
    assert alone.shape == (3, TINY.dim)
    torch.testing.assert_close(alone, batched[0])


@settings(max_examples=20)
@given(real=st.lists(st.booleans(), min_size=1, max_size=9), garbage=st.sampled_from([0.0, 7.0, -3e37, 3e38]))
def test_rows_outside_the_mask_influence_nothing(real: list[bool], garbage: float) -> None:
    model, mask = encoder(), torch.tensor(real)
    counts = windows(len(real))
    counts[~mask] = garbage
    with torch.no_grad():
        padded, alone = model(counts, mask), model(counts[mask], mask[mask])
    torch.testing.assert_close(padded[mask], alone, atol=2e-6, rtol=1e-5)
    assert torch.equal(padded[~mask], torch.zeros_like(padded[~mask]))


def test_gradients_stay_finite_with_padding_and_with_an_empty_population() -> None:
    model, mask = encoder(), torch.tensor([[True, True, False], [False, False, False]])
    counts = windows(2, 3).masked_fill(~mask[..., None], 3e38)
    model(counts, mask).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_populations_of_a_batch_do_not_see_each_other() -> None:
    model, counts = encoder(), windows(2, 4)
    with torch.no_grad():
        before = model(counts, everyone(2, 4))
        counts[1] = windows(4, seed=1)
        after = model(counts, everyone(2, 4))
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1])


def test_units_of_a_population_see_each_other() -> None:
    model, counts = encoder(), windows(4)
    with torch.no_grad():
        before = model(counts, everyone(4))
        counts[3] = 9.0
        after = model(counts, everyone(4))
    assert not torch.allclose(after[0], before[0])


def test_embeddings_follow_their_units_when_the_order_changes() -> None:
    model, counts, order = encoder(), windows(5), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        torch.testing.assert_close(model(counts[order], everyone(5)), model(counts, everyone(5))[order])


def test_the_order_of_patches_matters() -> None:
    model, counts = encoder(), windows(3)
    reversed_patches = counts.unflatten(-1, (TINY.patches, -1)).flip(1).flatten(1)
    with torch.no_grad():
        assert not torch.allclose(model(reversed_patches, everyone(3)), model(counts, everyone(3)))


def test_rotated_weights_equal_rotated_tokens() -> None:
    """Queries, keys and values are rotated by their patch and the output back, as complex numbers say it."""
    torch.manual_seed(0)
    attention, angles = TemporalAttention(TINY).eval(), RotaryAngles(TINY)
    x = torch.randn(TINY.patches, 1, 3, TINY.dim)
    heads = attention.to_qkv(attention.norm(x)).view(TINY.patches, 3, 3, TINY.heads, TINY.head_dim // 2, 2)
    phase = torch.polar(torch.ones(TINY.patches, len(angles.omega)), torch.arange(TINY.patches)[:, None] * angles.omega)
    turned = torch.view_as_complex(heads) * phase[:, None, None, None]
    query, key, value = torch.view_as_real(turned).flatten(-2).permute(2, 1, 3, 0, 4)
    out = Attention.attend(attention, query, key, value).permute(2, 0, 1, 3).unflatten(-1, (-1, 2)).contiguous()
    back = torch.view_as_real(torch.view_as_complex(out) * phase.conj()[:, None, None]).flatten(2)
    with torch.no_grad():
        torch.testing.assert_close(attention(x, angles(TINY.patches))[:, 0], attention.to_out(back))


def test_the_first_half_of_a_head_turns_with_periods_from_one_patch_to_eight_windows() -> None:
    periods = 2 * torch.pi / RotaryAngles(EncoderConfig(head_dim=16)).omega
    torch.testing.assert_close(periods[[0, 3]], torch.tensor([1.0, 80.0]))
    torch.testing.assert_close(periods[1] / periods[0], periods[3] / periods[2])
    assert torch.isinf(periods[4:]).all()


def test_turning_leaves_the_first_patch_and_all_lengths_alone() -> None:
    weight = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
    turned = turn(weight, RotaryAngles(TINY)(TINY.patches)).unflatten(1, (2, 8))
    torch.testing.assert_close(turned[0], weight)
    torch.testing.assert_close(turned.norm(dim=2), weight.norm(dim=1).expand(TINY.patches, -1, -1))


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    dropout, ones = Dropout(rate), torch.ones(1000, 401)
    dropped = dropout(ones)
    assert abs((dropped == 0).float().mean() - rate) < 0.005
    assert abs(dropped.mean() - 1) < 0.01
    assert len(dropped.unique()) == 2
    assert dropout.eval()(ones) is ones


def test_dropout_is_reproduced_by_the_seed_and_differs_between_calls() -> None:
    dropout, ones = Dropout(0.2), torch.ones(50, 7)
    torch.manual_seed(3)
    first, second = dropout(ones), dropout(ones)
    torch.manual_seed(3)
    assert torch.equal(dropout(ones), first)
    assert not torch.equal(first, second)


def test_training_drops_and_evaluation_does_not() -> None:
    model, counts = encoder(), windows(3)
    model.train()
    assert not torch.equal(model(counts, everyone(3)), model(counts, everyone(3)))
    model.eval()
    assert torch.equal(model(counts, everyone(3)), model(counts, everyone(3)))


def test_mixed_precision_stays_close_to_full_precision() -> None:
    model, counts = encoder(), windows(2, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = model(counts, everyone(2, 6))
    with torch.no_grad():
        full = model(counts, everyone(2, 6))
    assert torch.nn.functional.cosine_similarity(mixed.float(), full, dim=-1).min() > 0.999


@pytest.mark.parametrize("heads, patches, blocks", list(itertools.product([1, 3], [4, 32], [(1, 2), (0, 1), (2, 0)])))
def test_sizes_are_read_from_weights(heads: int, patches: int, blocks: tuple[int, int]) -> None:
    config = EncoderConfig(
        bins_per_patch=6,
        patches=patches,
        dim=12,
        heads=heads,
        head_dim=8,
        ffn_hidden=20,
        temporal_blocks=blocks[0],
        spatiotemporal_blocks=blocks[1],
        dropout=0.3,
    )
    weights = load_layout({f"model.{k}": v for k, v in Encoder(config).state_dict().items()}, "nuclr")
    inferred = infer_config(weights, dropout=0.3)
    assert inferred.rope_max_period_factor == pytest.approx(8)
    assert inferred == EncoderConfig(**{**vars(config), "rope_max_period_factor": inferred.rope_max_period_factor})


def test_given_patches_leave_the_longest_period_to_the_weights() -> None:
    weights = Encoder(TINY).state_dict()
    assert infer_config(weights, patches=8).rope_max_period_factor == pytest.approx(4)


def test_the_other_layout_swaps_the_pairs_of_spatiotemporal_blocks_and_nothing_else() -> None:
    weights = encoder().state_dict()
    swapped = load_layout(weights, "brainwidebench")
    assert swapped["st_blocks.1.2.to_qkv.weight"] is weights["st_blocks.1.0.to_qkv.weight"]
    assert swapped["st_blocks.0.1.norm.bias"] is weights["st_blocks.0.3.norm.bias"]
    assert swapped["t_blocks.0.1.norm.bias"] is weights["t_blocks.0.1.norm.bias"]
    restored = load_layout(swapped, "brainwidebench")
    assert all(restored[name] is value for name, value in weights.items())


def test_a_checkpoint_read_in_the_wrong_layout_loads_and_computes_something_else() -> None:
    right, wrong = encoder(), encoder()
    wrong.load_state_dict(load_layout(right.state_dict(), "brainwidebench"))
    with torch.no_grad():
        assert not torch.allclose(right(windows(4), everyone(4)), wrong(windows(4), everyone(4)), atol=1e-3)


def test_projector_weights_of_a_checkpoint_are_left_out() -> None:
    weights = {"model.read_in.bias": torch.zeros(1), "projector.0.bias": torch.zeros(1)}
    assert set(load_layout(weights, "nuclr")) == {"read_in.bias"}


def test_an_unknown_layout_is_rejected() -> None:
    with pytest.raises(ValueError, match="layout = 'paper': must be one of nuclr, brainwidebench"):
        load_layout({}, "paper")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("dim", 0, "at least 1"),
        ("patches", 0, "at least 1"),
        ("temporal_blocks", -1, "at least 0"),
        ("head_dim", 7, "even"),
        ("dropout", 1.0, r"\[0, 1\)"),
        ("rope_ratio", 1.5, r"\[0, 1\]"),
        ("rope_max_period_factor", 0.0, "above 0"),
    ],
)
def test_impossible_sizes_are_rejected_by_name(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=rf"encoder\.{field} = .*{message}"):
        EncoderConfig(**{field: value})
