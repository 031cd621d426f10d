"""Which units have a label, and which classes can be tested on an animal that training never saw.

A label is ground truth: the class index of a unit for a task of `TrainConfig.tasks`, UNLABELLED where the unit has
another value or fewer spikes in the whole recording than the task needs (100 by default).
Shapes: U units, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.recordings.recorded import Recorded
from offline_training.config import UNLABELLED, TaskSettings

IntArray = npt.NDArray[np.int64]


class LabelError(NuclrStreamError):
    """The recordings hold too few labels for a task."""


def task_labels(task: str, settings: TaskSettings, recordings: Sequence[Recorded]) -> list[IntArray]:
    """Class index (U,) of the units of every recording.

    Raises LabelError when fewer than two classes occur at all: there is nothing to classify.
    """
    labels = [settings.labels(recording) for recording in recordings]
    found = np.unique(np.concatenate([known[known != UNLABELLED] for known in labels]))
    if len(found) < 2:
        names = ", ".join(settings.names[i] for i in found) or "none"
        raise LabelError(
            f"task {task}: classes found in column {settings.column!r} of {len(recordings)} recordings: {names}; "
            f"at least two are needed among units with {settings.min_spikes} spikes or more"
        )
    return labels


def class_subjects(labels: Sequence[IntArray], subjects: Sequence[str], classes: Sequence[str]) -> dict[str, list[str]]:
    """Which subjects have a labelled unit of each class: {class name: subject ids, sorted}; one entry of `labels` and
    `subjects` per recording."""
    return {
        name: sorted({subject for known, subject in zip(labels, subjects, strict=True) if (known == index).any()})
        for index, name in enumerate(classes)
    }


def transferable_classes(subjects_of_class: dict[str, list[str]]) -> list[str]:
    """Classes with units in at least two subjects: only they can be fitted on one and tested on another."""
    return [name for name, subjects in subjects_of_class.items() if len(subjects) >= 2]
