"""Readouts of a run: fitted on labelled recordings, and calibrated on animals that nothing had seen.

Shapes: U units, F features, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.windows.binning import Int64Array
from offline_training.data.labels import task_labels
from offline_training.pretraining.runs import load_run
from offline_training.readouts.embed import embed_recording, through_torch
from offline_training.readouts.embedded_runs import embed_by_run
from offline_training.readouts.examples import examples
from offline_training.readouts.feature_source import FeatureSource
from offline_training.readouts.out_of_distribution import fit_familiarity
from offline_training.readouts.predictor_readouts import (
    Unseen,
    fit_experts,
    resting_on,
    say_unseen,
    typical_scatter,
)
from offline_training.readouts.readout import Readout, ReadoutError, load_readouts, save_readouts

FAMILIARITY = "out_of_distribution.npz"


def fit_readouts(
    run_dir: Path, recordings: Sequence[AnyRecording], *, hop_s: float | None = None
) -> dict[str, Readout]:
    """Fit the predictors of every task of the run's settings on labelled recordings, and store them with the run.

    `hop_s` is the step between windows, one whole window if not given. The recordings may be those that the encoder was
    trained on or, for a calibration that its out_of_distribution with the animals does not flatter, others.
    Raises LabelError, ReadoutError or RunError.
    """
    encoder, config, info = load_run(run_dir)
    spec = config.window.spec
    spec = spec.with_hop_s(hop_s or spec.window_s)
    encode = through_torch(encoder)
    gathered = [FeatureSource.of(embed_recording(encode, each, spec, config.rules.rules)) for each in recordings]
    out_of_distribution = info["animals"] if "imported" in info else _familiarity(recordings, info["subjects"])
    readouts = _fit(gathered, _labels(run_dir, recordings), _classes(run_dir))
    readouts = {t: replace(r, calibrated_on=f"{r.calibrated_on}; {out_of_distribution}") for t, r in readouts.items()}
    facts = {
        "hop_s": spec.hop_s,
        "recordings": [recording.recording_id for recording in recordings],
        "subjects": sorted({recording.subject_id for recording in recordings}),
    }
    save_readouts(run_dir, readouts, facts)
    known = fit_familiarity(gathered, _labels(run_dir, recordings))
    np.savez_compressed(run_dir / FAMILIARITY, allow_pickle=False, **known.arrays())
    return readouts


def recalibrate(run_dir: Path, fold_dirs: Sequence[Path], recordings: Sequence[AnyRecording]) -> dict[str, Readout]:
    """Let what predictors say together rest on animals that neither encoder nor readouts had seen.

    Each of `fold_dirs` is a run on all animals but those it holds out (as `evaluate` keeps them): predictors are fitted on
    its embeddings of its own animals, and what they say of the held-out ones is pooled over the folds. Weights, classes
    and C of the run's readouts stay. Raises ReadoutError when no fold holds out a labelled animal.
    """
    before = load_readouts(run_dir)
    labels, classes = _labels(run_dir, recordings), _classes(run_dir)
    unseen: dict[str, list[Unseen]] = {task: [] for task in before}
    for fold_dir in fold_dirs:
        subjects = load_run(fold_dir)[2]["subjects"]
        gathered = [FeatureSource.of(embedded) for embedded in embed_by_run(fold_dir, recordings)]
        for task, readout in before.items():
            if readout.predictors is None:
                raise ReadoutError(f"{run_dir}: {task} has no predictors; fit them with `nuclr-train readout`")
            known = examples(gathered, labels[task])
            said = say_unseen(
                known,
                ~np.isin(known.subject, subjects),
                len(classes[task]),
                dim=readout.predictors.dim,
                scatter=readout.predictors.typical_scatter,
                c=readout.predictors.c,
            )
            unseen[task] += [] if said is None else [said]
    for task, stated in unseen.items():
        if not stated:
            raise ReadoutError(f"{task}: none of {len(fold_dirs)} folds holds out an animal that is labelled for it")
    readouts = {task: _recalibrated(readout, unseen[task]) for task, readout in before.items()}
    facts = json.loads((run_dir / "readouts.json").read_text(encoding="utf-8"))
    del facts["tasks"]
    save_readouts(run_dir, readouts, facts)
    return readouts


def _recalibrated(readout: Readout, stated: Sequence[Unseen]) -> Readout:
    assert readout.predictors is not None
    alone, predictors = resting_on(stated, {"embedding": readout}, readout.predictors)
    return replace(alone["embedding"], predictors=predictors)


def _fit(
    gathered: Sequence[FeatureSource],
    labels: Mapping[str, Sequence[Int64Array]],
    classes: Mapping[str, tuple[str, ...]],
) -> dict[str, Readout]:
    scatter = typical_scatter(gathered)
    sets, dim = gathered[0].sets, gathered[0].embedded.embeddings.shape[2]
    readouts = {}
    for task, names in classes.items():
        known = examples(gathered, labels[task])
        alone, predictors = fit_experts(known, names, sets, dim=dim, scatter=scatter)
        readouts[task] = replace(alone["embedding"], predictors=predictors)
    return readouts


def _labels(run_dir: Path, recordings: Sequence[Any]) -> dict[str, list[Int64Array]]:
    tasks = load_run(run_dir)[1].tasks
    return {task: task_labels(task, settings, recordings) for task, settings in tasks.items()}


def _classes(run_dir: Path) -> dict[str, tuple[str, ...]]:
    return {task: settings.names for task, settings in load_run(run_dir)[1].tasks.items()}


def _familiarity(recordings: Sequence[AnyRecording], trained_on: Sequence[str]) -> str:
    seen = {recording.subject_id for recording in recordings} & set(trained_on)
    if not seen:
        return "animals that the encoder never saw"
    return (
        "the encoder saw the activity of all of them"
        if len(seen) == len({recording.subject_id for recording in recordings})
        else f"the encoder saw the activity of {len(seen)} of them"
    )
