"""The predictors of a task: a linear readout per feature set, and the ways in which they speak together.

Which predictors there are is decided by what the recordings hold; how far each is heard, at every exposure, by how well it
did on animals that it had not been fitted on. Rows are joined as `gathered` writes them.
Shapes: R examples, U units, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nuclr_stream.bundle.manifest import PoolPart, TaskPart
from nuclr_stream.features.accumulator import FeatureSet, FeatureSnapshot
from nuclr_stream.features.mean_embedding import Calibration, effective_sample_size
from nuclr_stream.prediction.answer import Answer, answer
from nuclr_stream.prediction.pool import LogLinearPool
from nuclr_stream.windows.binning import BoolArray, Float32Array
from offline_training.readouts.calibration import calibrate
from offline_training.readouts.examples import Examples
from offline_training.readouts.feature_source import FeatureSource, slices
from offline_training.readouts.fusing import fit_pool, sets_promise
from offline_training.readouts.predictors import Predictors, Said
from offline_training.readouts.readout import Readout, choose_c, macro_f1_of
from offline_training.readouts.regression import fit_linear, out_of_fold

VARIED_N = 6.0
"""MeanEmbedding from which on the scatter of a unit's windows counts for what is typical."""


@dataclass(frozen=True)
class Unseen:
    """What predictors said of examples of animals that neither they nor, as `encoder` says, the encoder had seen."""

    said: Said
    examples: Examples


@dataclass(frozen=True)
class Classifier:
    """A readout with its predictors as one classifier of joined rows, answering exactly as the daemon does."""

    readout: Readout
    predictors: Predictors
    sets: tuple[FeatureSet, ...]

    def answer(self, rows: Float32Array, *, alone: bool = False) -> Answer:
        """What is said of units with these joined rows (U, FACTS + F) of the sets `sets`, by the spike statistics of
        every unit `alone` where the population is too small."""
        seen = seen_of(rows, self.sets, self.predictors)
        linears = self.predictors.linears
        return answer(
            task_part("task", self.readout, self.predictors),
            seen,
            lambda name, features, n: linears[name].logits(np.nan_to_num(features), n),
            prior=None,
            alone=alone,
        )


def seen_of(rows: Float32Array, sets: Sequence[FeatureSet], predictors: Predictors) -> FeatureSnapshot:
    """Undo the joining of rows (U, FACTS + F) of `sets`, with the exposure as it counts for these predictors."""
    n, observed_exposure, scatter = rows[:, 0], rows[:, 1], rows[:, 2].astype(np.float64)
    features = {name: rows[:, place] for name, place in slices(sets, predictors.dim).items()}
    has: dict[FeatureSet, BoolArray] = {name: ~np.isnan(values).any(axis=1) for name, values in features.items()}
    return FeatureSnapshot(
        n, effective_sample_size(n, scatter, predictors.typical_scatter), observed_exposure, scatter, features, has
    )


def task_part(name: str, readout: Readout, predictors: Predictors | None) -> TaskPart:
    """What a manifest says of a task."""
    return TaskPart(
        name=name,
        classes=readout.classes,
        prior=readout.prior,
        n=readout.calibration.n,
        temperature=readout.calibration.temperature,
        abstain_below=readout.calibration.abstain_below,
        calibrated_on=readout.calibrated_on,
        **(
            {
                "predictors": predictors.sets,
                "pools": tuple(PoolPart(**vars(pool)) for pool in predictors.pools),
                "sets_promise": predictors.sets_promise,
            }
            if predictors
            else {}
        ),
    )


def typical_scatter(gathered: Sequence[FeatureSource]) -> float:
    """Median over units of how far the windows of a whole recording scatter; 1 where nothing is known."""
    seen = [source.seen(0, len(source.end_s)) for source in gathered]
    n = np.concatenate([each.n for each in seen])
    scatter = np.concatenate([each.scatter for each in seen])
    varied = n >= min(VARIED_N, n.max(initial=0))
    known = scatter[varied & (scatter > 0)]
    return float(np.median(known)) if len(known) else 1.0


def fit_experts(
    known: Examples,
    classes: tuple[str, ...],
    sets: Sequence[FeatureSet],
    *,
    dim: int,
    scatter: float,
) -> tuple[dict[FeatureSet, Readout], Predictors]:
    """Fit one readout per feature set on joined rows, C chosen by cross-validation over animals, and how they speak
    together on the same cross-validation.

    `scatter` is what is typical of the windows of a unit. Returns the readout of every set by itself too, calibrated
    likewise. Raises ReadoutError when the examples hold one class only.
    """
    known = known.where(~np.isnan(known.features).any(axis=1))
    linears, chosen, scores, said = {}, {}, {}, {}
    for name in sets:
        own = of_set(known, name, sets, dim=dim, scatter=scatter)
        chosen[name] = choose_c(own, len(classes))
        held_out = out_of_fold(own, len(classes), c=chosen[name])
        scores[name], said[name] = macro_f1_of(held_out), held_out.logits
        kept, grouped_by = held_out.kept, held_out.grouped_by
        linears[name] = fit_linear(own, len(classes), c=chosen[name])
    stated = [Unseen(said, known.where(kept))]
    what = f"units of {len(np.unique(known.subject))} animals, out of fold by {grouped_by}"
    readouts = {
        name: Readout(
            classes=classes,
            linear=linears[name],
            calibration=calibrate_alone(stated, scatter, name),
            c=chosen[name],
            grouped_by=grouped_by,
            out_of_fold_f1=scores[name],
            calibrated_on=what,
        )
        for name in sets
    }
    pools, promise = fuse(stated, scatter, sets)
    return readouts, Predictors(dim, linears, chosen, scores, pools, scatter, promise)


def resting_on(
    stated: Sequence[Unseen], readouts: Mapping[FeatureSet, Readout], predictors: Predictors
) -> tuple[dict[FeatureSet, Readout], Predictors]:
    """The same readouts and predictors, their calibration and how they speak together resting on unseen animals."""
    pools, promise = fuse(stated, predictors.typical_scatter, predictors.sets)
    words = unseen_words(stated)
    calibrated = {
        name: replace(
            readout, calibration=calibrate_alone(stated, predictors.typical_scatter, name), calibrated_on=words
        )
        for name, readout in readouts.items()
    }
    return calibrated, replace(predictors, pools=pools, sets_promise=promise)


def say_unseen(
    known: Examples, held_out: BoolArray, classes: int, *, dim: int, scatter: float, c: Mapping[FeatureSet, float]
) -> Unseen | None:
    """What predictors fitted on the examples that are not `held_out` (R,) say of those that are, None if nothing can be
    said. A class that lives in held-out animals only is left out: nobody could have known it."""
    known, held_out = known.where(ok := ~np.isnan(known.features).any(axis=1)), held_out[ok]
    rest = ~np.isin(known.subject, known.subject[held_out])
    held_out = held_out & np.isin(known.label, known.label[rest])
    if not held_out.any() or len(np.unique(known.label[rest])) < 2:
        return None
    train, test = known.where(rest), known.where(held_out)
    said: dict[FeatureSet, Float32Array] = {}
    for name, value in c.items():
        own, asked = (of_set(each, name, tuple(c), dim=dim, scatter=scatter) for each in (train, test))
        said[name] = fit_linear(own, classes, c=value).logits(asked.features, asked.n)
    return Unseen(said, test)


def fuse(stated: Sequence[Unseen], scatter: float, sets: Sequence[FeatureSet]) -> tuple[tuple[LogLinearPool, ...], str]:
    """The ways in which the predictors speak together: all that know the company of a unit, for these know what the others
    know, and spike statistics by themselves, which need nobody else; and what sets of classes promise."""
    logits, known, weights = _pooled(stated)
    ways = []
    for speaking in ([name for name in sets if name.endswith("neighbourhood")], ["statistics"]):
        if set(speaking) <= set(sets):
            n = rests_on(known, speaking[0], scatter)
            heard = {name: logits[name] for name in speaking}
            ways.append(fit_pool(heard, known.label, n, weights=weights, animal=known.subject))
    return tuple(ways), sets_promise(len(np.unique(known.subject)))


def calibrate_alone(stated: Sequence[Unseen], scatter: float, name: FeatureSet) -> Calibration:
    """Calibration of one readout by itself."""
    logits, known, weights = _pooled(stated)
    return calibrate(logits[name], known.label, rests_on(known, name, scatter), weights=weights)


def of_set(known: Examples, name: FeatureSet, sets: Sequence[FeatureSet], *, dim: int, scatter: float) -> Examples:
    """The features of one of the `sets` of joined rows, with the exposure that they rest on."""
    place = slices(sets, dim)[name]
    return replace(known, features=known.features[:, place], n=rests_on(known, name, scatter))


def rests_on(known: Examples, name: FeatureSet, scatter: float) -> Float32Array:
    """The exposure (R,) that a set of joined rows rests on, as `FeatureSnapshot.exposure_for` has it."""
    if name.startswith("statistics"):
        return known.features[:, 1]
    return effective_sample_size(known.features[:, 0], known.features[:, 2].astype(np.float64), scatter)


def unseen_words(unseen: Sequence[Unseen]) -> str:
    """Whom a calibration rests on, in words."""
    animals = sorted({str(subject) for each in unseen for subject in each.examples.subject})
    return f"units of {len(animals)} animals ({', '.join(animals)}), each unseen by its fold's encoder and readouts"


def _pooled(stated: Sequence[Unseen]) -> tuple[dict[FeatureSet, Float32Array], Examples, np.ndarray]:
    """Everything that was said, about whom, and weights: every unit once, classes balanced."""
    known = Examples(
        *(np.concatenate([getattr(each.examples, name) for each in stated]) for name in Examples.__dataclass_fields__)
    )
    shares = np.concatenate([each.examples.unit_shares() for each in stated])
    per_class = np.bincount(known.label, weights=shares)
    logits = {name: np.concatenate([each.said[name] for each in stated]) for name in stated[0].said}
    return logits, known, shares / per_class[known.label]
