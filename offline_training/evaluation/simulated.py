"""Scores on simulated animals that nothing was trained on: a fresh animal is a fresh seed.

Per animal, macro-F1 over all classes after 60 s, 300 s and the whole recording; over animals, median and range.
Readouts of the mean rate and of the ISI histogram, or of the statistics of single traces, fitted on the training
animals, are tested on the same recordings. Traces are embedded twice: divided by the running quantile, as the daemon
does it, and by the percentile of the whole recording, which knows the future.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.recordings.recording import Recorded
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.windows.binning import Int64Array
from offline_training.config import UNLABELLED, TrainConfig
from offline_training.data.labels import task_labels
from offline_training.evaluation.baselines.single_unit import isi_steps, rate_steps
from offline_training.evaluation.baselines.trace_statistics import TraceStatistics
from offline_training.evaluation.evaluate import EvaluationError, encoder_facts, library_versions
from offline_training.evaluation.predictions import Classifier as ProbabilisticClassifier
from offline_training.evaluation.predictions import predictions, time_name
from offline_training.evaluation.predictors import FUSED, Together
from offline_training.pretraining.pretrain import load_run
from offline_training.readouts.embed import embed_recording, through_torch
from offline_training.readouts.examples import UnitFeatures, examples
from offline_training.readouts.feature_source import FeatureSource
from offline_training.readouts.readout import Readout, fit_readout, load_readouts
from offline_training.scores import balanced_accuracy, macro_f1
from offline_training.simulation.animals import simulate
from offline_training.simulation.calcium import simulate_calcium

SECONDS = (60.0, 300.0, None)
SIMULATORS = {"spikes": simulate, "traces": simulate_calcium}
Baselines = Mapping[str, Callable[..., UnitFeatures]]
BASELINES: dict[str, Baselines] = {
    "spikes": {"rate": rate_steps, "isi": isi_steps},
    "traces": {"trace_statistics": TraceStatistics},
}


def evaluate_simulated(
    run_dir: Path,
    training: Sequence[Recorded],
    *,
    out: Path,
    seeds: Iterable[int],
    units: int = 120,
    duration_s: float = 600.0,
    hop_s: float | None = None,
) -> dict[str, Any]:
    """Score the run and its readouts on the animals of `seeds`, write the result to `out` and return it.

    `training` are the recordings that the baselines' readouts are fitted on: those of the run's own readouts.
    Raises EvaluationError when an animal of `seeds` was trained on, ReadoutError when the run has no readouts.
    """
    encoder, config, info = load_run(run_dir)
    kind = config.window.input_kind
    readouts: dict[str, Mapping[str, Any]] = {"embedding": load_readouts(run_dir)}
    readouts |= _fit_baselines(config, training, BASELINES[kind])
    fresh = [SIMULATORS[kind](seed, units=units, duration_s=duration_s) for seed in seeds]
    require_fresh(fresh, [*info["subjects"], *(recording.subject_id for recording in training)])
    spec = config.window.spec
    spec = spec if hop_s is None else spec.with_hop_s(hop_s)
    encode = through_torch(encoder)
    features: dict[str, list[UnitFeatures]] = {
        "embedding": [embed_recording(encode, recording, spec, config.rules.rules) for recording in fresh]
    }
    if all(readout.predictors for readout in readouts["embedding"].values()):
        gathered = [FeatureSource.of(embedded) for embedded in features["embedding"]]
        readouts[FUSED] = {
            task: Together.of(readout, gathered[0].sets) for task, readout in readouts["embedding"].items()
        }
        features[FUSED] = gathered
    if spec.normaliser is not None:
        divided = [_by_the_whole(recording, spec.normaliser.quantile) for recording in fresh]
        as_it_is = replace(spec, normaliser=None)
        features["embedding_offline"] = [embed_recording(encode, one, as_it_is, config.rules.rules) for one in divided]
        readouts["embedding_offline"] = readouts["embedding"]
    for name, steps in BASELINES[kind].items():
        features[name] = [steps(recording, config.window.spec) for recording in fresh]
    result = {
        "name": config.name,
        "kind": config.kind,
        "setting": "inductive zero-shot",
        "animals": [recording.subject_id for recording in fresh],
        "units": units,
        "duration_s": duration_s,
        "hop_s": spec.hop_s,
        "training_animals": len(set(info["subjects"])),
        "readout_animals": len({recording.subject_id for recording in training}),
        "encoder": encoder_facts(info),
        "versions": library_versions(),
        "tasks": {task: _task_scores(task, config, fresh, features, readouts) for task in config.tasks},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _by_the_whole(recording: TraceRecording, quantile: float) -> TraceRecording:
    """The recording normalised as published, by one number that knows the future."""
    return replace(recording, traces=recording.traces / np.float32(recording.percentile(quantile)))


def _fit_baselines(
    config: TrainConfig, training: Sequence[Recorded], baselines: Baselines
) -> dict[str, dict[str, Readout]]:
    fitted: dict[str, dict[str, Readout]] = {}
    for name, steps in baselines.items():
        features = [steps(recording, config.window.spec) for recording in training]
        fitted[name] = {
            task: fit_readout(examples(features, task_labels(task, settings, training)), settings.names)
            for task, settings in config.tasks.items()
        }
    return fitted


def require_fresh(fresh: Sequence[Recorded], trained_on: Sequence[str]) -> None:
    """Raises EvaluationError when an animal was trained on."""
    known = sorted({recording.subject_id for recording in fresh} & set(trained_on))
    if known:
        raise EvaluationError(f"{', '.join(known)} belong to the training; choose seeds of animals that do not")


def _task_scores(
    task: str,
    config: TrainConfig,
    fresh: Sequence[Recorded],
    features: Mapping[str, Sequence[UnitFeatures]],
    readouts: Mapping[str, Mapping[str, ProbabilisticClassifier]],
) -> dict[str, Any]:
    settings = config.tasks[task]
    labels = task_labels(task, settings, fresh)
    return {
        "classes": list(settings.names),
        "features": {
            name: {
                time_name(seconds): _over_animals(
                    [
                        _animal_scores(readouts[name][task], source, label, seconds)
                        for source, label in zip(sources, labels, strict=True)
                    ]
                )
                for seconds in SECONDS
            }
            for name, sources in features.items()
        },
    }


def _animal_scores(
    readout: ProbabilisticClassifier, source: UnitFeatures, label: Int64Array, seconds: float | None
) -> tuple[float, float]:
    found = predictions(readout, [source], [label], seconds)
    known = label[label != UNLABELLED]
    prediction = np.array(found["prediction"], dtype=np.int64)
    present = np.unique(known)
    return macro_f1(known, prediction, present), balanced_accuracy(known, prediction, present)


def _over_animals(scores: Sequence[tuple[float, float]]) -> dict[str, Any]:
    f1 = [round(one, 4) for one, _ in scores]
    return {
        "macro_f1": f1,
        "median": round(float(np.median(f1)), 4),
        "range": [min(f1), max(f1)],
        "balanced_accuracy_median": round(float(np.median([accuracy for _, accuracy in scores])), 4),
    }
