"""Units like those of training pass, what is odd about others is named; counting noise is not odd."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest

from nuclr_stream.errors import BundleError
from nuclr_stream.features.accumulator import FeatureAccumulator, FeatureSnapshot
from nuclr_stream.features.coupling import COUPLING, COUPLING_SUMS
from nuclr_stream.features.isi import Intervals
from nuclr_stream.prediction.out_of_distribution import (
    KnownPopulations,
    KnownUnits,
    OutOfDistribution,
    OutOfDistributionScore,
)
from nuclr_stream.windows.binning import WindowSpec

SPEC = WindowSpec(Fraction(50), 50, 10, 500)
RATE = 30_000
DIM = 4
ODDITIES = ("embedding", "statistics", "rate", "unsorted", "population")


POPULATIONS = KnownPopulations(np.array([1.0, 6.0]), np.array([-0.5, 0.05]), np.array([1.0, 0.8]))
"""Ranges of the synchrony of populations: wide after one window, narrow after six."""


def train(rng: np.random.Generator, rate_hz: float, seconds: float, *, dead_s: float = 0.003) -> np.ndarray:
    """Spike samples of a unit that pauses at least `dead_s` between spikes: none, and it is a Poisson process."""
    intervals_s = dead_s + rng.exponential(max(1 / rate_hz - dead_s, 1e-6), int(3 * rate_hz * seconds) + 30)
    times_s = np.cumsum(intervals_s)
    return (times_s[times_s < seconds] * RATE).astype(np.int64)


@dataclass
class Probe:
    """Units that were observed for so many seconds, and what is known of them."""

    trains: list[np.ndarray]
    seconds: int
    embeddings: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.observed = FeatureAccumulator(SPEC, DIM)
        self.index = np.arange(len(self.trains))
        intervals, everyone = Intervals(Fraction(RATE)), np.ones(len(self.trains), dtype=bool)
        for unit, samples in enumerate(self.trains):
            intervals.add(samples, np.full(len(samples), unit))
        per_bin = RATE // 50
        counts = np.stack([np.bincount(t // per_bin, minlength=self.seconds * 50) for t in self.trains])
        for end in range(500, self.seconds * 50 + 1, 500):
            counted = intervals.take(end * per_bin, self.index, lambda rows: rows)
            window = counts[:, end - 500 : end].astype(np.float32)
            other = {"intervals": counted, "coupling": np.zeros((len(counts), COUPLING_SUMS), dtype=np.int64)}
            self.observed.add_activity(self.index, window, end_bin=end, eligible=everyone, **other)
            if self.embeddings is not None:
                self.observed.add_embeddings(self.index, self.embeddings.astype(np.float32))
        self.features = self.observed.statistics.features(self.index)

    def judged(self, out_of_distribution: OutOfDistribution) -> OutOfDistributionScore:
        return out_of_distribution.judge(self.observed.snapshot(self.index), self.observed.statistics, self.index)


def odd(judged: OutOfDistributionScore, unit: int = 0) -> set[str]:
    """What is out_of_distribution about a unit."""
    return {name for name in ODDITIES if getattr(judged, name)[unit]}


def ordinary(seed: int, *, units: int, seconds: int) -> Probe:
    rng = np.random.default_rng(seed)
    trains = [train(rng, rate, seconds) for rate in np.exp(rng.uniform(np.log(2), np.log(20), units))]
    return Probe(trains, seconds, rng.normal(size=(units, DIM)))


@pytest.fixture(scope="module")
def known() -> OutOfDistribution:
    """What 300 ordinary units of 60 s taught: 99 % of others like them are to lie within."""
    taught, others = ordinary(0, units=300, seconds=60), ordinary(1, units=300, seconds=60)
    values, vectors = np.linalg.eigh(np.cov(taught.features.T) + 1e-4 * np.eye(taught.features.shape[1]))
    whiten = vectors / np.sqrt(values)
    statistics = KnownUnits(taught.features.mean(axis=0, keepdims=True).astype(float), whiten, np.ones(1), np.ones(1))
    limit = np.quantile(statistics.distance(others.features), 0.99)
    knots = np.array([1.0, 6.0])
    statistics = replace(statistics, knots=knots, limits=np.array([3 * limit, limit]))
    centres = np.array([[0.0] * DIM, [10.0] * DIM])
    embedding = KnownUnits(centres, np.eye(DIM), knots, np.array([8.0, 4.5]))
    return OutOfDistribution({"embedding": embedding, "statistics": statistics}, (0.5, 60.0), 0.01, POPULATIONS)


def test_units_like_those_of_training_are_familiar(known: OutOfDistribution):
    judged = ordinary(2, units=200, seconds=60).judged(known)
    assert judged.out_of_distribution.mean() <= 0.04
    assert not (judged.rate | judged.unsorted).any()
    assert (judged.ratio > 0).all() and np.median(judged.ratio) < 1
    assert np.array_equal(judged.out_of_distribution, judged.embedding | judged.statistics)
    assert np.array_equal(judged.ratio > 1, judged.embedding | judged.statistics)


def test_a_poisson_process_has_intervals_that_no_neuron_has(known: OutOfDistribution):
    rng = np.random.default_rng(3)
    assert "unsorted" in odd(Probe([train(rng, 40.0, 60, dead_s=0.0)], 60).judged(known))


def test_a_unit_with_a_fifth_of_its_intervals_below_1_ms_is_unsorted(known: OutOfDistribution):
    single = train(np.random.default_rng(4), 8.0, 60)
    doubled = np.sort(np.concatenate([single, single[::4] + 15]))
    assert {"unsorted"} <= odd(Probe([doubled], 60).judged(known))
    assert "unsorted" not in odd(Probe([single], 60).judged(known))


def test_an_absurd_rate_is_named_on_either_side(known: OutOfDistribution):
    rng = np.random.default_rng(5)
    busy, silent = train(rng, 300.0, 60, dead_s=0.0015), np.array([700_000])
    judged = Probe([busy, silent, train(rng, 8.0, 60)], 60).judged(known)
    assert judged.rate.tolist() == [True, True, False]


def test_counting_noise_is_no_oddity(known: OutOfDistribution):
    few = np.array([1_000, 1_020, 150_000])  # 0.3 Hz and half of the intervals below 1 ms, in 10 s
    assert not {"rate", "unsorted"} & odd(Probe([few], 10).judged(known))


def test_an_embedding_far_from_every_class_is_named_by_how_far(known: OutOfDistribution):
    trains = [train(np.random.default_rng(6), 8.0, 60)] * 3
    embeddings = np.zeros((3, DIM))
    embeddings[1] = 10.0
    embeddings[2, 0] = -9.0
    judged = Probe(trains, 60, embeddings).judged(known)
    assert judged.embedding.tolist() == [False, False, True]
    assert judged.ratio[2] == pytest.approx(2.0)


def test_limits_follow_the_evidence(known: OutOfDistribution):
    samples, embeddings = train(np.random.default_rng(7), 8.0, 60), np.array([[-6.0, 0, 0, 0]])
    early, late = Probe([samples[samples < 10 * RATE]], 10, embeddings), Probe([samples], 60, embeddings)
    assert not early.judged(known).embedding[0] and late.judged(known).embedding[0]
    limit = known.sets["embedding"].ratio(np.array([[8.0, 0, 0, 0]], np.float32), np.array([np.sqrt(6)], np.float32))
    assert 8.0 / limit == pytest.approx((8.0 + 4.5) / 2)


def snapshot(coupling: np.ndarray, exposure: float, *, has: np.ndarray | None = None) -> FeatureSnapshot:
    """Units with the same coupling (U,) at all lags, at an exposure."""
    units = len(coupling)
    features = np.repeat(coupling[:, None], COUPLING, axis=1).astype(np.float32)
    known = np.ones(units, dtype=bool) if has is None else has
    at = np.full(units, exposure, dtype=np.float32)
    return FeatureSnapshot(at, at, {"coupling": features}, {"coupling": known})


def test_a_population_that_fires_independently_or_in_step_is_unlike_those_of_training():
    assert POPULATIONS.ratio(snapshot(np.full(40, 0.4), 6)) <= 1
    assert POPULATIONS.ratio(snapshot(np.full(40, 0.0), 6)) == pytest.approx(2.0), "all of the lower end is missing"
    assert POPULATIONS.ratio(snapshot(np.full(40, 1.6), 6)) == pytest.approx(2.0), "twice the upper end"
    assert POPULATIONS.ratio(snapshot(np.full(40, 0.0), 1)) == 0, "one window says little about synchrony"
    assert POPULATIONS.ratio(snapshot(np.full(40, 1e3), 6)) == 10


def test_the_range_of_synchrony_is_interpolated_in_log_exposure():
    at = np.sqrt(6)  # halfway: the lower end is (-.5 + .05) / 2, the upper (1 + .8) / 2
    assert POPULATIONS.ratio(snapshot(np.full(12, 0.89), at)) <= 1 < POPULATIONS.ratio(snapshot(np.full(12, 0.91), at))
    assert (
        POPULATIONS.ratio(snapshot(np.full(12, -0.22), at)) == 0 < POPULATIONS.ratio(snapshot(np.full(12, -0.23), at))
    )


def test_a_few_units_are_no_population_and_those_without_data_do_not_count():
    assert POPULATIONS.ratio(snapshot(np.zeros(9), 6)) == 0
    assert POPULATIONS.ratio(snapshot(np.zeros(10), 6)) > 1
    unseen = np.arange(40) >= 12
    assert POPULATIONS.ratio(snapshot(np.where(unseen, 50.0, 0.4), 6, has=~unseen)) <= 1


def test_units_of_a_population_unlike_training_are_flagged_each_and_scored(known: OutOfDistribution):
    rng = np.random.default_rng(12)
    probe = Probe([train(rng, 8.0, 60) for _ in range(20)], 60)
    apart, coupled = snapshot(np.zeros(20), 6), np.arange(20) < 15
    of_units = probe.observed.snapshot(probe.index)
    together = replace(of_units, features=of_units.features | apart.features, has=of_units.has | {"coupling": coupled})
    judged = known.judge(together, probe.observed.statistics, probe.index)
    assert np.array_equal(judged.population, coupled) and judged.out_of_distribution[coupled].all()
    assert (judged.ratio[coupled] > 1).all() and (judged.ratio[~coupled] < 1).all()
    without = replace(known, populations=None).judge(together, probe.observed.statistics, probe.index)
    assert not without.population.any()


def test_of_whom_nothing_is_known_nothing_is_unfamiliar(known: OutOfDistribution):
    observed, pair = FeatureAccumulator(SPEC, DIM), np.arange(2)
    judged = known.judge(observed.snapshot(pair), observed.statistics, pair)
    assert not judged.out_of_distribution.any() and not judged.ratio.any()


def test_arrays_hold_everything(known: OutOfDistribution):
    again = OutOfDistribution.of_arrays({name: np.asarray(values) for name, values in known.arrays().items()})
    one, other = (ordinary(8, units=20, seconds=20).judged(each) for each in (known, again))
    for name in (*ODDITIES, "ratio"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate_hz", None),
        ("rate_hz", np.array(3.0)),
        ("rate_hz", np.array([1.0, 2.0, 3.0])),
        ("rate_hz", np.array([np.nan, 3.0])),
        ("short_intervals", None),
        ("short_intervals", np.array(np.nan)),
        ("short_intervals", np.array([0.1, 0.2])),
        ("embedding.whiten", None),
        ("populations.low", None),
        ("populations.low", np.array([0.0])),
        ("populations.low", np.array([2.0, 0.0])),
        ("populations.high", np.array([1.0, np.nan])),
        ("populations.knots", np.array([6.0, 1.0])),
        ("embedding.whiten", np.eye(3)),
        ("embedding.whiten", np.ones(4)),
        ("embedding.whiten", np.ones((4, 4, 1))),
        ("embedding.whiten", np.ones((4, 5))),
        ("rate_hz", np.array([[1.0, 2.0], [3.0, 4.0]])),
        ("short_intervals", np.array([0.1])),
        ("embedding.whiten", np.array([["a"]])),
        ("embedding.centres", np.zeros((0, 4))),
        ("embedding.centres", np.full((1, 4), np.inf)),
        ("embedding.knots", np.array([1.0])),
        ("embedding.knots", np.array([6.0, 1.0])),
        ("embedding.knots", np.array([0.0, 1.0])),
        ("embedding.limits", np.array([0.0, 1.0])),
        ("embedding.limits", np.array([[1.0, 1.0]])),
    ],
)
def test_broken_arrays_are_rejected_by_file_and_remedy(known: OutOfDistribution, name: str, value: np.ndarray | None):
    arrays = known.arrays()
    arrays.pop(name)
    if value is not None:
        arrays[name] = value
    with pytest.raises(BundleError, match=r"out_of_distribution\.npz: .*; export the bundle again"):
        OutOfDistribution.of_arrays(arrays)


def test_no_knots_at_all_are_rejected(known: OutOfDistribution):
    empty = {f"embedding.{part}": np.zeros(0) for part in ("knots", "limits")}
    with pytest.raises(BundleError, match="export the bundle again"):
        OutOfDistribution.of_arrays(known.arrays() | empty)
