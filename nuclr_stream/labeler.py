"""The sans-I/O heart: messages of one probe in, predictions out. No socket, clock or thread lives here.

`push` and `cut` belong to one thread, `label` to another (or to the same): they share nothing but the Window that
crosses. Time comes in as an argument, so ten hours replay in a test, deterministically.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from nuclr_stream.binning import Float32Array
from nuclr_stream.errors import NonFiniteError
from nuclr_stream.evidence import Evidence, evidence_n
from nuclr_stream.inference import Model
from nuclr_stream.population import Population
from nuclr_stream.stability import Stability
from nuclr_stream.units import Operation
from nuclr_stream.window import Window
from nuclr_stream.wire import Abstained, Input, Predictions, StreamStatus, TaskPredictions, UnitFlag

MAX_UNITS = 4_096


@dataclass(frozen=True)
class Labelled:
    """What one window led to: predictions of all units (U,), their mean and last embeddings (U, D) float32."""

    predictions: Predictions
    mean: Float32Array
    last: Float32Array


class Labeler:
    """One probe, live: `push` messages, `cut` windows until there is none, `label` each of them in order.

    `hop_s` overrides the hop of the bundle (a whole number of bins), `lateness_s` is how long data may come late.
    """

    def __init__(
        self,
        model: Model,
        *,
        stream: str,
        hop_s: float | None = None,
        lateness_s: float = 0.0,
        max_units: int = MAX_UNITS,
    ) -> None:
        self.model = model
        self.stream = stream
        manifest = model.manifest
        self.spec = manifest.spec if hop_s is None else manifest.spec.with_hop_s(hop_s)
        self.rules = manifest.window_rules
        self.population = Population(
            self.spec,
            self.rules,
            stream=stream,
            lateness_s=lateness_s,
            max_units=min(max_units, manifest.max_units),
        )
        self._evidence = Evidence(manifest.embedding_dim)
        self._stability = Stability()
        self._outside = False  # whether the population was too small in the last window that was embedded

    # -- the side of the data ----------------------------------------------------------------------------------------

    def push(self, message: Input) -> bool:
        """Take one message of the stream; True when it began a new epoch. What is wrong with it is counted."""
        return self.population.push(message)

    def cut(self, now_ns: int = 0) -> Window | None:
        """Return the next window that is complete, or None. Call it until None after every push."""
        return self.population.cut(now_ns)

    @property
    def counters(self) -> Counter[str]:
        """Messages and spikes by what became of them."""
        return self.population.counters

    # -- the side of the model ---------------------------------------------------------------------------------------

    def label(self, window: Window) -> Labelled:
        """Embed a window, add it to the evidence of its units, and say what all of that adds up to."""
        for operation in window.operations:
            self._apply(operation)
        index = window.unit_index
        refusal = window.refusal or self._embed(window)
        if not refusal:
            self._outside = int(window.active.sum()) < self.rules.min_population
        outside = self._outside
        windows = self._evidence.windows(index)
        mean = self._evidence.mean(index)
        evidence = evidence_n(windows, hop_s=self.spec.hop_s, window_s=self.spec.window_s)
        answers = [self._task(name, mean, evidence, window, outside=outside) for name in self.model.task_names]
        causes = [refusal, "population_below_minimum" if outside else "", *(cause for _, cause in answers)]
        reasons = tuple(dict.fromkeys(filter(None, causes)))
        state: StreamStatus = "degraded" if reasons else "ready"
        predictions = Predictions(
            stream=self.stream,
            epoch=window.epoch,
            step=window.step,
            end_sample=window.end_sample,
            sample_rate=window.sample_rate,
            origin=window.origin,
            closed_ns=window.closed_ns,
            state=state,
            reasons=reasons,
            missing=window.missing,
            active_units=int(window.active.sum()),
            skipped_steps=window.skipped_steps,
            bundle=self.model.bundle_id,
            hop_s=self.spec.hop_s,
            window_s=self.spec.window_s,
            unit_index=index.astype(np.uint32),
            unit_ids=window.unit_ids,
            windows=windows.astype(np.uint32),
            evidence=evidence,
            effective_n=evidence,
            familiarity=np.zeros_like(evidence),
            flags=self._flags(window, outside=outside),
            tasks=tuple(task for task, _ in answers),
        )
        return Labelled(predictions, mean, self._evidence.last(index))

    def step(self, now_ns: int = 0) -> Labelled | None:
        """Cut and label the next window, in one thread; None when more data are needed."""
        window = self.cut(now_ns)
        return None if window is None else self.label(window)

    def _embed(self, window: Window) -> str:
        """Add the window's embeddings to the evidence; returns why that was not possible, or an empty string."""
        try:
            embeddings = self.model.embed(window.counts, window.active)
        except NonFiniteError:
            return "nonfinite"
        self._evidence.add(window.unit_index[window.active], embeddings)
        return ""

    def _task(
        self, name: str, mean: Float32Array, evidence: Float32Array, window: Window, *, outside: bool
    ) -> tuple[TaskPredictions, str]:
        """Return a task's answer, and why it is none that may be believed, or an empty string."""
        part, cause = self.model.task(name), ""
        try:
            probabilities = self.model.probabilities(name, mean, evidence)
        except NonFiniteError:
            cause = "nonfinite"
            probabilities = np.tile(np.asarray(part.prior, dtype=np.float32), (len(evidence), 1))
        why = np.where(part.calibration.abstains(probabilities, evidence), Abstained.LOW_PROBABILITY, Abstained.NO)
        if outside or cause:
            why[:] = Abstained.NONFINITE if cause else Abstained.SMALL_POPULATION
        why[evidence <= 0] = Abstained.NO_EVIDENCE
        stable_since, flips = self._stability.update(
            name,
            window.unit_index,
            top=probabilities.argmax(axis=1),
            has_evidence=(evidence > 0) & (not cause),
            end_sample=window.end_sample,
        )
        task = TaskPredictions(
            name=name,
            classes=part.classes,
            probabilities=probabilities,
            sets=np.ones_like(probabilities, dtype=np.bool_),
            why=why.astype(np.uint8),
            stable_since=stable_since,
            flips=flips,
        )
        return task, cause

    def _flags(self, window: Window, *, outside: bool) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        flags = np.where(window.active, 0, UnitFlag.SILENT).astype(np.uint8)
        flags |= np.where(window.eligible, 0, UnitFlag.NEW).astype(np.uint8)
        return flags | np.uint8(UnitFlag.OUT_OF_DISTRIBUTION if outside else 0)

    def _apply(self, operation: Operation) -> None:
        if operation.kind == "merge":
            self._evidence.merge(operation.source, operation.target)
            self._stability.forget(operation.source)
        elif operation.kind == "forget":
            self._evidence.forget(operation.source)
            self._stability.forget(operation.source)
        else:
            self._evidence.reindex(dict(operation.index_of))
            self._stability.restart()
            self._outside = self._outside and bool(operation.index_of)
