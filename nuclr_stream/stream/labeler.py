"""Messages of one probe in, predictions out, without I/O: no socket, clock or thread lives here.

`push` and `cut` belong to one thread, `label` to another (or to the same): they share nothing but the Window that
crosses. Time comes in as an argument, so ten hours replay in a test, deterministically.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nuclr_stream.errors import ConfigError, NonFiniteError
from nuclr_stream.features.accumulator import FeatureAccumulator, FeatureSnapshot
from nuclr_stream.inference.model import Model
from nuclr_stream.prediction.answer import Answer, Logits, answer
from nuclr_stream.prediction.evidence import Evidence
from nuclr_stream.prediction.out_of_distribution import OutOfDistributionScore
from nuclr_stream.prediction.stability import Stability
from nuclr_stream.stream.population import Population
from nuclr_stream.stream.units import Operation
from nuclr_stream.stream.window import Window
from nuclr_stream.windows.binning import Float32Array, Int64Array, WindowSpec
from nuclr_stream.wire import Abstained, Input, Predictions, TaskPredictions, UnitFlag

MAX_UNITS = 4_096


@dataclass(frozen=True)
class Labelled:
    """What one window led to: predictions of all units (U,), their mean and last embeddings (U, D) float32.

    `evidence` is what each task's predictions were made from, `window` the one that was labelled; both are gone after a
    restart, until the next window.
    """

    predictions: Predictions
    mean: Float32Array
    last: Float32Array
    evidence: Mapping[str, Evidence]
    window: Window | None


class Labeler:
    """One probe, live: `push` messages, `cut` windows until there is none, `label` each of them in order.

    Args (this is the one place where they are declared; whoever needs them takes a made Labeler):
        model: the bundle, ready to run.
        stream: name of the stream, the probe's id.
        hop_s: time between windows, a whole number of bins; None for that of the bundle.
        lateness_s: how long a bin stays open behind the watermark, for data that come late.
        max_units: most units that are taken; never more than the bundle was checked for.
        half_life_s: time in which exposure fades by half, for units that drift; None to forget nothing.
        priors: class weights by task in the place of the bundle's class prior, see `checked_priors`.
        abstain: by task the top probability below which no class is called, in the place of the bundle's thresholds.

    Raises ConfigError for what these can not be.
    """

    def __init__(
        self,
        model: Model,
        *,
        stream: str,
        hop_s: float | None = None,
        lateness_s: float = 0.0,
        max_units: int = MAX_UNITS,
        half_life_s: float | None = None,
        priors: Mapping[str, Mapping[str, float]] | None = None,
        abstain: Mapping[str, float] | None = None,
    ) -> None:
        self.model = model
        self.stream = stream
        manifest = model.manifest
        self.spec = spec_with_hop(model, hop_s)
        self.rules = manifest.window_rules
        self.population = Population(
            self.spec,
            self.rules,
            stream=stream,
            lateness_s=lateness_s,
            max_units=min(max_units, manifest.max_units),
        )
        if half_life_s is not None and not 0 < half_life_s < np.inf:
            raise ConfigError(f"half_life_s = {half_life_s}: give seconds above 0, or leave it out to forget nothing")
        self._half_life_s = half_life_s
        self._features = FeatureAccumulator(self.spec, manifest.embedding_dim, half_life_s=half_life_s)
        self._priors = checked_priors(model, priors or {})
        self._abstain = checked_thresholds(model, abstain or {})
        self._stability = Stability()
        self._epoch: int | None = None
        self._small = False  # whether the population was too small in the last window that was not excluded

    # -- the side of the data ----------------------------------------------------------------------------------------

    def push(self, message: Input, now_ns: int = 0) -> bool:
        """Take one message of the stream; True when it began a new epoch. What is wrong with it is counted.

        `now_ns` (monotonic) tells an epoch that has fallen silent from one that runs.
        """
        return self.population.push(message, now_ns)

    def cut(self, now_ns: int = 0) -> Window | None:
        """Return the next window that is complete, or None. Call it until None after every push."""
        return self.population.cut(now_ns)

    @property
    def counters(self) -> Counter[str]:
        """Messages and spikes by what became of them."""
        return self.population.counters

    @property
    def priors(self) -> dict[str, tuple[float, ...]]:
        """The class priors (C,) that predictions assume, by task."""
        return {name: self._priors.get(name, self.model.task(name).prior) for name in self.model.task_names}

    # -- the side of the model ---------------------------------------------------------------------------------------

    def label(self, window: Window) -> Labelled:
        """Embed a window, add it to the exposure of its units, and return what is known of every unit then."""
        # What happened to the unit table since the last window comes first: this window was cut after it.
        self._apply(window.operations)
        if window.epoch != self._epoch:
            self._features.begin_epoch()
            self._epoch = window.epoch
        # A window that is excluded adds nothing, and says nothing about how large the population is.
        exclusion = window.exclusion or self._observe(window)
        if not window.exclusion:
            self._small = int(window.active.sum()) < self.rules.min_population
        # Predictions are made from everything gathered so far, for silent units and after excluded windows too.
        index = window.unit_index
        snapshot = self._features.snapshot(index)
        judged = self._judge(snapshot, index)
        answers = [self._task(name, snapshot, judged, window) for name in self.model.task_names]
        causes = [exclusion, "population_below_minimum" if self._small else "", *(cause for _, cause, _ in answers)]
        reasons = tuple(dict.fromkeys(filter(None, causes)))
        predictions = Predictions(
            stream=self.stream,
            epoch=window.epoch,
            step=window.step,
            end_sample=window.end_sample,
            sample_rate=window.sample_rate,
            origin=window.origin,
            closed_ns=window.closed_ns,
            state="degraded" if reasons else "ready",
            reasons=reasons,
            missing=window.missing,
            active_units=int(window.active.sum()),
            skipped_steps=window.skipped_steps,
            bundle=self.model.bundle_id,
            hop_s=self.spec.hop_s,
            window_s=self.spec.window_s,
            unit_index=index.astype(np.uint32),
            unit_ids=window.unit_ids,
            windows=self._features.embedding.windows(index).astype(np.uint32),
            exposure=snapshot.exposure,
            ood_score=judged.ratio,
            flags=self._flags(window, judged),
            tasks=tuple(task for task, _, _ in answers),
        )
        evidence = {task.name: evidence for task, _, evidence in answers}
        last = self._features.embedding.last(index)
        return Labelled(predictions, snapshot.features["embedding"], last, evidence, window)

    def step(self, now_ns: int = 0) -> Labelled | None:
        """Cut and label the next window, in one thread; None when more data are needed."""
        window = self.cut(now_ns)
        return None if window is None else self.label(window)

    # -- over a restart: a dump of either side belongs to its thread --------------------------------------------------

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a saved state to mean the same: the bundle, how windows are cut, how they fade."""
        return {
            "bundle": self.model.manifest.digest,
            "hop_s": self.spec.hop_s,
            "half_life_s": self._half_life_s,
            "max_units": self.population.units.max_units,
        }

    def dump_model_side(self) -> dict[str, Any]:
        """Return a copy of what labelling changes, for `load`."""
        return {
            "features": self._features.dump(),
            "stability": self._stability.dump(),
            "epoch": self._epoch,
            "small": self._small,
        }

    def load(self, population: Mapping[str, Any], model_side: Mapping[str, Any], now_ns: int = 0) -> None:
        """Become what `Population.dump` and `dump_model_side` returned, under the same fingerprint, at `now_ns`."""
        self.population.load(population, now_ns)
        self._features.load(model_side["features"])
        self._stability.load(model_side["stability"])
        self._epoch, self._small = model_side["epoch"], model_side["small"]

    def _observe(self, window: Window) -> str:
        """Add the window to what was observed; returns why its embeddings could not be added, or an empty string."""
        index = window.unit_index
        self._features.add_activity(
            index,
            window.counts,
            end_bin=window.end_bin,
            eligible=window.eligible,
            intervals=window.intervals,
            coupling=window.coupling,
        )
        try:
            embeddings = self.model.embed(window.counts, window.active)
        except NonFiniteError:
            return "nonfinite"
        self._features.add_embeddings(index[window.active], embeddings, missing=window.missing)
        return ""

    def _judge(self, snapshot: FeatureSnapshot, index: Int64Array) -> OutOfDistributionScore:
        if self.model.out_of_distribution is None:
            return OutOfDistributionScore.nothing(len(index))
        return self.model.out_of_distribution.judge(snapshot, self._features.statistics, index)

    def _task(
        self, name: str, snapshot: FeatureSnapshot, judged: OutOfDistributionScore, window: Window
    ) -> tuple[TaskPredictions, str, Evidence]:
        """Return a task's predictions, why none of them may be believed (or nothing), and what they rest on."""
        part, cause = self.model.task(name), ""
        logits: Logits = {}
        try:
            logits = self.model.logits(name, snapshot)
            found = answer(
                part.log_linear_pools,
                snapshot,
                logits,
                prior=part.prior,
                wanted=self._priors.get(name),
                alone=self._small,
                abstain_below=self._abstain.get(name),
            )
        except NonFiniteError:
            found, cause = Answer.nothing(len(snapshot.exposure), self.priors[name]), "nonfinite"
        # Why a unit is abstained from: the first of these that holds for it. The order is from what makes the rest
        # meaningless to what is only doubt: without data no readout can fail, a readout that failed has no
        # probability, a small population makes everything strange, and a strange unit's probability means little.
        every = np.ones(len(snapshot.exposure), dtype=np.bool_)
        reasons = (
            (Abstained.NO_DATA, snapshot.observed + snapshot.exposure <= 0),
            (Abstained.NONFINITE, every & bool(cause)),
            (Abstained.SMALL_POPULATION, ~found.has_prediction & self._small),
            (Abstained.NO_DATA, ~found.has_prediction),
            (Abstained.OUT_OF_DISTRIBUTION, judged.out_of_distribution),
            (Abstained.LOW_PROBABILITY, found.unsure),
        )
        why = np.select([holds for _, holds in reasons], [reason for reason, _ in reasons], Abstained.NO)
        stable_since, flips = self._stability.update(
            name,
            window.unit_index,
            top=found.probabilities.argmax(axis=1),
            has_prediction=found.has_prediction,
            end_sample=window.end_sample,
        )
        task = TaskPredictions(
            name=name,
            classes=part.classes,
            probabilities=found.probabilities,
            sets=found.sets,
            why=why.astype(np.uint8),
            stable_since=stable_since,
            flips=flips,
        )
        evidence = Evidence.of(
            part.log_linear_pools, snapshot, logits, found=found, abstain_below=self._abstain.get(name)
        )
        return task, cause, evidence

    def _flags(self, window: Window, judged: OutOfDistributionScore) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        flags = np.where(window.active, 0, UnitFlag.SILENT).astype(np.uint8)
        flags |= np.where(window.eligible, 0, UnitFlag.NEW).astype(np.uint8)
        for flag, raised in (
            (UnitFlag.OOD_EMBEDDING, judged.embedding),
            (UnitFlag.OOD_STATISTICS, judged.statistics),
            (UnitFlag.OOD_RATE, judged.rate),
            (UnitFlag.UNSORTED, judged.unsorted),
            (UnitFlag.OOD_POPULATION, judged.population),
        ):
            flags |= np.where(raised, flag, 0).astype(np.uint8)
        return flags | np.uint8(UnitFlag.SMALL_POPULATION if self._small else 0)

    def _apply(self, operations: Sequence[Operation]) -> None:
        """Follow the unit table. What is forgotten goes in one pass, or renumbering 1,000 units would take seconds."""
        gone: set[int] = set()
        for operation in operations:
            if operation.kind == "forget":
                gone.add(operation.source)
                continue
            if operation.kind == "keep" or gone & {operation.source, operation.target}:
                self._features.forget(gone)  # what was forgotten before a merge must not be merged
                self._stability.forget(gone)
                gone = set()
            if operation.kind == "merge":
                self._features.merge(operation.source, operation.target)
                gone.add(operation.source)
            else:
                self._features.reindex(dict(operation.index_of))
                self._stability.restart()
                self._small = self._small and bool(operation.index_of)
        self._features.forget(gone)
        self._stability.forget(gone)


def spec_with_hop(model: Model, hop_s: float | None) -> WindowSpec:
    """Return how windows are cut with a hop of `hop_s`, None for that of the bundle. Raises ConfigError."""
    try:
        return model.manifest.spec if hop_s is None else model.manifest.spec.with_hop_s(hop_s)
    except ValueError as error:
        raise ConfigError(f"hop_s: {error}; leave it out for the bundle's {model.manifest.spec.hop_s:g} s") from error


def checked_thresholds(model: Model, abstain: Mapping[str, float]) -> dict[str, float]:
    """Return thresholds by task as they are. Raises ConfigError for an unknown task or what is no probability."""
    for task, threshold in abstain.items():
        if task not in model.task_names:
            raise ConfigError(
                f"abstain.{task}: bundle {model.bundle_id} has {', '.join(model.task_names) or 'no task'}"
            )
        if not 0 <= threshold <= 1:
            raise ConfigError(f"abstain.{task} = {threshold}: give a probability between 0 and 1")
    return dict(abstain)


def checked_priors(model: Model, priors: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """Return priors (C,) by task in the order of its classes, adding up to 1; a class that is not named has none.

    Raises ConfigError for a task or a class that the bundle does not have, and for weights that are none.
    """
    checked = {}
    for task, weights in priors.items():
        if task not in model.task_names:
            raise ConfigError(f"priors.{task}: bundle {model.bundle_id} has {', '.join(model.task_names) or 'no task'}")
        classes = model.task(task).classes
        for name, weight in weights.items():
            if name not in classes:
                raise ConfigError(f"priors.{task}.{name} = {weight}: choose one of {', '.join(classes)}")
            if not 0 <= weight < np.inf:
                raise ConfigError(f"priors.{task}.{name} = {weight}: give a weight of 0 or more")
        total = sum(weights.values())
        if not 0 < total < np.inf:
            raise ConfigError(f"priors.{task} adds up to {total}: give weights above 0 to some of {', '.join(classes)}")
        checked[task] = tuple(weights.get(name, 0.0) / total for name in classes)
    return checked
