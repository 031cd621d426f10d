"""Comparison methods: published methods and controls, re-implemented from their descriptions.

They get the recordings, folds, readouts and scores of `nuclr-train evaluate`, and their own training. A result file has
the format of `evaluate`, with rows of the role "comparison", each with its `setting`, its `budget` and its `command`.
Rows of several methods share a file when folds, recordings and versions agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch

from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.windows.binning import Int64Array
from offline_training.config import TrainConfig
from offline_training.data.labels import task_labels
from offline_training.data.splits import Fold
from offline_training.evaluation.baselines.aggregated import Aggregated
from offline_training.evaluation.baselines.depth import depth_steps
from offline_training.evaluation.baselines.one_set import feature_set
from offline_training.evaluation.baselines.single_unit import isi_steps, rate_steps
from offline_training.evaluation.baselines.trace_statistics import TraceStatistics
from offline_training.evaluation.nested import (
    EvaluationError,
    FoldResult,
    Row,
    predict,
    result,
    setting_of,
    split_labels,
)
from offline_training.pretraining.steps import uses_bf16
from offline_training.readouts.examples import UnitFeatures, examples
from offline_training.readouts.task_model import TaskModel, fit_task
from offline_training.studies.budget import Budget, together
from offline_training.studies.lolcat import NAME as LOLCAT
from offline_training.studies.lolcat import LolcatLogits, LolcatSettings, Snippets, fit_lolcat
from offline_training.studies.nemo import (
    NemoFeatures,
    NemoInput,
    NemoSettings,
    have_waveforms,
    measures_waveform,
    train_nemo,
)
from offline_training.studies.neuprint import NeuprintSettings, train_neuprint, unit_vectors

Method = Literal["rate", "isi", "isi_aggregated", "lolcat", "nemo", "neuprint", "depth", "trace_statistics"]
METHODS: tuple[Method, ...] = get_args(Method)
ROLE = "comparison"
PROTOCOL = (
    "Comparison methods in the nested evaluation: recordings, folds, readouts and scores are those of `nuclr-train "
    "evaluate`. Each row says its own setting and what its training took."
)
UNTRAINED = Budget(0, 0.0, 0, "no training")
DEPTH = Budget(0, 0.0, 0, "no training; a control that cheats: region is a label of the probe's trajectory")


@dataclass(frozen=True)
class Trained:
    """A method that is ready to predict: its model of a task, what it reads of every recording, and what it cost."""

    model: TaskModel
    sources: Sequence[UnitFeatures]
    budget: Budget


TrainLabels = Mapping[str, Sequence[Int64Array]]
"""By task the labels (U,) of every recording that a fold trains on, UNLABELLED elsewhere."""
Fit = Callable[[Fold, TrainLabels], dict[str, dict[str, Trained]]]
"""Trains on a fold: by task and row."""


def compare(
    method: Method, config: TrainConfig, recordings: Sequence[AnyRecording], folds: Sequence[Fold], *, length: float = 1
) -> list[FoldResult]:
    """Train and test a method on every fold; `length` is how many times as long as by default it trains.

    Raises EvaluationError for an unknown method, or one that does not read the recordings' kind of input.
    """
    if method not in METHODS:
        raise EvaluationError(f"method {method!r}: must be one of {', '.join(METHODS)}")
    reads = "traces" if method == "trace_statistics" else "spikes"
    if config.window.input_kind != reads:
        raise EvaluationError(f"{config.name}: holds {config.window.input_kind}, but {method} reads {reads}")
    torch.set_num_threads(config.training.threads)
    torch.set_flush_denormal(True)
    labels = {task: task_labels(task, settings, recordings) for task, settings in config.tasks.items()}
    fit = _fit_of(method, config, recordings, length)
    return [_run_fold(method, config, recordings, fold, labels, fit=fit) for fold in folds]


def comparison_result(
    config: TrainConfig, recordings: Sequence[AnyRecording], folds: Sequence[FoldResult], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of a result file: as of `evaluate`, and of every row its budget, setting and command."""
    ids = [recording.recording_id for recording in recordings]
    document: dict[str, Any] = result(config, recordings, folds, {**facts, "protocol": PROTOCOL, "recordings": ids})
    for task, found in document["tasks"].items():
        for row in found["rows"]:
            budgets = [Budget(**fold.chosen[task][row["row"]]["budget"]) for fold in folds]
            row |= {"budget": asdict(together(budgets)), "command": facts["command"]}
            row["setting"] = _in_words([fold.setting for fold in folds])
    return document


def joined_with(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """The document with the rows of other methods that the result file at `path` holds, if there is one.

    Raises EvaluationError where that file comes from other folds, recordings, classes, versions or another seed.
    """
    if not path.is_file():
        return document
    there = json.loads(path.read_text(encoding="utf-8"))
    for what, value in _identity(document).items():
        if (other := _identity(there).get(what)) != value:
            raise EvaluationError(
                f"{path}: {what} {json.dumps(other)} there, {json.dumps(value)} here; rows of one file have to agree, "
                "so remove it or name another --out"
            )
    for task, found in document["tasks"].items():
        new = {row["row"] for row in found["rows"]}
        found["rows"] = [row for row in there["tasks"][task]["rows"] if row["row"] not in new] + found["rows"]
    for fold, before in zip(document["folds"], there["folds"], strict=True):
        fold["chosen"] = {task: before["chosen"][task] | rows for task, rows in fold["chosen"].items()}
    rows = [row for found in document["tasks"].values() for row in found["rows"]]
    for fold in document["folds"]:
        fold["setting"] = _in_words([row["setting"] for row in rows])
    document["command"] = " && ".join(dict.fromkeys(row["command"] for row in rows))
    return document


def _identity(document: Mapping[str, Any]) -> dict[str, Any]:
    """What rows of one file have in common."""
    facts = ("format", "name", "kind", "seed", "window_s", "machine", "versions", "recordings")
    tasks = document["tasks"].items()
    return {name: document.get(name) for name in facts} | {
        "folds": [fold["test"] for fold in document["folds"]],
        "classes": {task: found["classes"] for task, found in tasks},
        "scored classes": {task: found["scored"] for task, found in tasks},
    }


def _in_words(settings: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(settings))


def _run_fold(
    method: Method,
    config: TrainConfig,
    recordings: Sequence[AnyRecording],
    fold: Fold,
    labels: TrainLabels,
    *,
    fit: Fit,
) -> FoldResult:
    pairs = {task: split_labels(fold, recordings, own) for task, own in labels.items()}
    trained = fit(fold, {task: train for task, (train, _) in pairs.items()})
    chosen: dict[str, Any] = {}
    predicted: dict[str, dict[Row, Any]] = {}
    for task, rows in trained.items():
        chosen[task] = {
            name: {"c": dict(one.model.c), "scores": one.model.scores, "budget": asdict(one.budget)}
            for name, one in rows.items()
        }
        predicted[task] = {}
        for name, one in rows.items():
            times = predict(one.model, one.sources, pairs[task][1])
            if method == "neuprint":  # a vector is known at the end of its recording, and not before
                times = {"all": times["all"]}
            predicted[task][Row(name, ROLE, (name,))] = times
    # NeuPRINT is trained on the activity of all animals, the tested ones too
    seen = recordings if method == "neuprint" else fold.training(recordings)
    animals = {recording.subject_id for recording in recordings if fold.trains_on(recording).any()}
    setting = setting_of(sorted({recording.subject_id for recording in seen}), fold)
    return FoldResult(fold.held_out, len(animals), setting, chosen, predicted)


def _fit_of(method: Method, config: TrainConfig, recordings: Sequence[AnyRecording], length: float) -> Fit:
    """What is the same in all folds is made here, once."""
    spec = config.window.spec
    spec = spec.with_hop_s(spec.window_s)
    if method == "trace_statistics":
        traces = cast(Sequence[TraceRecording], recordings)
        return _readouts(config, method, [TraceStatistics(one, spec) for one in traces], UNTRAINED)
    spikes = cast(Sequence[Recording], recordings)
    match method:
        case "lolcat":
            snippets = [Snippets.of(one, spec) for one in spikes]
            return _lolcat(config, snippets, LolcatSettings().times_as_long(length))
        case "nemo":
            inputs = [NemoInput.of(one, spec) for one in spikes]
            return _nemo(config, inputs, NemoSettings().times_as_long(length))
        case "neuprint":
            settings = NeuprintSettings().times_as_long(length)
            vectors, budget = train_neuprint(spikes, spec, seed=config.training.seed, settings=settings)
            sources = [unit_vectors(one, spec, own) for one, own in zip(spikes, vectors, strict=True)]
            return _readouts(config, method, sources, budget)
        case "depth":
            return _readouts(config, method, [depth_steps(one, spec) for one in spikes], DEPTH)
        case "rate":
            return _readouts(config, method, [rate_steps(one, spec) for one in spikes], UNTRAINED)
        case "isi":
            return _readouts(config, method, [isi_steps(one, spec) for one in spikes], UNTRAINED)
        case _:
            return _readouts(config, method, [Aggregated.of(isi_steps(one, spec), one) for one in spikes], UNTRAINED)


def _readouts(config: TrainConfig, name: str, sources: Sequence[UnitFeatures], budget: Budget) -> Fit:
    """Readouts of features that are the same in every fold."""

    def fit(fold: Fold, train: TrainLabels) -> dict[str, dict[str, Trained]]:
        return {task: {name: _readout(config, task, name, sources, train[task], budget)} for task in train}

    return fit


def _readout(
    config: TrainConfig,
    task: str,
    name: str,
    sources: Sequence[UnitFeatures],
    labels: Sequence[Int64Array],
    budget: Budget,
) -> Trained:
    model = fit_task(examples(sources, labels), config.tasks[task].names, sets=[feature_set(name)])
    return Trained(model, sources, budget)


def _lolcat(config: TrainConfig, snippets: Sequence[Snippets], settings: LolcatSettings) -> Fit:
    """One network per task, trained on the labels of what the fold trains on, calibrated within it."""

    def fit(fold: Fold, train: TrainLabels) -> dict[str, dict[str, Trained]]:
        found = {}
        for task, labels in train.items():
            classes = config.tasks[task].names
            one = fit_lolcat(snippets, labels, classes, seed=config.training.seed, settings=settings)
            sources = [LolcatLogits(one.network, own) for own in snippets]
            found[task] = {LOLCAT: Trained(one.model, sources, one.budget)}
        return found

    return fit


def _nemo(config: TrainConfig, inputs: Sequence[NemoInput], settings: NemoSettings) -> Fit:
    """Embeddings of networks trained on the units that readouts may be fitted on: `nemo` with the waveform, where every
    recording has some and the task does not measure it, and `nemo_acg`, the image alone.

    Never trained on tested units, not even in a transductive split: their waveforms are the labels of some tasks.
    """
    bf16 = uses_bf16(config, torch.device("cpu"))

    def fit(fold: Fold, train: TrainLabels) -> dict[str, dict[str, Trained]]:
        chosen = [np.asarray(fold.trains_on(one.recording)) for one in inputs]
        network, budget = train_nemo(inputs, chosen, seed=config.training.seed, settings=settings, bf16=bf16)
        both = [NemoFeatures(network, one) for one in inputs]
        image_alone = [features.image_alone() for features in both]
        found: dict[str, dict[str, Trained]] = {}
        for task, labels in train.items():
            kinds = [image_alone]
            if have_waveforms(inputs) and not measures_waveform(config.tasks[task]):
                kinds.append(both)
            found[task] = {kind[0].name: _readout(config, task, kind[0].name, kind, labels, budget) for kind in kinds}
        return found

    return fit
