"""Who speaks of a unit as time goes on: the encoder alone, every other predictor alone, and all of them together.

Shapes: K steps, U units, L labelled ones, F features of a joined row, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nuclr_stream.features.accumulator import FeatureSet
from nuclr_stream.features.mean_embedding import Calibration
from nuclr_stream.prediction.answer import Answer
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array
from offline_training.config import UNLABELLED
from offline_training.evaluation.predictions import Places, joined_along_depth
from offline_training.evaluation.predictors import FUSED, ROWS
from offline_training.readouts.embed import Embedded
from offline_training.readouts.feature_source import FeatureSource
from offline_training.readouts.predictor_readouts import Classifier, seen_of
from offline_training.readouts.predictors import Predictors
from offline_training.readouts.readout import Readout
from offline_training.studies.anytime_scores import FloatArray, Told

WAYS = ("single", "multi")
"""Units by themselves, and joined with their neighbours along depth."""


@dataclass(frozen=True)
class Voice:
    """One row of the result: what it says of joined rows (U, F), and when the population is too small to be believed;
    the top-1 probability below which it calls no class; what it was calibrated on, "" where it was not; whether it
    gives sets."""

    say: Callable[[Float32Array, bool], Answer]
    threshold: float
    calibrated_on: str
    gives_sets: bool


@dataclass(frozen=True)
class Heard:
    """What was gathered of a population by the end of every step (K,): joined rows, K times (U, F), whether its last
    window was too small to be believed (K,), and where the units lie."""

    subject_id: str
    end_s: FloatArray
    rows: Sequence[Float32Array]
    alone: BoolArray
    where: Places | None

    @classmethod
    def of(cls, source: FeatureSource, where: Places | None, steps: Sequence[int]) -> Heard:
        """The recording after so many windows, ascending and at least one."""
        last = np.array(steps, dtype=np.int64) - 1
        return cls(
            source.subject_id,
            source.end_s[last],
            list(source.growing(steps)),
            too_small(source.embedded)[last],
            where,
        )


def voices_of(
    readouts: Mapping[FeatureSet, Readout], predictors: Predictors, sets: Sequence[FeatureSet]
) -> dict[str, Voice]:
    """Every set by itself, then all together. A set that is not among the `readouts` speaks uncalibrated, but for spike
    statistics, which speak as they do in the daemon where nobody else can."""
    classifier = Classifier(readouts["embedding"], predictors, tuple(sets))
    found = {}
    for name in sets:
        if name == "statistics":
            least = predictors.pools[1].abstain_below[0]
            words = readouts["embedding"].calibrated_on
            found[ROWS[name]] = Voice(lambda rows, _: classifier.answer(rows, alone=True), least, words, True)
        else:
            found[ROWS.get(name, name)] = _by_itself(name, readouts, classifier)
    least, words = predictors.pools[0].abstain_below[0], readouts["embedding"].calibrated_on
    found[FUSED] = Voice(lambda rows, alone: classifier.answer(rows, alone=alone), least, words, True)
    return found


def _by_itself(name: FeatureSet, readouts: Mapping[FeatureSet, Readout], classifier: Classifier) -> Voice:
    predictors, linear = classifier.predictors, classifier.predictors.linears[name]
    calibration, words = Calibration(), ""
    if name in readouts:
        linear, calibration, words = (
            getattr(readouts[name], key) for key in ("linear", "calibration", "calibrated_on")
        )

    def say(rows: Float32Array, alone: bool) -> Answer:
        seen = seen_of(rows, classifier.sets, predictors)
        n = np.where(seen.has[name], seen.exposure_for(name), 0).astype(np.float32)
        p = calibration.probabilities(linear.logits(np.nan_to_num(seen.features[name]), n), n)
        return Answer(p, np.ones_like(p, dtype=bool), calibration.abstains(p, n), n > 0)

    return Voice(say, calibration.abstain_below, words, gives_sets=False)


def too_small(embedded: Embedded) -> BoolArray:
    """Whether the last window up to each (K,) that was not refused had too few active units."""
    accepted = np.array([not exclusion for exclusion in embedded.refusals], dtype=bool)
    last = np.maximum.accumulate(np.where(accepted, np.arange(len(accepted)), -1))
    return (last >= 0) & ~embedded.in_distribution[np.maximum(last, 0)]


def tell(heard: Heard, voice: Voice, label: Int64Array) -> dict[str, Told]:
    """What a voice says of the labelled units after every step, by way; along depth only where depths are known.

    Joined with neighbours, a unit has no set, and no class is called below the threshold for single units.
    """
    known = np.flatnonzero(label != UNLABELLED)
    answers = [voice.say(rows, bool(alone)) for rows, alone in zip(heard.rows, heard.alone, strict=True)]
    stated = {
        "single": _reported(
            heard, label[known], [_of_units(answer, known) for answer in answers], gives_sets=voice.gives_sets
        )
    }
    if heard.where is not None:
        joined = [_of_units(_joined(answer, voice.threshold, heard.where), known) for answer in answers]
        stated["multi"] = _reported(heard, label[known], joined, gives_sets=False)
    return stated


def _joined(answer: Answer, threshold: float, where: Places) -> Answer:
    p, has_prediction = joined_along_depth(answer.probabilities, answer.has_prediction.astype(np.float32), where)
    unsure = (p.max(axis=1) < threshold) | (threshold >= 1)
    return Answer(p.astype(np.float32), answer.sets, unsure, has_prediction)


def _of_units(answer: Answer, units: Int64Array) -> Answer:
    return Answer(*(getattr(answer, name)[units] for name in Answer.__dataclass_fields__))


def _reported(heard: Heard, label: Int64Array, answers: Sequence[Answer], *, gives_sets: bool) -> Told:
    return Told(
        heard.subject_id,
        heard.end_s,
        label,
        np.stack([answer.probabilities for answer in answers]),
        np.stack([answer.has_prediction for answer in answers]),
        np.stack([answer.unsure for answer in answers]),
        np.stack([answer.sets for answer in answers]) if gives_sets else None,
    )
