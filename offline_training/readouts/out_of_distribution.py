"""What training knows of its units, for the daemon to notice those that are unlike them.

See `nuclr_stream.prediction.out_of_distribution`.
Limits are such that LYING_WITHIN of the units of animals left out lie within all of them at once.
Shapes: R examples, U units, F features, C centres.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from sklearn.covariance import ledoit_wolf
from sklearn.model_selection import GroupKFold

from nuclr_stream.features.accumulator import FeatureSet
from nuclr_stream.features.exposure import knot_shares
from nuclr_stream.features.unit_rows import Float64Array
from nuclr_stream.prediction.out_of_distribution import (
    KINDS,
    KnownPopulations,
    KnownUnits,
    OutOfDistribution,
    synchrony,
)
from nuclr_stream.windows.binning import BoolArray, Int64Array
from offline_training.config import UNLABELLED
from offline_training.readouts.examples import Examples, examples
from offline_training.readouts.feature_source import FeatureSource

LYING_WITHIN = 0.985
"""Share of the units of animals left out that lies within the limits of all feature sets at once."""
SHORT_WITHIN = 0.998
RATES_WITHIN = (0.001, 0.999)
LEAST_POPULATIONS = 5
"""Recordings below which nothing is known about how populations differ."""
LEAST_SHORT_INTERVALS = 0.01
"""Share of intervals below 1 ms that is never held against a unit: sorters let some through."""
_MAX_FOLDS = 7


def fit_out_of_distribution(
    sources: Sequence[FeatureSource], labels: Mapping[str, Sequence[Int64Array]]
) -> OutOfDistribution:
    """Learn from all units that are labelled for any task; classes of the first task are the centres, and one more are
    the units that it does not label."""
    first, *_ = labels.values()
    labelled = [np.any([of[i] != UNLABELLED for of in labels.values()], axis=0) for i in range(len(sources))]
    not_labelled = max(int(of.max(initial=0)) for of in first) + 2
    # populations are those of all units, as they are live
    everyone = examples(sources, [np.where(is_, of + 1, not_labelled) for is_, of in zip(labelled, first, strict=True)])
    known = everyone.where(everyone.label != not_labelled)
    distances = {name: _known_units(known.where(known.has[name]), name) for name in KINDS if name in known.features}
    rates, short = _rates_and_short(sources, labelled)
    limits = np.quantile(rates, RATES_WITHIN) if len(rates) else (0.0, np.finfo(np.float32).max)
    worst = float(np.quantile(short, SHORT_WITHIN)) if len(short) else 1.0
    short_intervals = max(worst, LEAST_SHORT_INTERVALS)
    rate_hz = (float(limits[0]), float(limits[1]))
    return OutOfDistribution(_widened(distances, known), rate_hz, short_intervals, _known_populations(everyone))


def _known_units(known: Examples, name: FeatureSet) -> tuple[KnownUnits, Float64Array]:
    """Centres and whitening of one feature set with, for every length of the examples, the distance within which
    LYING_WITHIN of the units of animals left out lie; and the distances (R,) of the examples as if left out."""
    features = known.features[name].astype(np.float64)
    groups = known.subject if len(np.unique(known.subject)) > 1 else known.recording
    whole = _fitted(features, known.label)
    distance = whole.distance(features.astype(np.float32))
    for train, test in _folds(groups):
        distance[test] = _fitted(features[train], known.label[train]).distance(features[test].astype(np.float32))
    exposure = known.exposure_of({name})
    limit_at = {
        max(float(np.median(exposure[at])), 1.0): float(np.quantile(distance[at], LYING_WITHIN))
        for length in np.unique(known.length)
        for at in [known.length == length]
    }
    knots = sorted(limit_at)
    return replace(whole, knots=np.array(knots), limits=np.array([limit_at[n] for n in knots])), distance


def _widened(
    found: Mapping[FeatureSet, tuple[KnownUnits, Float64Array]], known: Examples
) -> dict[FeatureSet, KnownUnits]:
    """The same with limits widened by one factor, so that LYING_WITHIN of the units lie within all of them at once."""
    largest = np.zeros(len(known))
    for name, (units, distance) in found.items():
        has = known.has[name]
        limit = knot_shares(known.exposure_of({name})[has], units.knots) @ units.limits
        largest[has] = np.maximum(largest[has], distance / limit)
    factor = max(float(np.quantile(largest, LYING_WITHIN)), 1.0) if len(found) > 1 else 1.0
    return {name: replace(units, limits=units.limits * factor) for name, (units, _) in found.items()}


def _known_populations(everyone: Examples) -> KnownPopulations | None:
    """The range of synchrony of the recordings at every length of the examples, wider by half on both sides; None for
    fewer than LEAST_POPULATIONS recordings."""
    knots: dict[float, tuple[float, float]] = {}
    for length in np.unique(everyone.length):
        recordings = everyone.recording[everyone.length == length]
        found = [
            one
            for recording in np.unique(recordings)
            for rows in [(everyone.length == length) & (everyone.recording == recording)]
            if (one := synchrony(everyone.where(rows).snapshot)) is not None
        ]
        if len(found) >= LEAST_POPULATIONS:
            values, exposures = np.array(found).T
            low, high = values.min(), values.max()
            # a range of so many recordings says little about the next one: room for half of what its ends are
            knots[max(float(np.median(exposures)), 1.0)] = (low - abs(low) / 2, high + abs(high) / 2)
    if not knots or any(high <= 0 for _, high in knots.values()):
        return None
    ascending = sorted(knots)
    return KnownPopulations(np.array(ascending), *(np.array([knots[n][k] for n in ascending]) for k in (0, 1)))


def _folds(groups: npt.NDArray[np.str_]) -> Iterator[tuple[Int64Array, Int64Array]]:
    number = min(len(np.unique(groups)), _MAX_FOLDS)
    if number > 1:
        yield from GroupKFold(number).split(np.zeros((len(groups), 1)), groups=groups)


def _fitted(features: Float64Array, label: Int64Array) -> KnownUnits:
    """Centres and whitening; the scale of every feature is taken out before the covariance is shrunk."""
    classes = np.unique(label)
    centres = np.stack([features[label == c].mean(axis=0) for c in classes])
    scale = np.maximum(features.std(axis=0), 1e-6)
    within = (features - centres[np.searchsorted(classes, label)]) / scale
    covariance, _ = ledoit_wolf(within)
    values, vectors = np.linalg.eigh(covariance)
    whiten = (vectors / np.sqrt(np.maximum(values, 1e-6))) / scale[:, None]
    return KnownUnits(centres, whiten, np.ones(1), np.ones(1))


def _rates_and_short(
    sources: Sequence[FeatureSource], labelled: Sequence[BoolArray]
) -> tuple[Float64Array, Float64Array]:
    """Mean rates in Hz of all labelled units, and their shares of intervals below 1 ms, over whole recordings."""
    rates, short = [np.zeros(0)], [np.zeros(0)]
    for source, chosen in zip(sources, labelled, strict=True):
        embedded = source.embedded
        accepted = [k for k, exclusion in enumerate(embedded.exclusions) if not exclusion]
        if embedded.spec.input_kind == "traces" or not accepted or not chosen.any():
            continue
        intervals = embedded.intervals[accepted].sum(axis=0)[chosen]
        spikes = np.sum([embedded.counts[k].sum(axis=1, dtype=np.float64) for k in accepted], axis=0)[chosen]
        rates.append(spikes / (len(accepted) * embedded.spec.window_s))
        short.append(intervals[:, 0] / np.maximum(intervals.sum(axis=1), 1))
    return np.concatenate(rates), np.concatenate(short)
