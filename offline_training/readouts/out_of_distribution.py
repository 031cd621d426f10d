"""What training knows of its units, for the daemon to notice those that are unlike them.

See `nuclr_stream.prediction.out_of_distribution`.
Limits are such that LYING_WITHIN of the units of an animal lie within, judged by what is known of the other animals.
Shapes: R examples, U units, F features, C centres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.covariance import ledoit_wolf
from sklearn.model_selection import GroupKFold

from nuclr_stream.features.accumulator import FeatureSet
from nuclr_stream.features.unit_rows import Float64Array
from nuclr_stream.prediction.out_of_distribution import KINDS, KnownUnits, OutOfDistribution
from nuclr_stream.windows.binning import Int64Array
from offline_training.config import UNLABELLED
from offline_training.readouts.examples import Examples, examples
from offline_training.readouts.feature_source import FeatureSource

LYING_WITHIN = 0.99
RATES_WITHIN = (0.001, 0.999)
LEAST_SHORT_INTERVALS = 0.01
"""Share of intervals below 1 ms that is never held against a unit: sorters let some through."""
_MAX_FOLDS = 7


def fit_out_of_distribution(
    sources: Sequence[FeatureSource], labels: Mapping[str, Sequence[Int64Array]]
) -> OutOfDistribution:
    """Learn from all units that are labelled for any task; classes of the first task are the centres, and one more are
    the units that it does not label."""
    first, *_ = labels.values()
    everyone = [
        np.where(np.any([of[i] != UNLABELLED for of in labels.values()], axis=0), first[i] + 1, UNLABELLED)
        for i in range(len(sources))
    ]
    known = examples(sources, everyone)
    sets = {name: _known_units(known.where(known.has[name]), name) for name in KINDS if name in known.features}
    rates, short = _rates_and_short(sources, everyone)
    limits = np.quantile(rates, RATES_WITHIN) if len(rates) else (0.0, np.finfo(np.float32).max)
    worst = float(np.quantile(short, LYING_WITHIN)) if len(short) else 1.0
    return OutOfDistribution(sets, (float(limits[0]), float(limits[1])), max(worst, LEAST_SHORT_INTERVALS))


def _known_units(known: Examples, name: FeatureSet) -> KnownUnits:
    """Centres and whitening of one feature set, and for every length of the examples the distance within which
    LYING_WITHIN of the units of animals left out lie."""
    features = known.features[name].astype(np.float64)
    distance = np.full(len(features), np.nan)
    groups = known.subject if len(np.unique(known.subject)) > 1 else known.recording
    number = min(len(np.unique(groups)), _MAX_FOLDS)
    for train, test in GroupKFold(number).split(features, groups=groups) if number > 1 else ():
        distance[test] = _fitted(features[train], known.label[train]).distance(features[test].astype(np.float32))
    whole = _fitted(features, known.label)
    if number < 2:
        distance = whole.distance(features.astype(np.float32))
    exposure = known.exposure_of({name})
    limit_at = {
        max(float(np.median(exposure[at])), 1.0): float(np.quantile(distance[at], LYING_WITHIN))
        for length in np.unique(known.length)
        for at in [known.length == length]
    }
    knots = sorted(limit_at)
    return KnownUnits(whole.centres, whole.whiten, np.array(knots), np.array([limit_at[n] for n in knots]))


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
    sources: Sequence[FeatureSource], labels: Sequence[Int64Array]
) -> tuple[Float64Array, Float64Array]:
    """Mean rates in Hz of all labelled units, and their shares of intervals below 1 ms, over whole recordings."""
    rates, short = [np.zeros(0)], [np.zeros(0)]
    for source, label in zip(sources, labels, strict=True):
        embedded = source.embedded
        chosen = label != UNLABELLED
        accepted = [k for k, exclusion in enumerate(embedded.exclusions) if not exclusion]
        if embedded.spec.input_kind == "traces" or not accepted or not chosen.any():
            continue
        intervals = embedded.intervals[accepted].sum(axis=0)[chosen]
        spikes = np.sum([embedded.counts[k].sum(axis=1, dtype=np.float64) for k in accepted], axis=0)[chosen]
        rates.append(spikes / (len(accepted) * embedded.spec.window_s))
        short.append(intervals[:, 0] / np.maximum(intervals.sum(axis=1), 1))
    return np.concatenate(rates), np.concatenate(short)
