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

from nuclr_stream.features.mean_embedding import KNOTS
from nuclr_stream.features.unit_rows import Float64Array
from nuclr_stream.prediction.out_of_distribution import KINDS, KnownUnits, OutOfDistribution
from nuclr_stream.windows.binning import Int64Array
from offline_training.config import UNLABELLED
from offline_training.readouts.calibration import nearest_knot
from offline_training.readouts.examples import Examples, examples
from offline_training.readouts.feature_source import FeatureSource
from offline_training.readouts.predictor_readouts import of_set, typical_scatter

LYING_WITHIN = 0.99
RATES_WITHIN = (0.001, 0.999)
LEAST_SHORT_INTERVALS = 0.01
"""Share of intervals below 1 ms that is never held against a unit: sorters let some through."""
_MAX_FOLDS = 7


def fit_familiarity(gathered: Sequence[FeatureSource], labels: Mapping[str, Sequence[Int64Array]]) -> OutOfDistribution:
    """Learn from all units that are labelled for any task; classes of the first task are the centres, and one more are
    the units that it does not label."""
    first, *_ = labels.values()
    everyone = [
        np.where(np.any([of[i] != UNLABELLED for of in labels.values()], axis=0), first[i] + 1, UNLABELLED)
        for i in range(len(gathered))
    ]
    known = examples(gathered, everyone)
    own, dim, scatter = gathered[0].sets, gathered[0].embedded.embeddings.shape[2], typical_scatter(gathered)
    sets = {name: _familiar(of_set(known, name, own, dim=dim, scatter=scatter)) for name in KINDS if name in own}
    rates, short = _rates_and_short(gathered, everyone)
    limits = np.quantile(rates, RATES_WITHIN) if len(rates) else (0.0, np.finfo(np.float32).max)
    worst = float(np.quantile(short, LYING_WITHIN)) if len(short) else 1.0
    return OutOfDistribution(sets, (float(limits[0]), float(limits[1])), max(worst, LEAST_SHORT_INTERVALS))


def _familiar(known: Examples) -> KnownUnits:
    known = known.where(~np.isnan(known.features).any(axis=1))
    features = known.features.astype(np.float64)
    distance = np.full(len(features), np.nan)
    groups = known.subject if len(np.unique(known.subject)) > 1 else known.recording
    folds = min(len(np.unique(groups)), _MAX_FOLDS)
    for train, test in GroupKFold(folds).split(features, groups=groups) if folds > 1 else ():
        distance[test] = _fitted(features[train], known.label[train]).distance(features[test].astype(np.float32))
    whole = _fitted(features, known.label)
    if folds < 2:
        distance = whole.distance(features.astype(np.float32))
    group = nearest_knot(known.n)
    present = [k for k in range(len(KNOTS)) if (group == k).any()]
    limits = [float(np.quantile(distance[group == k], LYING_WITHIN)) for k in present]
    return KnownUnits(whole.centres, whole.whiten, np.array([KNOTS[k] for k in present]), np.array(limits))


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
    gathered: Sequence[FeatureSource], labels: Sequence[Int64Array]
) -> tuple[Float64Array, Float64Array]:
    """Mean rates in Hz of all labelled units, and their shares of intervals below 1 ms, over whole recordings."""
    rates, short = [np.zeros(0)], [np.zeros(0)]
    for source, label in zip(gathered, labels, strict=True):
        embedded = source.embedded
        chosen = label != UNLABELLED
        accepted = [k for k, exclusion in enumerate(embedded.refusals) if not exclusion]
        if embedded.spec.input_kind == "traces" or not accepted or not chosen.any():
            continue
        intervals = embedded.intervals[accepted].sum(axis=0)[chosen]
        spikes = np.sum([embedded.counts[k].sum(axis=1, dtype=np.float64) for k in accepted], axis=0)[chosen]
        rates.append(spikes / (len(accepted) * embedded.spec.window_s))
        short.append(intervals[:, 0] / np.maximum(intervals.sum(axis=1), 1))
    return np.concatenate(rates), np.concatenate(short)
