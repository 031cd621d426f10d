"""What the sampler promises: a pure function of (seed, epoch, index), lawful windows, lawful populations."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Grid, count
from offline_training.config import TrainConfig
from offline_training.data.binned import bin_recording
from offline_training.pretraining.views import Views, ViewSampler

RATE = 1000
WINDOW = {"bins_per_second": 10, "bins_per_patch": 5, "patches": 4, "hop_s": 1.0}  # 2 s windows of 20 bins


def config_of(**training: object) -> TrainConfig:
    settings = {"steps": 1, "batch_windows": 4, "max_pair_distance_s": 3, **training}
    return TrainConfig.parse({"name": "test", "window": WINDOW, "training": settings})


def recording_of(
    *, units: int = 30, seconds: int = 60, name: str = "r", silent: tuple[int, int] = (0, 0), **stretches: object
) -> Recording:
    """Units of 2 spikes a second on average; unit 0 is all but silent; `silent` seconds hold no spike at all."""
    rng = np.random.default_rng(units + seconds)
    times = np.sort(rng.integers(0, seconds * RATE, 2 * units * seconds))
    for start, stop in [(silent[0] * RATE, silent[1] * RATE), *stretches.get("gap_samples", [])]:
        times = times[(times < start) | (times >= stop)]
    rows = rng.integers(1, units, len(times)).astype(np.int32)
    rows[0] = 0
    return Recording(
        recording_id=name,
        subject_id=name,
        sample_rate=Fraction(RATE),
        num_samples=seconds * RATE,
        spike_samples=times,
        spike_units=rows,
        unit_ids=np.array([f"{name}{i}" for i in range(units)]),
        **{key: np.array(value, dtype=np.int64) for key, value in stretches.items()},
    )


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    """Populations of different sizes, one with a masked stretch, one with a gap, one with a silent stretch."""
    return [
        recording_of(units=40, name="a", mask_samples=[[20_000, 21_500]]),
        recording_of(units=25, name="b", gap_samples=[[30_050, 30_060]]),
        recording_of(units=60, name="c", silent=(40, 42)),
    ]


def every_batch(sampler: ViewSampler, epoch: int = 0) -> Iterator[Views]:
    for index in range(sampler.batches_per_epoch):
        views = sampler.batch(epoch, index)
        if views is not None:
            yield views


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
def test_a_batch_depends_on_seed_epoch_and_index_alone(recordings: list[Recording], seed: int, epoch: int) -> None:
    one = ViewSampler(recordings, config_of(seed=seed))
    other = ViewSampler(recordings, config_of(seed=seed))
    other.batch(epoch + 1, 0)  # what was drawn before does not matter
    for left, right in zip(one.batch(epoch, 3), other.batch(epoch, 3), strict=True):
        np.testing.assert_array_equal(left, right)


def test_another_seed_epoch_or_index_gives_other_views(recordings: list[Recording]) -> None:
    sampler, reseeded = ViewSampler(recordings, config_of(seed=1)), ViewSampler(recordings, config_of(seed=2))
    drawn = [sampler.batch(0, 0), sampler.batch(0, 1), sampler.batch(1, 0), reseeded.batch(0, 0)]
    assert len({views.starts.tobytes() + views.recordings.tobytes() for views in drawn}) == len(drawn)


def test_first_views_of_an_epoch_are_disjoint_and_shift_from_epoch_to_epoch(recordings: list[Recording]) -> None:
    sampler = ViewSampler(recordings, config_of())
    offsets = set()
    for epoch in range(20):
        tiles = sampler.tiles(epoch)
        for (i, a), (j, b) in pairwise(tiles):
            assert i != j or b - a == 20
        offsets.add(int(tiles[0, 1]))
    assert min(offsets) < 5 and max(offsets) > 14  # anywhere within one window


def test_an_epoch_shows_every_tile_at_most_once(recordings: list[Recording]) -> None:
    sampler = ViewSampler(recordings, config_of())
    order = sampler.order(5).reshape(-1, 2)
    assert len(np.unique(order, axis=0)) == len(order) == 4 * sampler.batches_per_epoch
    assert {tuple(row) for row in order} <= {tuple(row) for row in sampler.tiles(5)}


def test_both_views_lie_in_one_usable_interval_and_near_each_other(recordings: list[Recording]) -> None:
    sampler = ViewSampler(recordings, config_of())
    intervals = [(int(r), int(a), int(b)) for r, a, b in sampler.intervals]
    apart = []
    for views in every_batch(sampler):
        for recording, starts in zip(views.recordings, views.starts, strict=True):
            assert any(r == recording and a <= min(starts) and max(starts) + 20 <= b for r, a, b in intervals)
            apart.append(int(starts[1] - starts[0]))
    assert max(map(abs, apart)) <= 30 and min(apart) < -15 and max(apart) > 15


def test_masks_gaps_and_silence_with_its_neighbouring_seconds_are_cut_out(recordings: list[Recording]) -> None:
    found = [bin_recording(recording, config_of()).intervals.tolist() for recording in recordings]
    assert found == [[[0, 200], [215, 600]], [[0, 300], [301, 600]], [[0, 390], [430, 600]]]


def test_silence_stays_where_the_rules_do_not_cut_it(recordings: list[Recording]) -> None:
    config = TrainConfig.parse({**config_of().model_dump(exclude_none=True), "rules": {"cut_silence": False}})
    assert bin_recording(recordings[2], config).intervals.tolist() == [[0, 600]]


def test_the_end_and_intervals_shorter_than_two_windows_are_dropped() -> None:
    recording = recording_of(seconds=30, mask_samples=[[3_900, 4_000], [15_000, 15_100]])
    assert bin_recording(recording, config_of(drop_last_s=10)).intervals.tolist() == [[40, 150], [151, 200]]


def test_the_counts_are_those_of_the_one_definition(recordings: list[Recording]) -> None:
    sampler = ViewSampler(recordings, config_of())
    views = sampler.batch(0, 2)
    for i, r in enumerate(views.recordings):
        recording = recordings[r]
        for view, start in ((views.counts1, views.starts[i, 0]), (views.counts2, views.starts[i, 1])):
            expected = count(
                recording.spike_samples,
                recording.spike_units,
                units=len(recording.unit_ids),
                grid=Grid(Fraction(RATE), Fraction(10)),
                first_bin=start,
                bins=20,
            )
            units = views.units[i][views.units[i] >= 0]
            np.testing.assert_array_equal(view[i, : len(units)], expected[units])
            assert not view[i, len(units) :].any()


def test_only_active_units_are_present_and_never_fewer_than_the_rules_ask(recordings: list[Recording]) -> None:
    for views in every_batch(ViewSampler(recordings, config_of())):
        for counts, present in ((views.counts1, views.present1), (views.counts2, views.present2)):
            assert counts[present].any(axis=1).all()
            assert present.sum(axis=1).min() >= 11
            assert not present[views.units < 0].any()


def test_pairs_with_too_few_active_units_are_left_out() -> None:
    sampler = ViewSampler([recording_of(units=14, seconds=200)], config_of())
    kept = sum(len(views.units) for views in every_batch(sampler))
    assert 0 < kept < 4 * sampler.batches_per_epoch / 2
    assert any(sampler.batch(0, index) is None for index in range(sampler.batches_per_epoch))


def test_each_view_keeps_a_uniform_share_of_all_units_of_its_own() -> None:
    recording = recording_of(units=200, seconds=200)  # nearly all of them active in every window
    sampler = ViewSampler([recording], config_of())
    batches = [views for epoch in range(4) for views in every_batch(sampler, epoch)]
    shares = np.concatenate([[v.present1.sum(axis=1), v.present2.sum(axis=1)] for v in batches], axis=1) / 195
    assert shares.min() > 0.45 and shares.max() <= 1.03
    np.testing.assert_allclose(shares.mean(axis=1), 0.75, atol=0.04)
    np.testing.assert_allclose(shares.std(axis=1), 0.5 / 12**0.5, atol=0.02)
    assert abs(np.corrcoef(shares)[0, 1]) < 0.2


def test_a_unit_cap_bounds_the_pair_and_takes_every_unit_in_turn(recordings: list[Recording]) -> None:
    sampler = ViewSampler(recordings[2:], config_of(max_units_per_view=24))
    seen = np.concatenate([views.units.ravel() for views in every_batch(sampler)])
    assert max(views.units.shape[1] for views in every_batch(sampler)) == 24
    assert len(np.unique(seen[seen >= 0])) >= 58  # of 60; unit 0 is silent


def test_padding_stays_small_because_similar_populations_go_together(recordings: list[Recording]) -> None:
    real = [(views.units >= 0).mean() for views in every_batch(ViewSampler(recordings, config_of()))]
    assert np.mean(real) > 0.8


def test_recordings_without_a_lawful_pair_are_rejected() -> None:
    too_few, too_short = recording_of(units=10), recording_of(seconds=3)
    with pytest.raises(ConfigError, match=r"none of 2 recordings has 11 units and a usable stretch"):
        ViewSampler([too_few, too_short], config_of())
