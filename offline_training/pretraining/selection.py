"""Which checkpoint counts: the last one, or the one that does best on labelled animals kept out of pretraining.

The NuCLR authors choose by validation macro-F1, that is, with labels; a training that does the same says so in run.json
and in all results. Validation animals teach the encoder nothing and are never test animals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Int64Array
from offline_training.config import UNLABELLED, TrainConfig
from offline_training.data.labels import task_labels
from offline_training.model.encoder import Encoder
from offline_training.pretraining.steps import Training
from offline_training.readouts.embed import Embedded, embed_recording, through_torch
from offline_training.readouts.examples import WHOLE, Examples, examples
from offline_training.readouts.regression import fit_linear
from offline_training.scores import macro_f1

PUBLISHED_C = 1.0


def without_validation(config: TrainConfig, recordings: Sequence[Recording]) -> list[Recording]:
    """The recordings that views are drawn from: all but those of the validation animals.

    Raises ConfigError when a validation animal is not there, or nobody else is.
    """
    chosen = set(config.selection.subjects) if config.selection else set()
    known = {recording.subject_id for recording in recordings}
    if missing := sorted(chosen - known):
        raise ConfigError(
            f"selection.subjects: no recording of {', '.join(missing)} among those to train on; an animal that is "
            f"held out for testing must not choose the checkpoint. Choose from {', '.join(sorted(known))}"
        )
    if chosen >= known:
        raise ConfigError(f"selection.subjects: {', '.join(sorted(known))} are all animals; leave some to train on")
    return [recording for recording in recordings if recording.subject_id not in chosen]


class Validation:
    """Scores encoders by published readouts (C = 1, whole recordings, windows without overlap) that are fitted on the
    training animals and tested on the validation animals: the mean macro-F1 over tasks.

    Raises LabelError when the training animals, ConfigError when the validation animals lack labels for a task.
    """

    def __init__(self, config: TrainConfig, recordings: Sequence[Recording]) -> None:
        training = without_validation(config, recordings)
        taught = {recording.subject_id for recording in training}
        self._config = config
        self._training = training
        self._validation = [recording for recording in recordings if recording.subject_id not in taught]
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

    def choose(self, training: Training) -> None:
        """Keep the weights of this step if they are better than all before."""
        score = self.macro_f1(training.encoder)
        before: dict[str, Any] = training.selected or {"macro_f1": -1.0, "scores": []}
        scores = [*before["scores"], [training.step, score]]
        if score > before["macro_f1"]:
            weights = {name: value.detach().cpu().clone() for name, value in training.encoder.state_dict().items()}
            before = {"encoder": weights, "step": training.step, "macro_f1": score}
        training.selected = before | {"scores": scores}


def _embedded_units(recordings: Sequence[Embedded], labels: Sequence[Int64Array]) -> Examples:
    """The labelled units that were embedded, each with its mean embedding over the whole recording."""
    found = examples(recordings, labels, lengths=(WHOLE,))
    return found.where(found.has["embedding"])
