"""What scores a checkpoint while an encoder trains: published readouts on the validation animals.

`offline_training.pretraining.checkpoint_choice` keeps the checkpoint with the best score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.windows.binning import Int64Array
from offline_training.config import UNLABELLED, TrainConfig
from offline_training.data.labels import task_labels
from offline_training.model.encoder import Encoder
from offline_training.pretraining.checkpoint_choice import Score, without_validation
from offline_training.readouts.embed import Embedded, embed_recording, through_torch
from offline_training.readouts.examples import WHOLE, Examples, examples
from offline_training.readouts.regression import fit_linear
from offline_training.scores import macro_f1

PUBLISHED_C = 1.0


def validation_score(config: TrainConfig, recordings: Sequence[AnyRecording]) -> Score | None:
    """What `pretrain` scores checkpoints by under this config: None where the last one counts.

    Raises LabelError or ConfigError as `Validation` does.
    """
    return Validation(config, recordings).macro_f1 if config.selection else None


class Validation:
    """Scores encoders by published readouts (C = 1, whole recordings, windows without overlap) that are fitted on the
    training animals and tested on the validation animals: the mean macro-F1 over tasks.

    Raises LabelError when the training animals, ConfigError when the validation animals lack labels for a task.
    """

    def __init__(self, config: TrainConfig, recordings: Sequence[AnyRecording]) -> None:
        training = without_validation(config, recordings)
        trained_on = {recording.subject_id for recording in training}
        self._config = config
        self._training = training
        self._validation = [recording for recording in recordings if recording.subject_id not in trained_on]
        self._labels = {
            task: (
                task_labels(task, settings, training),
                [settings.labels(recording) for recording in self._validation],
            )
            for task, settings in config.tasks.items()
        }
        for task, (_, labels) in self._labels.items():
            if not any((label != UNLABELLED).any() for label in labels):
                raise ConfigError(f"selection.subjects: none has a labelled unit for task {task}; choose others")

    def macro_f1(self, encoder: Encoder) -> float:
        """Mean over tasks of the validation units' macro-F1."""
        spec = self._config.window.spec
        spec = spec.with_hop_s(spec.window_s)
        encode = through_torch(encoder)
        train, test = (
            [embed_recording(encode, recording, spec, self._config.rules.rules) for recording in part]
            for part in (self._training, self._validation)
        )
        scores = []
        for task, (train_labels, test_labels) in self._labels.items():
            known, asked = _embedded_units(train, train_labels), _embedded_units(test, test_labels)
            classes = len(self._config.tasks[task].names)
            linear = fit_linear(known.features["embedding"], known.label, classes, c=PUBLISHED_C)
            prediction = linear.logits(asked.features["embedding"]).argmax(axis=1)
            scores.append(macro_f1(asked.label, prediction, np.unique(asked.label)))
        return float(np.mean(scores))


def _embedded_units(recordings: Sequence[Embedded], labels: Sequence[Int64Array]) -> Examples:
    """The labelled units that were embedded, each with its mean embedding over the whole recording."""
    found = examples(recordings, labels, lengths=(WHOLE,))
    return found.where(found.has["embedding"])
