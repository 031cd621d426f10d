"""Peers: published methods and controls, re-implemented from their descriptions; same recordings, splits and scorer.

One fold of one peer is one result file, fold_<held out>_<peer>_seed<k>.json, in the format of `evaluate`, so that
`combine` puts it beside our rows; every row says its `budget`. `score_*` returns the `tasks` of such a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Float32Array
from offline_training.config import UNLABELLED, TrainConfig
from offline_training.data.labels import task_labels
from offline_training.data.splits import Fold, Split
from offline_training.evaluation.baselines.depth import depth_steps
from offline_training.evaluation.evaluate import (
    EvaluationError,
    checked,
    feature_result,
    fingerprint_of,
    fold_facts,
    score_fold,
    setting_of,
    window_spec,
    write_result,
)
from offline_training.evaluation.predictions import places
from offline_training.pretraining.pretrain import uses_bf16
from offline_training.studies.budget import Budget
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

Peer = Literal["lolcat", "nemo", "neuprint", "depth"]
PEERS: tuple[Peer, ...] = get_args(Peer)

Tasks = dict[str, Any]


def run_peer(
    peer: Peer,
    config: TrainConfig,
    recordings: Sequence[Recording],
    fold: Fold,
    *,
    seed: int,
    out_dir: Path,
    split: Split,
    claim: str | None = None,
    length: float = 1.0,
) -> Path:
    """Train and test one peer on one fold; returns its result file, at once when it is there already.

    `length` is how many times as long as by default it trains. Depth has no training and no seed. Raises
    EvaluationError for traces, and, before anything is trained, where the scores are not what `claim` says: NeuPRINT
    sees the activity of the animals it is tested on, so nothing inductive can be claimed for it.
    """
    if peer not in PEERS:
        raise EvaluationError(f"peer {peer!r}: must be one of {', '.join(PEERS)}")
    if config.window.input_kind == "traces":
        raise EvaluationError(f"{config.name}: window.input_kind = 'traces', but the peers read spikes")
    setting = _setting(peer, recordings, fold)
    if claim is not None and not setting.startswith(claim):
        raise EvaluationError(
            f"claim {claim!r}: {peer} on {fold.name} is {setting!r}; claim that, or name another peer"
        )
    torch.set_num_threads(config.training.threads)
    torch.set_flush_denormal(True)
    config = config.with_training(seed=seed)
    spec = window_spec(config, config.window.spec.window_s)
    path = out_dir / (f"fold_{fold.name}_depth.json" if peer == "depth" else f"fold_{fold.name}_{peer}_seed{seed}.json")
    content = [fingerprint_of(config, recordings, spec), peer, length]
    fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    if path.is_file():
        return checked(path, fingerprint)
    facts = fold_facts(config, recordings, fold, spec=spec, split=split) | {
        "setting": setting,
        "seed": None if peer == "depth" else seed,
        "fingerprint": fingerprint,
        "encoder": None,
        "peer": peer,
    }
    match peer:
        case "lolcat":
            tasks = score_lolcat(config, recordings, fold, settings=LolcatSettings().times_as_long(length))
        case "nemo":
            tasks = score_nemo(config, recordings, fold, settings=NemoSettings().times_as_long(length))
        case "neuprint":
            vectors = out_dir / f"neuprint_vectors_seed{seed}.npz"
            tasks = score_neuprint(
                config, recordings, fold, settings=NeuprintSettings().times_as_long(length), keep=vectors
            )
        case "depth":
            tasks = score_depth(config, recordings, fold)
    return write_result(path, facts | {"tasks": tasks})


def score_lolcat(
    config: TrainConfig, recordings: Sequence[Recording], fold: Fold, *, settings: LolcatSettings
) -> Tasks:
    """One network per task, trained on the labels of what the fold trains on, calibrated within it."""
    spec = window_spec(config, config.window.spec.window_s)
    snippets = [Snippets.of(recording, spec) for recording in recordings]
    tested = [i for i, recording in enumerate(recordings) if fold.tests_on(recording).any()]
    where = [places(recordings[i], fold.tests_on(recordings[i])) for i in tested]
    tasks = score_fold(config, recordings, fold, {})
    for task, task_settings in config.tasks.items():
        labels = task_labels(task, task_settings, recordings)
        train = [np.where(fold.trains_on(r), label, UNLABELLED) for r, label in zip(recordings, labels, strict=True)]
        asked = [np.where(fold.tests_on(recordings[i]), labels[i], UNLABELLED) for i in tested]
        fitted = fit_lolcat(snippets, train, task_settings.names, seed=config.training.seed, settings=settings)
        logits = [LolcatLogits(fitted.network, snippets[i]) for i in tested]
        result = feature_result(fitted.readout, logits, asked, where=where)
        tasks[task]["features"]["lolcat"] = result | {"c": None, "budget": asdict(fitted.budget)}
    return tasks


def score_nemo(config: TrainConfig, recordings: Sequence[Recording], fold: Fold, *, settings: NemoSettings) -> Tasks:
    """Embeddings of networks trained on the units that readouts may be fitted on: `nemo` with the waveform, where every
    recording has some and the task does not measure it, and `nemo_acg`, the image alone.

    Never trained on tested units, not even in a transductive split: their waveforms are the labels of some tasks.
    """
    spec = window_spec(config, config.window.spec.window_s)
    inputs = [NemoInput.of(recording, spec) for recording in recordings]
    chosen = [fold.trains_on(recording) for recording in recordings]
    bf16 = uses_bf16(config, torch.device("cpu"))
    network, budget = train_nemo(inputs, chosen, seed=config.training.seed, settings=settings, bf16=bf16)
    both = [NemoFeatures(network, source) for source in inputs]
    image_alone = [features.image_alone() for features in both]
    tasks: Tasks = {}
    for task, task_settings in config.tasks.items():
        sets = {"nemo_acg": list(image_alone)}
        if have_waveforms(inputs) and not measures_waveform(task_settings):
            sets["nemo"] = list(both)
        tasks |= score_fold(_with_task(config, task), recordings, fold, sets)
    return _with_budget(tasks, budget)


def score_neuprint(
    config: TrainConfig, recordings: Sequence[Recording], fold: Fold, *, settings: NeuprintSettings, keep: Path
) -> Tasks:
    """Vectors trained on the activity of all recordings, tested too. They are the same for every fold and kept in
    `keep`. A vector is known at the end of its recording: there are scores for the whole recording only."""
    spec = window_spec(config, config.window.spec.window_s)
    vectors, budget = _neuprint_vectors(config, recordings, settings=settings, keep=keep)
    features = [unit_vectors(recording, spec, own) for recording, own in zip(recordings, vectors, strict=True)]
    tasks = score_fold(config, recordings, fold, {"neuprint": list(features)})
    for found in tasks.values():
        entry = found["features"]["neuprint"]
        entry["seconds"] = {"all": entry["seconds"]["all"]}
    return _with_budget(tasks, budget)


def score_depth(config: TrainConfig, recordings: Sequence[Recording], fold: Fold) -> Tasks:
    """The control that cheats: depth alone."""
    spec = window_spec(config, config.window.spec.window_s)
    tasks = score_fold(config, recordings, fold, {"depth_only": [depth_steps(r, spec) for r in recordings]})
    return _with_budget(tasks, Budget(0, 0.0, 0, "no training; a control that cheats: region is a trajectory label"))


def _setting(peer: Peer, recordings: Sequence[Recording], fold: Fold) -> str:
    """What its scores may be called; NeuPRINT is trained on the activity of all animals."""
    seen = recordings if peer == "neuprint" else fold.training(recordings)
    return setting_of([recording.subject_id for recording in seen], fold)


def _with_task(config: TrainConfig, task: str) -> TrainConfig:
    return config.model_copy(update={"tasks": {task: config.tasks[task]}})


def _with_budget(tasks: Tasks, budget: Budget) -> Tasks:
    for found in tasks.values():
        for entry in found["features"].values():
            entry["budget"] = asdict(budget)
    return tasks


def _neuprint_vectors(
    config: TrainConfig, recordings: Sequence[Recording], *, settings: NeuprintSettings, keep: Path
) -> tuple[list[Float32Array], Budget]:
    spec = window_spec(config, config.window.spec.window_s)
    made_of = json.dumps([fingerprint_of(config, recordings, spec), asdict(settings)])
    if not keep.is_file():
        vectors, budget = train_neuprint(recordings, spec, seed=config.training.seed, settings=settings)
        keep.parent.mkdir(parents=True, exist_ok=True)
        named = {str(place): own for place, own in enumerate(vectors)}
        np.savez_compressed(keep, made_of=made_of, budget=json.dumps(asdict(budget)), allow_pickle=False, **named)
    with np.load(keep, allow_pickle=False) as stored:
        if str(stored["made_of"]) != made_of:
            raise EvaluationError(f"{keep}: comes from other settings or recordings; remove it or name another folder")
        return [stored[str(place)] for place in range(len(recordings))], Budget(**json.loads(str(stored["budget"])))
