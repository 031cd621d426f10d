"""Placement: regions along a shank from what single units say, and a planned trajectory beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.errors import PlacementError
from nuclr_stream.placement.hmm import blurred_quantiles
from nuclr_stream.placement.regions import (
    MAX_GRID,
    MAX_SHANKS,
    DepthUnits,
    Placement,
    PlacementSettings,
    ShankPlacement,
    place,
    pool_along_depth,
    weights,
)
from nuclr_stream.placement.trajectory import Agreement, Planned, agree

CLASSES = ("CTX", "HPF", "TH")


def units_of(depths: list[float], tops: list[int], *, sure: float = 0.8, **changed: Any) -> DepthUnits:
    """Units that say class `tops` with probability `sure`, everything else known and in order."""
    count = len(depths)
    probabilities = np.full((count, 3), (1 - sure) / 2)
    probabilities[np.arange(count), tops] = sure
    known = DepthUnits(
        classes=CLASSES,
        prior=np.full(3, 1 / 3),
        probabilities=probabilities,
        depth_um=np.array(depths, dtype=float),
        shank=np.zeros(count, dtype=np.int64),
        exposure=np.ones(count),
        abstained=np.zeros(count, dtype=bool),
    )
    return replace(known, **changed)


def two_regions(*, sure: float = 0.8, every_um: float = 20.0) -> DepthUnits:
    """HPF up to 1000 um, CTX above it to 2000 um."""
    depths = np.arange(0.0, 2000.0, every_um)
    return units_of(depths.tolist(), (depths < 1000).astype(int).tolist(), sure=sure)


def only(placement: Placement) -> ShankPlacement:
    (one,) = placement.shanks
    return one


def test_two_regions_are_two_segments_with_a_border_between_them() -> None:
    shank = only(place(two_regions()))
    assert [s.region for s in shank.segments] == ["HPF", "CTX"] and shank.reason == ""
    (border,) = shank.boundaries
    assert (border.below, border.above) == ("HPF", "CTX")
    assert border.low_um <= 990 <= border.high_um and abs(border.depth_um - 990) < 20
    assert shank.segments[0].to_um == border.depth_um == shank.segments[1].from_um
    assert min(s.probability for s in shank.segments) > 0.9 and shank.order_probability > 0.7


def test_posteriors_are_probabilities_at_every_depth_from_the_first_unit_to_the_last() -> None:
    shank = only(place(two_regions()))
    np.testing.assert_allclose(shank.posterior.sum(axis=1), 1)
    assert (shank.depth_um[0], shank.depth_um[-1]) == (0, 1980)
    assert shank.at(np.array([-50.0, 1500.0, 9999.0])).argmax(axis=1).tolist() == [1, 0, 0]


def test_units_that_say_less_leave_a_wider_interval() -> None:
    widths = [b.high_um - b.low_um for s in (0.9, 0.7, 0.5) for b in only(place(two_regions(sure=s))).boundaries]
    assert len(widths) == 3 and widths == sorted(widths)


def test_neighbours_that_err_together_widen_it_too() -> None:
    together, alone = (PlacementSettings(correlation=c) for c in (1.0, 0.0))
    wide, narrow = (only(place(two_regions(sure=0.6), settings=s)).boundaries[0] for s in (together, alone))
    assert wide.high_um - wide.low_um > 2 * (narrow.high_um - narrow.low_um)


def test_units_that_never_err_leave_the_border_as_uncertain_as_borders_are() -> None:
    units = two_regions(sure=1.0)
    for sd_um in (20.0, 60.0):
        (border,) = only(place(units, settings=PlacementSettings(border_sd_um=sd_um))).boundaries
        assert 3.2 * sd_um < border.high_um - border.low_um < 3.5 * sd_um + 40
        assert abs(border.depth_um - 990) < 10


def test_blurring_by_nothing_changes_nothing() -> None:
    depth_um = np.arange(0.0, 500, 10)
    mass = np.clip((depth_um - 100) / 200, 0, 1)
    np.testing.assert_allclose(
        blurred_quantiles(depth_um, mass, (0.05, 0.5, 0.95), sd_um=0.0), [110, 200, 290], atol=1e-6
    )


def test_one_unit_that_is_wrong_and_sure_is_no_region() -> None:
    units = two_regions()
    units.probabilities[25] = [0.0, 0.0, 1.0]
    assert [s.region for s in only(place(units)).segments] == ["HPF", "CTX"]


def test_a_region_between_two_others_needs_more_than_the_chain_expects_of_noise() -> None:
    tops = [1] * 40 + [2] * 20 + [0] * 40
    shank = only(place(units_of(np.arange(0.0, 2000, 20).tolist(), tops)))
    assert [s.region for s in shank.segments] == ["HPF", "TH", "CTX"]
    below, above = shank.boundaries
    assert below.depth_um < above.depth_um


def test_an_atlas_that_forbids_a_neighbour_is_obeyed() -> None:
    never_hpf_ctx = np.array([[0, 1, 1], [0, 0, 1], [1, 1, 0]], dtype=float)
    shank = only(place(two_regions(), transitions=never_hpf_ctx))
    assert [s.region for s in shank.segments] != ["HPF", "CTX"]


@pytest.mark.parametrize(
    "matrix", [np.ones((2, 2)), np.eye(3), np.full((3, 3), -1.0), np.full((3, 3), np.nan)], ids=str
)
def test_a_matrix_that_cannot_be_one_is_rejected(matrix: np.ndarray) -> None:
    with pytest.raises(PlacementError, match="transitions"):
        place(two_regions(), transitions=matrix)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"depth_um": np.full(3, np.nan)}, "no_depth"),
        ({"exposure": np.zeros(3)}, "no_data"),
        ({"probabilities": np.full((3, 3), np.nan)}, "no_data"),
        ({"abstained": np.ones(3, dtype=bool)}, "all_abstained"),
        ({"exposure": np.array([1.0, 0, 0])}, "too_few_units"),
        ({}, "one_region"),
    ],
)
def test_what_is_missing_is_a_reason(changed: dict[str, Any], reason: str) -> None:
    units = units_of([0.0, 500.0, 1000.0], [0, 0, 0], **changed)
    placement = place(units)
    assert placement.reason == only(placement).reason == reason
    (agreement,) = agree(units, placement, [Planned("CTX", 0, 500), Planned("HPF", 500, 900)])
    assert agreement.reason == ("" if reason == "one_region" else reason)


def test_no_unit_at_all_is_a_reason() -> None:
    placement = place(units_of([], []))
    assert (placement.shanks, placement.reason) == ((), "too_few_units")


def test_units_at_one_depth_are_one_region() -> None:
    shank = only(place(units_of([50.0] * 5, [0, 0, 1, 0, 0])))
    assert shank.reason == "one_region" and shank.segments[0].region == "CTX"


def test_every_shank_is_placed_by_itself_and_one_that_cannot_be_hinders_none() -> None:
    units = two_regions()
    shank = np.repeat([0, 3], 50)
    depth = np.where(shank == 3, np.nan, np.tile(np.arange(0.0, 1000, 20), 2))
    placement = place(replace(units, shank=shank, depth_um=depth))
    assert [(s.shank, s.reason) for s in placement.shanks] == [(0, "one_region"), (3, "no_depth")]
    assert placement.reason == ""


def test_a_unit_of_unknown_shank_is_placed_only_where_no_shank_is_known() -> None:
    units = two_regions()
    assert only(place(replace(units, shank=np.full(100, -1)))).units == 100
    assert only(place(replace(units, shank=np.repeat([0, -1], 50)))).units == 50


def test_more_shanks_than_any_probe_has_are_rejected_with_a_reason() -> None:
    count = MAX_SHANKS + 1
    units = units_of([0.0] * count, [0] * count, shank=np.arange(count))
    assert place(units).reason == "too_many_shanks"


def test_an_absurd_depth_costs_no_more_than_a_long_probe() -> None:
    shank = only(place(units_of([-3e38, 0.0, 20.0, 3e38], [0, 0, 1, 1])))
    assert len(shank.depth_um) <= MAX_GRID and np.isfinite(shank.posterior).all()


def test_the_mean_over_neighbours_takes_five_within_sixty_micrometres_itself_first() -> None:
    units = units_of([0.0, 0.0, 10, 20, 30, 40, 100, 500], [0, 1, 1, 1, 1, 2, 2, 0], sure=1.0)
    pooled = pool_along_depth(units)
    np.testing.assert_allclose(pooled[0], [0.2, 0.8, 0])  # 0, 0, 10, 20, 30
    np.testing.assert_allclose(pooled[6], [0, 0, 1])  # 40 is 60 um away and inside
    np.testing.assert_allclose(pooled[7], [1, 0, 0])
    np.testing.assert_allclose(units.probabilities[0], [1, 0, 0])  # the unit's own stay as they were


def test_the_mean_leaves_out_silent_units_other_shanks_and_unknown_depths() -> None:
    units = units_of(
        [0.0, 5.0, 5.0, np.nan],
        [0, 1, 1, 2],
        sure=1.0,
        shank=np.array([0, 0, 1, 0]),
        exposure=np.array([1.0, 0, 1, 1]),
    )
    np.testing.assert_allclose(pool_along_depth(units), [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])


def test_a_unit_alone_counts_fully_and_a_crowd_for_little_more_than_its_share() -> None:
    chosen = PlacementSettings(correlation=0.5, correlation_um=100)
    np.testing.assert_allclose(weights(np.array([0.0, 1e6]), chosen), [1, 1])
    np.testing.assert_allclose(weights(np.zeros(9), chosen), 1 / (1 + 0.5 * 8))


def test_a_probe_that_went_too_deep_is_found_to_be_off_by_that() -> None:
    units = two_regions()
    plan = [Planned("CTX", 790, 3000), Planned("HPF", -1000, 790)]
    (found,) = agree(units, place(units), plan)
    assert found.low_um <= 200 <= found.high_um and abs(found.offset_um - 200) < 30
    assert found.agreement > 0.85 and [(b.below, b.above) for b in found.boundaries] == [("HPF", "CTX")]


def test_a_plan_of_the_wrong_regions_does_not_agree() -> None:
    units = two_regions()
    (found,) = agree(units, place(units), [Planned("CTX", 0, 1000), Planned("TH", 1000, 2000)])
    assert found.agreement < 0.5


def test_planned_regions_that_nobody_predicts_say_nothing() -> None:
    units = two_regions()
    (found,) = agree(units, place(units), [Planned("white matter", 0, 1000), Planned("VISp", 1000, 2000)])
    assert found.agreement == 0 and found.high_um - found.low_um > 1700


def test_a_plan_of_one_region_says_nothing_about_depth() -> None:
    units = two_regions()
    assert agree(units, place(units), [Planned("CTX", 0, 2000)]) == (Agreement(shank=0, reason="one_region"),)


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        ([], "no region"),
        ([Planned("CTX", 10, 10)], "below"),
        ([Planned("CTX", 0, np.inf)], "below"),
        ([Planned("CTX", 0, 100), Planned("HPF", 50, 200)], "overlap"),
    ],
)
def test_an_impossible_plan_is_rejected_by_name(plan: list[Planned], what: str) -> None:
    units = two_regions()
    with pytest.raises(PlacementError, match=what):
        agree(units, place(units), plan)


@settings(max_examples=30)
@given(data=st.data())
def test_whatever_units_there_are_the_answer_is_whole(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 12))
    number = st.one_of(st.floats(-500, 500), st.sampled_from([np.nan, np.inf, -3e38]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    units = units_of(
        data.draw(st.lists(number, min_size=count, max_size=count)),
        [0] * count,
        probabilities=rng.dirichlet(np.full(3, 0.2), count),
        shank=rng.integers(-1, 3, count),
        exposure=rng.integers(0, 2, count) * 1.0,
        abstained=rng.random(count) < 0.3,
    )
    placement = place(units)
    for shank in placement.shanks:
        assert np.isfinite(shank.posterior).all() and 0 <= shank.order_probability <= 1
        edges = [edge for s in shank.segments for edge in (s.from_um, s.to_um)]
        assert edges == sorted(edges) and (len(shank.segments) > 0) == (shank.reason in ("", "one_region"))
        for border in shank.boundaries:
            assert border.low_um <= border.depth_um <= border.high_um
    for found in agree(units, placement, [Planned("CTX", 0, 100), Planned("HPF", 200, 300)]):
        assert found.low_um <= found.offset_um <= found.high_um
