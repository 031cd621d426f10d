"""The experts of a task: a linear readout per feature set, and the ways in which they speak together.

Which experts there are is decided by what the recordings hold; how far each is heard, at every evidence, by how well it
did on animals that it had not been fitted on. Rows are joined as `gathered` writes them.
Shapes: R examples, U units, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar

from nuclr_stream.binning import BoolArray, Float32Array
from nuclr_stream.bundle import FusionPart, TaskPart
from nuclr_stream.evidence import Calibration, effective_n
from nuclr_stream.experts import Answer, answer
from nuclr_stream.fusion import Fusion, log_softmax
from nuclr_stream.observed import FeatureSet, Seen
from offline_training.calibration import calibrate
from offline_training.examples import Examples
from offline_training.experts import Experts, Said
from offline_training.fusing import fit_fusion, sets_promise
from offline_training.gathered import Gathered, slices
from offline_training.readout import Readout, macro_f1_of
from offline_training.regression import OutOfFold, fit_linear, out_of_fold

C_CANDIDATES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LIMIT = 2.0
"""Standard deviations beyond which a feature says no more: another animal's populations lie far out in some."""
MOST_SEARCHED = 8_000
"""Examples by which C is chosen; everything else uses all of them."""
TEMPERATURES = (-3.0, 5.0)
"""Range of log T within which regularisations are compared."""
VARIED_N = 6.0
"""Evidence from which on the scatter of a unit's windows counts for what is typical."""


@dataclass(frozen=True)
class Unseen:
    """What experts said of examples of animals that neither they nor, as `encoder` says, the encoder had seen."""

    said: Said
    examples: Examples


@dataclass(frozen=True)
class Classifier:
    """A readout with its experts as one classifier of joined rows, answering exactly as the daemon does."""

    readout: Readout
    experts: Experts
    sets: tuple[FeatureSet, ...]

    def answer(self, rows: Float32Array, *, alone: bool = False) -> Answer:
        """What is said of units with these joined rows (U, FACTS + F) of the sets `sets`, by the spike statistics of
        every unit `alone` where the population is too small."""
        seen = seen_of(rows, self.sets, self.experts)
        linears = self.experts.linears
        return answer(
            task_part("task", self.readout, self.experts),
            seen,
            lambda name, features: linears[name].logits(np.nan_to_num(features)),
            prior=None,
            alone=alone,
        )


def seen_of(rows: Float32Array, sets: Sequence[FeatureSet], experts: Experts) -> Seen:
    """Undo the joining of rows (U, FACTS + F) of `sets`, with the evidence as it counts for these experts."""
    n, observed_n, scatter = rows[:, 0], rows[:, 1], rows[:, 2].astype(np.float64)
    features = {name: rows[:, place] for name, place in slices(sets, experts.dim).items()}
    has: dict[FeatureSet, BoolArray] = {name: ~np.isnan(values).any(axis=1) for name, values in features.items()}
    return Seen(n, effective_n(n, scatter, experts.typical_scatter), observed_n, scatter, features, has)


def task_part(name: str, readout: Readout, experts: Experts | None) -> TaskPart:
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
                "experts": experts.sets,
                "fusions": tuple(FusionPart(**vars(fusion)) for fusion in experts.fusions),
                "sets_promise": experts.sets_promise,
            }
            if experts
            else {}
        ),
    )


def typical_scatter(gathered: Sequence[Gathered]) -> float:
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
) -> tuple[dict[FeatureSet, Readout], Experts]:
    """Fit one readout per feature set on joined rows, C chosen by cross-validation over animals, and how they speak
    together on the same cross-validation.

    `scatter` is what is typical of the windows of a unit. Returns the readout of every set by itself too, calibrated
    likewise. Raises ReadoutError when the examples hold one class only.
    """
    known = known.where(~np.isnan(known.features).any(axis=1))
    places = slices(sets, dim)
    linears, chosen, scores, said = {}, {}, {}, {}
    for name in sets:
        own = replace(known, features=known.features[:, places[name]])
        some = own.where(_some(len(own.label)))
        loss = [log_loss_of(out_of_fold(some, len(classes), c=c, limit=LIMIT)) for c in C_CANDIDATES]
        chosen[name] = C_CANDIDATES[int(np.argmin(loss))]  # the first, strongest regularisation wins a tie
        held_out = out_of_fold(own, len(classes), c=chosen[name], limit=LIMIT)
        scores[name], said[name] = macro_f1_of(held_out), held_out.logits
        kept, grouped_by = held_out.kept, held_out.grouped_by
        linears[name] = fit_linear(own, len(classes), c=chosen[name], limit=LIMIT)
    told = [Unseen(said, known.where(kept))]
    what = f"units of {len(np.unique(known.subject))} animals, out of fold by {grouped_by}"
    readouts = {
        name: Readout(
            classes=classes,
            linear=linears[name],
            calibration=calibrate_alone(told, scatter, name),
            c=chosen[name],
            grouped_by=grouped_by,
            out_of_fold_f1=scores[name],
            calibrated_on=what,
        )
        for name in sets
    }
    fusions, promise = fuse(told, scatter, sets)
    return readouts, Experts(dim, linears, chosen, scores, fusions, scatter, promise)


def resting_on(
    told: Sequence[Unseen], readouts: Mapping[FeatureSet, Readout], experts: Experts
) -> tuple[dict[FeatureSet, Readout], Experts]:
    """The same readouts and experts, their calibration and how they speak together resting on unseen animals."""
    fusions, promise = fuse(told, experts.typical_scatter, experts.sets)
    words = unseen_words(told)
    calibrated = {
        name: replace(readout, calibration=calibrate_alone(told, experts.typical_scatter, name), calibrated_on=words)
        for name, readout in readouts.items()
    }
    return calibrated, replace(experts, fusions=fusions, sets_promise=promise)


def say_unseen(
    known: Examples, held_out: BoolArray, classes: int, *, dim: int, c: Mapping[FeatureSet, float]
) -> Unseen | None:
    """What experts fitted on the examples that are not `held_out` (R,) say of those that are, None if nothing can be
    said. A class that lives in held-out animals only is left out: nobody could have known it."""
    known, held_out = known.where(ok := ~np.isnan(known.features).any(axis=1)), held_out[ok]
    rest = ~np.isin(known.subject, known.subject[held_out])
    held_out = held_out & np.isin(known.label, known.label[rest])
    if not held_out.any() or len(np.unique(known.label[rest])) < 2:
        return None
    train, test = known.where(rest), known.where(held_out)
    places = slices(tuple(c), dim)
    said: dict[FeatureSet, Float32Array] = {}
    for name, value in c.items():
        own = replace(train, features=train.features[:, places[name]])
        said[name] = fit_linear(own, classes, c=value, limit=LIMIT).logits(test.features[:, places[name]])
    return Unseen(said, test)


def fuse(told: Sequence[Unseen], scatter: float, sets: Sequence[FeatureSet]) -> tuple[tuple[Fusion, ...], str]:
    """The ways in which the experts speak together: all of them, and spike statistics by themselves, which need nobody
    else; and what sets of classes promise."""
    logits, known, weights = _pooled(told)
    n, animal = effective(known, scatter), known.subject
    ways = [fit_fusion({name: logits[name] for name in sets}, known.label, n, weights=weights, animal=animal)]
    if "statistics" in sets:
        alone = {"statistics": logits["statistics"]}
        ways.append(fit_fusion(alone, known.label, known.features[:, 1], weights=weights, animal=animal))
    return tuple(ways), sets_promise(len(np.unique(animal)))


def calibrate_alone(told: Sequence[Unseen], scatter: float, name: FeatureSet) -> Calibration:
    """Calibration of one readout by itself."""
    logits, known, weights = _pooled(told)
    return calibrate(logits[name], known.label, effective(known, scatter), weights=weights)


def effective(known: Examples, scatter: float) -> Float32Array:
    """The evidence (R,) that counts, of joined rows."""
    return effective_n(known.features[:, 0], known.features[:, 2].astype(np.float64), scatter)


def unseen_words(unseen: Sequence[Unseen]) -> str:
    """Whom a calibration rests on, in words."""
    animals = sorted({str(subject) for each in unseen for subject in each.examples.subject})
    return f"units of {len(animals)} animals ({', '.join(animals)}), each unseen by its fold's encoder and readouts"


def log_loss_of(held_out: OutOfFold) -> float:
    """Mean log loss of what was said of examples held out, units alike, classes balanced, at the best temperature.

    It tells regularisations apart where macro-F1 over a few populations is a matter of luck.
    """
    known, said = held_out.examples, log_softmax(held_out.logits)
    share = known.weights(held_out.logits.shape[1])
    share /= share.sum()
    rows = np.arange(len(known.label))

    def loss(log_t: float) -> float:
        return float(-(share * log_softmax(said / np.exp(log_t))[rows, known.label]).sum())

    return float(minimize_scalar(loss, bounds=TEMPERATURES, method="bounded").fun)


def _some(examples: int) -> BoolArray:
    """Which of so many examples C is chosen by, the same ones in every run."""
    chosen = np.zeros(examples, dtype=bool)
    chosen[np.random.default_rng(0).permutation(examples)[:MOST_SEARCHED]] = True
    return chosen


def _pooled(told: Sequence[Unseen]) -> tuple[dict[FeatureSet, Float32Array], Examples, np.ndarray]:
    """Everything that was said, about whom, and weights: every unit once, classes balanced."""
    known = Examples(
        *(np.concatenate([getattr(each.examples, name) for each in told]) for name in Examples.__dataclass_fields__)
    )
    shares = np.concatenate([each.examples.unit_shares() for each in told])
    per_class = np.bincount(known.label, weights=shares)
    logits = {name: np.concatenate([each.said[name] for each in told]) for name in told[0].said}
    return logits, known, shares / per_class[known.label]
