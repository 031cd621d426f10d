"""LOLCAT (Cell Reports 2023), from its description: a supervised set network on the ISI histograms of short snippets.

A recording is cut into snippets of 3 s; the log-spaced ISI histogram of each goes through an MLP, multi-head gated
attention pools the set, and an MLP gives the class. Batches are balanced over classes, and every unit drawn shows a
random part of its snippets. Its own choices here: how long it trains is chosen on animals of the training set that the
network has not seen, and the same out-of-fold logits calibrate it, as for readouts.
Shapes: U units, K snippets, B batch, H heads, C classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn

from nuclr_stream.features.accumulator import FeatureSnapshot
from nuclr_stream.features.spike_statistics import ISI_BINS
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import BoolArray, Int64Array, WindowSpec
from offline_training.config import UNLABELLED
from offline_training.evaluation.baselines.one_set import feature_set, snapshot_of
from offline_training.evaluation.baselines.single_unit import isi_steps, rate_steps
from offline_training.readouts.examples import Examples, examples, joined
from offline_training.readouts.pooling import calibrated, precision_promise, sets_promise
from offline_training.readouts.predictor import Predictor
from offline_training.readouts.regression import ABSENT_LOGIT, ReadoutError, grouping
from offline_training.readouts.task_model import TaskModel
from offline_training.scores import macro_f1
from offline_training.studies.budget import Budget, CpuClock, parameters_of

NAME = "lolcat"
SNIPPET_S = 3
SNIPPET = WindowSpec(Fraction(1), SNIPPET_S, 1, SNIPPET_S)


@dataclass(frozen=True)
class LolcatSettings:
    """Sizes and length. `stops` are the steps among which the inner folds choose; a unit shows 1 to `most_snippets`."""

    hidden: int = 64
    heads: int = 4
    dropout: float = 0.2
    learning_rate: float = 1e-3
    batch: int = 64
    most_snippets: int = 48
    stops: tuple[int, ...] = (50, 100, 200, 400)
    inner_folds: int = 3

    def times_as_long(self, factor: float) -> LolcatSettings:
        """The same with `factor` times as many steps at every stop, one at least."""
        return replace(self, stops=tuple(sorted({max(round(stop * factor), 1) for stop in self.stops})))


class Lolcat(nn.Module):
    """The network: `encode` snippets one by one, `pool` sets of them."""

    def __init__(self, classes: int, settings: LolcatSettings) -> None:
        super().__init__()
        wide, drop = settings.hidden, nn.Dropout(settings.dropout)
        self.encode = nn.Sequential(nn.Linear(ISI_BINS, wide), nn.ReLU(), drop, nn.Linear(wide, wide), nn.ReLU())
        self.content = nn.Linear(wide, wide)
        self.gate = nn.Linear(wide, wide)
        self.attention = nn.Linear(wide, settings.heads)
        self.head = nn.Sequential(nn.Linear(settings.heads * wide, wide), nn.ReLU(), drop, nn.Linear(wide, classes))

    def forward(self, histograms: Tensor, present: Tensor) -> Tensor:
        """Logits (B, C) of sets of histograms (B, K, bins), of which those `present` (B, K) count; one at least."""
        seen = self.encode(histograms[present])
        encoded = seen.new_zeros(*present.shape, seen.shape[1])
        encoded[present] = seen
        scores = seen.new_full((*present.shape, self.attention.out_features), -torch.inf)
        scores[present] = self.attention(torch.tanh(self.content(seen)) * torch.sigmoid(self.gate(seen)))
        weights = torch.softmax(scores, dim=1)
        logits: Tensor = self.head(torch.einsum("bkh,bkd->bhd", weights, encoded).flatten(1))
        return logits


@dataclass(frozen=True)
class Snippets:
    """ISI histograms (U, K, bins) of the snippets of one recording, and in which windows (W, U) its units fired."""

    recording_id: str
    subject_id: str
    end_s: npt.NDArray[np.float64]
    window_s: float
    counts: npt.NDArray[np.int16]
    fired: BoolArray

    @classmethod
    def of(cls, recording: Recording, spec: WindowSpec) -> Snippets:
        """Cut a recording; `spec` are the windows in which exposure is counted, as for every other feature."""
        windows = rate_steps(recording, spec)
        counts = np.ascontiguousarray(isi_steps(recording, SNIPPET).counts.transpose(1, 0, 2).astype(np.int16))
        return cls(recording.recording_id, recording.subject_id, windows.end_s, spec.window_s, counts, windows.fired)

    def histograms(self, units: int | slice, snippets: npt.NDArray[np.integer] | slice) -> Tensor:
        """Logarithms of one plus the counts of some snippets of a unit, or of all units: (..., K, bins)."""
        return torch.from_numpy(np.log1p(self.counts[units, snippets].astype(np.float32)))


@dataclass(frozen=True)
class LolcatLogits:
    """The logits of a network for the units of one recording over any stretch, in the place of features."""

    network: Lolcat
    snippets: Snippets
    steps_per_window: int = 1
    name: str = NAME

    @property
    def recording_id(self) -> str:
        """The recording."""
        return self.snippets.recording_id

    @property
    def subject_id(self) -> str:
        """The animal."""
        return self.snippets.subject_id

    @property
    def end_s(self) -> npt.NDArray[np.float64]:
        """When each window (W,) is over."""
        return self.snippets.end_s

    def snapshot(self, first: int, last: int) -> FeatureSnapshot:
        """Logits (U, C) from the snippets that lie wholly in windows [first, last); the exposure is in how many of
        these windows the unit fired."""
        window_s = self.snippets.window_s
        start = int(np.ceil(first * window_s / SNIPPET_S))
        stop = max(int(last * window_s / SNIPPET_S), start + 1)
        histograms = self.snippets.histograms(slice(None), slice(start, stop))
        self.network.eval()
        with torch.inference_mode():
            logits = self.network(histograms, torch.ones(histograms.shape[:2], dtype=torch.bool))
        fired = self.snippets.fired[first:last].sum(axis=0).astype(np.float32)
        return snapshot_of(self.name, logits.numpy(), fired)


@dataclass(frozen=True)
class FittedLolcat:
    """A network, the task model that calibrates its logits, and what both cost."""

    network: Lolcat
    model: TaskModel
    budget: Budget


def fit_lolcat(
    snippets: Sequence[Snippets],
    labels: Sequence[Int64Array],
    classes: tuple[str, ...],
    *,
    seed: int,
    settings: LolcatSettings = LolcatSettings(),
) -> FittedLolcat:
    """Train on the labelled units (labels (U,) per recording, UNLABELLED elsewhere).

    Raises ReadoutError when they come from one recording only, or hold a single class.
    """
    clock = CpuClock()
    held_out, tried = _inner_folds(snippets, labels, classes, seed=seed, settings=settings)
    scores = {stop: _macro_f1(known) for stop, known in held_out.items()}
    steps = max(scores, key=lambda stop: (scores[stop], -stop))
    *_, (_, network) = train(snippets, labels, len(classes), seed=seed, stops=(steps,), settings=settings)
    model = _calibrated(held_out[steps], _passed_on(labels, len(classes)), classes)
    chosen = ", ".join(f"{stop}: {score:.3f}" for stop, score in scores.items())
    how = (
        f"{steps} steps of {settings.batch} units, chosen by macro-F1 on {tried} inner folds of training animals "
        f"({chosen}); CPU seconds are of all {tried + 1} trainings"
    )
    return FittedLolcat(network, model, Budget(steps, clock.cpu_s, parameters_of(network), how))


def train(
    snippets: Sequence[Snippets],
    labels: Sequence[Int64Array],
    classes: int,
    *,
    seed: int,
    stops: tuple[int, ...],
    settings: LolcatSettings,
) -> Iterator[tuple[int, Lolcat]]:
    """Train one network from nothing and yield (steps, network) at every one of `stops`; it goes on when asked to."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 3])
    network = Lolcat(classes, settings)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    pools = _units_by_class(labels)
    for step in range(1, max(stops) + 1):
        histograms, present, label = _batch(rng, snippets, pools, settings)
        network.train()
        loss = nn.functional.cross_entropy(network(histograms, present), label)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step in stops:
            yield step, network


def _batch(
    rng: np.random.Generator,
    snippets: Sequence[Snippets],
    pools: dict[int, list[tuple[int, int]]],
    settings: LolcatSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    """Units balanced over classes, each with a random number (log-uniform) of its snippets, drawn at random."""
    label = rng.choice(list(pools), settings.batch)
    histograms = torch.zeros(settings.batch, settings.most_snippets, ISI_BINS)
    present = torch.zeros(settings.batch, settings.most_snippets, dtype=torch.bool)
    for row, one in enumerate(label):
        place, unit = pools[one][rng.integers(len(pools[one]))]
        there = snippets[place].counts.shape[1]
        shown = min(int(np.exp(rng.uniform(0, np.log(settings.most_snippets + 1)))), there)
        histograms[row, :shown] = snippets[place].histograms(unit, rng.choice(there, shown, replace=False))
        present[row, :shown] = True
    return histograms, present, torch.from_numpy(label)


def _units_by_class(labels: Sequence[Int64Array]) -> dict[int, list[tuple[int, int]]]:
    """For every class that occurs its units as (place of the recording, row)."""
    pools: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for place, label in enumerate(labels):
        for unit in np.flatnonzero(label != UNLABELLED):
            pools[int(label[unit])].append((place, int(unit)))
    if len(pools) < 2:
        raise ReadoutError(f"labelled units of {len(pools)} classes: nothing to tell apart")
    return dict(sorted(pools.items()))


def _inner_folds(
    snippets: Sequence[Snippets],
    labels: Sequence[Int64Array],
    classes: tuple[str, ...],
    *,
    seed: int,
    settings: LolcatSettings,
) -> tuple[dict[int, Examples], int]:
    """Logits, as features, of exposure-matched examples from networks that had not seen their animals, per stop; and
    how many folds there were. Units whose class an inner network could not know are left out."""
    parts: dict[int, list[Examples]] = defaultdict(list)
    folds = 0
    for kept in _without_some(snippets, labels, settings.inner_folds):
        inner = [label if keep else np.full_like(label, UNLABELLED) for label, keep in zip(labels, kept, strict=True)]
        known = np.unique(np.concatenate(inner))
        rest = [
            np.where(np.isin(label, known) & (not keep), label, UNLABELLED)
            for label, keep in zip(labels, kept, strict=True)
        ]
        tested = [place for place, label in enumerate(rest) if (label != UNLABELLED).any()]
        if (known != UNLABELLED).sum() < 2 or not tested:
            continue
        folds += 1
        for step, network in train(snippets, inner, len(classes), seed=seed, stops=settings.stops, settings=settings):
            logits = [LolcatLogits(network, snippets[place]) for place in tested]
            parts[step].append(_only_known(examples(logits, [rest[place] for place in tested]), known, folds))
    if not folds:
        raise ReadoutError("cross-validation is impossible: no class has units in two animals (or two recordings)")
    return {stop: joined(found) for stop, found in parts.items()}, folds


def _without_some(snippets: Sequence[Snippets], labels: Sequence[Int64Array], folds: int) -> Iterator[list[bool]]:
    """Which recordings are kept while the others test, grouped by animal (by recording, with one animal only)."""
    labelled = [place for place, label in enumerate(labels) if (label != UNLABELLED).any()]
    animals = {snippets[place].subject_id for place in labelled}
    groups = [s.subject_id if len(animals) > 1 else s.recording_id for s in snippets]
    unit_groups = np.concatenate([np.full((labels[p] != UNLABELLED).sum(), groups[p]) for p in labelled])
    number = min(len(np.unique(unit_groups)), folds)
    if number < 2:
        raise ReadoutError(f"labelled units of one recording only ({groups[labelled[0]]}): two are needed at least")
    for _, test in GroupKFold(number).split(unit_groups, groups=unit_groups):
        yield [group not in set(unit_groups[test]) for group in groups]


def _only_known(found: Examples, known: Int64Array, fold: int) -> Examples:
    """Examples with the logits of classes that the network never saw at ABSENT_LOGIT, and units numbered by fold."""
    name = feature_set(NAME)
    logits = found.features[name].copy()
    logits[:, np.setdiff1d(np.arange(logits.shape[1]), known)] = ABSENT_LOGIT
    return replace(found, features={name: logits}, unit=found.unit + fold * 10**9)


def _passed_on(labels: Sequence[Int64Array], classes: int) -> Predictor:
    """A predictor whose features are logits already; classes without a training unit are ruled out."""
    bias = np.full(classes, ABSENT_LOGIT)
    bias[list(_units_by_class(labels))] = 0.0
    identity = np.eye(classes)[None]
    return Predictor(np.ones(1), identity, bias[None], np.zeros(classes), np.ones(classes))


def _calibrated(known: Examples, predictor: Predictor, classes: tuple[str, ...]) -> TaskModel:
    """The task model of a network, calibrated on logits for animals that inner networks had not seen."""
    name = feature_set(NAME)
    held = {name: predictor.logits(known.features[name], known.exposure)}
    pool = calibrated(held, known, (name,))
    animals = len(np.unique(known.subject))
    group = grouping(known)
    return TaskModel(
        classes=classes,
        predictors={name: predictor},
        pools=(pool,),
        single={name: pool},
        c={},
        scores={},
        calibrated_on=f"units of {animals} animals, each predicted by a network that saw nothing of its {group}",
        threshold_promise=precision_promise(pool, held, known),
        sets_promise=sets_promise(animals),
    )


def _macro_f1(known: Examples) -> float:
    prediction = known.features[feature_set(NAME)].argmax(axis=1)
    score: float = macro_f1(known.label, prediction, np.unique(known.label), weights=known.shares())
    return score
