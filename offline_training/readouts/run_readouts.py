"""Readouts of a run: fitted on labelled recordings, stored beside its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nuclr_stream.recordings.readers import AnyRecording
from offline_training.data.labels import task_labels
from offline_training.pretraining.runs import Run
from offline_training.readouts.embedded_runs import embed_by_run
from offline_training.readouts.examples import examples
from offline_training.readouts.feature_source import FeatureSource
from offline_training.readouts.out_of_distribution import fit_out_of_distribution
from offline_training.readouts.task_model import TaskModel, fit_task, save_task_models

OUT_OF_DISTRIBUTION = "out_of_distribution.npz"


def fit_readouts(
    run_dir: Path, recordings: Sequence[AnyRecording], *, hop_s: float | None = None
) -> dict[str, TaskModel]:
    """Fit the model of every task of the run's settings on labelled recordings, and store them with the run.

    `hop_s` is the step between windows, one whole window if not given. The recordings may be those that the encoder was
    trained on or, for a calibration that its knowledge of their activity does not flatter, others.
    Raises LabelError, ReadoutError or RunError.
    """
    run = Run.open(run_dir)
    config, info = run.config, run.info
    sources = [FeatureSource(one) for one in embed_by_run(run_dir, recordings, hop_s=hop_s)]
    labels = {task: task_labels(task, settings, recordings) for task, settings in config.tasks.items()}
    saw = info["animals"] if "imported" in info else _saw(recordings, info["subjects"])
    models = {
        task: fit_task(examples(sources, labels[task]), settings.names, saw=saw)
        for task, settings in config.tasks.items()
    }
    facts = {
        "hop_s": sources[0].embedded.spec.hop_s,
        "recordings": [recording.recording_id for recording in recordings],
        "subjects": sorted({recording.subject_id for recording in recordings}),
    }
    save_task_models(run_dir, models, facts)
    known = fit_out_of_distribution(sources, labels)
    np.savez_compressed(run_dir / OUT_OF_DISTRIBUTION, allow_pickle=False, **known.arrays())
    return models


def _saw(recordings: Sequence[AnyRecording], trained_on: Sequence[str]) -> str:
    """What the encoder saw of these animals, in words."""
    animals = {recording.subject_id for recording in recordings}
    seen = animals & set(trained_on)
    if not seen:
        return "animals that the encoder never saw"
    return f"the encoder saw the activity of {'all' if seen == animals else len(seen)} of them, without labels"
