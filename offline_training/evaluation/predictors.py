"""Scores of the predictors beside the encoder, each by itself and all together, on animals that training never saw.

The encoder of a fold is there already (`evaluate` trained it). How the predictors speak together rests on what they said
of each of the other animals, by an encoder that had seen neither that animal nor the tested ones, where `pairs` holds
such encoders; otherwise on a cross-validation by an encoder that knew the activity of all, and the result says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.features.accumulator import FeatureSet
from nuclr_stream.features.mean_embedding import Calibration, effective_sample_size
from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array
from offline_training.config import UNLABELLED, TaskSettings, TrainConfig
from offline_training.data.labels import class_subjects, task_labels
from offline_training.data.splits import Fold, Split
from offline_training.evaluation.evaluate import (
    EvaluationError,
    checked,
    encoder_facts,
    feature_result,
    fingerprint_of,
    fold_facts,
    pretrain_once,
    setting_of,
    task_facts,
    window_spec,
    write_result,
)
from offline_training.evaluation.predictions import SECONDS, places, predictions, time_name
from offline_training.pretraining.runs import load_run
from offline_training.readouts.embedded_runs import embed_by_run, trained_on
from offline_training.readouts.examples import examples
from offline_training.readouts.feature_source import FeatureSource
from offline_training.readouts.predictor_readouts import (
    Classifier,
    Unseen,
    fit_experts,
    resting_on,
    say_unseen,
    typical_scatter,
)
from offline_training.readouts.predictors import Predictors
from offline_training.readouts.readout import Readout

FUSED = "predictors"
"""Name of the row of all predictors together."""
ROWS: dict[FeatureSet, str] = {
    "embedding_neighbourhood": "embedding_neighbourhood",
    "statistics": "spike_statistics",
    "statistics_neighbourhood": "spike_statistics_company",
}
"""Names of the rows of single predictors; the encoder's own is `evaluate`'s."""


@dataclass(frozen=True)
class Together:
    """All predictors of a task as one readout of joined rows, for `predictions`."""

    classifier: Classifier

    @classmethod
    def of(cls, readout: Readout, sets: tuple[FeatureSet, ...]) -> Together:
        """The predictors of a readout that has some, for joined rows of `sets`."""
        assert readout.predictors is not None
        return cls(Classifier(readout, readout.predictors, sets))

    @property
    def calibration(self) -> Calibration:
        """When it abstains: its threshold is the same at every exposure."""
        return Calibration(abstain_below=self.classifier.predictors.pools[0].abstain_below[0])

    def probabilities(self, features: Float32Array, n: Float32Array) -> Float32Array:
        """Probabilities (U, C) of joined rows (U, FACTS + F)."""
        return self.classifier.answer(features).probabilities


@dataclass(frozen=True)
class OneSet:
    """One feature set of what was gathered, as a source of features for a readout of its own."""

    gathered: FeatureSource
    name: FeatureSet
    typical_scatter: float

    @property
    def recording_id(self) -> str:
        """The recording."""
        return self.gathered.recording_id

    @property
    def subject_id(self) -> str:
        """The animal."""
        return self.gathered.subject_id

    @property
    def end_s(self) -> npt.NDArray[np.float64]:
        """When each window (K,) is over."""
        return self.gathered.end_s

    @property
    def steps_per_window(self) -> int:
        """As the windows have it."""
        return self.gathered.steps_per_window

    def between(self, first: int, last: int) -> tuple[Float32Array, Float32Array]:
        """Features (U, F) and the exposure (U,) that counts, 0 where the set has nothing of a unit."""
        seen = self.gathered.seen(first, last)
        counting = effective_sample_size(seen.n, seen.scatter, self.typical_scatter)
        n = replace(seen, effective_sample_size=counting).exposure_for(self.name)
        return seen.features[self.name], np.where(seen.has[self.name], n, 0).astype(np.float32)


def run_experts(
    config: TrainConfig,
    recordings: Sequence[AnyRecording],
    fold: Fold,
    *,
    seed: int,
    run_dir: Path,
    pairs: Sequence[Path] = (),
    out_dir: Path,
    split: Split,
    selected: bool = False,
) -> Path:
    """Fit and test the predictors of one fold; returns its result file, at once when it is there already.

    `selected` says that the design of the predictors was chosen by scores on these very folds, and marks every row.
    Raises EvaluationError when the encoder of `run_dir` saw a tested animal.
    """
    config = config.with_training(seed=seed)
    spec = window_spec(config, config.window.spec.window_s)
    path = out_dir / f"fold_{fold.name}_{FUSED}_seed{seed}.json"
    fingerprint = fingerprint_of(config, recordings, spec)
    if path.is_file():
        return checked(path, fingerprint)
    info = load_run(run_dir)[2]
    gathered, apart = gather(fold, recordings, run_dir, pairs)
    facts = fold_facts(config, recordings, fold, spec=spec, split=split) | {
        "setting": setting_of(info["subjects"], fold),
        "seed": seed,
        "fingerprint": fingerprint,
        "encoder": encoder_facts(info),
    }
    tasks = {
        task: _score(task, settings, recordings, fold, gathered=gathered, apart=apart)
        for task, settings in config.tasks.items()
    }
    for entry in (entry for found in tasks.values() for entry in found["features"].values()):
        entry["selected_on_these_folds"] = selected
    return write_result(path, facts | {"tasks": tasks})


def gather(
    fold: Fold, recordings: Sequence[AnyRecording], run_dir: Path, pairs: Sequence[Path]
) -> tuple[list[FeatureSource], dict[Path, list[FeatureSource]]]:
    """All recordings through the encoder of a fold, and through those of `pairs` that serve its calibration.

    Raises EvaluationError when the encoder of `run_dir` saw a tested animal.
    """
    if known := set(trained_on(run_dir)) & set(fold.held_out):
        raise EvaluationError(f"{run_dir.name}: its encoder saw {', '.join(sorted(known))}, which the fold tests")
    apart = {pair: [FeatureSource.of(e) for e in embed_by_run(pair, recordings)] for pair in pairs_of(fold, pairs)}
    return [FeatureSource.of(embedded) for embedded in embed_by_run(run_dir, recordings)], apart


def pretrain_pairs(
    config: TrainConfig, recordings: Sequence[AnyRecording], folds: Sequence[Fold], *, seed: int, runs_dir: Path
) -> list[Path]:
    """Pretrain an encoder without every two of the folds; those that are there already are not trained again."""
    config = config.with_training(seed=seed)
    done = []
    for one, other in combinations(folds, 2):
        unseen = (*one.held_out, *other.held_out)
        rest = [recording for recording in recordings if recording.subject_id not in unseen]
        done.append(runs_dir / f"fold_{'+'.join(unseen)}_seed{seed}")
        pretrain_once(config, rest, done[-1])
    return done


def pairs_of(fold: Fold, pairs: Sequence[Path]) -> list[Path]:
    """Those of the runs in `pairs` that saw no tested animal and, besides, not all of the others: fold_A+B_... of A."""
    found = []
    for pair in pairs:
        unseen = pair.name.removeprefix("fold_").rsplit("_seed", 1)[0].split("+")
        if set(fold.held_out) < set(unseen) and not set(unseen) & set(trained_on(pair)):
            found.append(pair)
    return found


def unseen_by(
    apart: Mapping[Path, Sequence[FeatureSource]],
    labels: Sequence[Int64Array],
    classes: int,
    *,
    scatter: float,
    c: Mapping[FeatureSet, float],
    without: Sequence[str] = (),
) -> list[Unseen]:
    """What predictors say of the animals that the encoder of each run in `apart` never saw, fitted on those it saw."""
    stated = []
    for run_dir, gathered in apart.items():
        own = [i for i, source in enumerate(gathered) if source.subject_id not in without]
        known = examples([gathered[i] for i in own], [labels[i] for i in own])
        held_out = ~np.isin(known.subject, trained_on(run_dir))
        dim = gathered[0].embedded.embeddings.shape[2]
        if (said := say_unseen(known, held_out, classes, dim=dim, scatter=scatter, c=c)) is not None:
            stated.append(said)
    return stated


def fit_fold(
    classes: tuple[str, ...],
    labels: Sequence[Int64Array],
    tested: BoolArray,
    *,
    gathered: Sequence[FeatureSource],
    apart: Mapping[Path, Sequence[FeatureSource]],
) -> tuple[dict[FeatureSet, Readout], Predictors]:
    """Fit the predictors of a task on the recordings that are not `tested` (R,), each by itself and all together; the
    latter on what was said of animals by the encoders of `apart`, where any of those animals has labels."""
    test, train = np.flatnonzero(tested), np.flatnonzero(~tested)
    known = examples([gathered[i] for i in train], [labels[i] for i in train])
    sets, dim = gathered[0].sets, gathered[0].embedded.embeddings.shape[2]
    scatter = typical_scatter([gathered[i] for i in train])
    readouts, predictors = fit_experts(known, classes, sets, dim=dim, scatter=scatter)
    held_out = [gathered[i].subject_id for i in test]
    stated = unseen_by(apart, labels, len(classes), scatter=scatter, c=predictors.c, without=held_out)
    return resting_on(stated, readouts, predictors) if stated else (readouts, predictors)


def _score(
    task: str,
    settings: TaskSettings,
    recordings: Sequence[AnyRecording],
    fold: Fold,
    *,
    gathered: Sequence[FeatureSource],
    apart: Mapping[Path, Sequence[FeatureSource]],
) -> dict[str, Any]:
    labels = task_labels(task, settings, recordings)
    tested = np.array([fold.tests_on(recording).any() for recording in recordings])
    test = np.flatnonzero(tested)
    asked = [np.where(fold.tests_on(r), label, UNLABELLED) for r, label in zip(recordings, labels, strict=True)]
    readouts, predictors = fit_fold(settings.names, labels, tested, gathered=gathered, apart=apart)
    sets = gathered[0].sets
    where = [places(recordings[i], fold.tests_on(recordings[i])) for i in test]
    answers = [asked[i] for i in test]
    result = task_facts(settings, recordings, asked, tested)
    result["class_subjects"] = class_subjects(labels, [r.subject_id for r in recordings], settings.names)
    for name in sets[1:]:  # the first is the encoder's own
        source = [OneSet(gathered[i], name, predictors.typical_scatter) for i in test]
        result["features"][ROWS[name]] = feature_result(readouts[name], source, answers, where=where)
    together = Together(Classifier(readouts["embedding"], predictors, sets))
    at = {time_name(s): predictions(together, [gathered[i] for i in test], answers, s, where=where) for s in SECONDS}
    result["features"][FUSED] = {
        "pools": [asdict(pool) for pool in predictors.pools],
        "calibrated_on": readouts["embedding"].calibrated_on,
        "seconds": at,
    }
    return result
