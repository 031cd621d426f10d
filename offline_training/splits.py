"""Which animals are held out together. Animals, never units or recordings: neurons return on other days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.recording import Recording
from offline_training.config import UNLABELLED, TrainConfig

LEAVE_ONE_OUT = "leave-one-subject-out"
HELD_OUT = "held-out="


class SplitError(NuclrStreamError):
    """A split names animals that are not there, or leaves nothing to train on."""


@dataclass(frozen=True)
class Fold:
    """Animals that are tested together, by an encoder and readouts that saw none of them."""

    held_out: tuple[str, ...]

    @property
    def name(self) -> str:
        """The held-out animals, joined by +."""
        return "+".join(self.held_out)

    def training(self, recordings: Sequence[Recording]) -> list[Recording]:
        """The recordings of all other animals."""
        return [recording for recording in recordings if recording.subject_id not in self.held_out]

    def test(self, recordings: Sequence[Recording]) -> list[Recording]:
        """The recordings of the held-out animals."""
        return [recording for recording in recordings if recording.subject_id in self.held_out]


@dataclass(frozen=True)
class Split:
    """A way to hold animals out: its name, as it was asked for, and its folds."""

    name: str
    folds: tuple[Fold, ...]

    def fold(self, name: str) -> Fold:
        """The fold of this name. Raises SplitError naming those that there are."""
        for fold in self.folds:
            if fold.name == name:
                return fold
        raise SplitError(f"split {self.name}: no fold {name!r}; choose from {', '.join(f.name for f in self.folds)}")


def parse_split(name: str, config: TrainConfig, recordings: Sequence[Recording]) -> Split:
    """The split "leave-one-subject-out" or "held-out=ID,ID" (one fold).

    Left out in turn are the animals with labelled units for every task; the others are always trained on.
    Raises SplitError for another name, an unknown animal, or a fold without training animals.
    """
    subjects = sorted({recording.subject_id for recording in recordings})
    if name == LEAVE_ONE_OUT:
        folds = [Fold((subject,)) for subject in subjects if _labelled(subject, config, recordings)]
    elif name.startswith(HELD_OUT):
        folds = [Fold(tuple(sorted(set(name.removeprefix(HELD_OUT).split(",")))))]
    else:
        raise SplitError(f"split {name!r}: must be {LEAVE_ONE_OUT} or {HELD_OUT}ID,ID")
    for fold in folds:
        unknown = set(fold.held_out) - set(subjects)
        if unknown or set(fold.held_out) == set(subjects):
            raise SplitError(
                f"split {name!r}: {', '.join(sorted(unknown)) or 'every animal'} cannot be held out; "
                f"choose some of {', '.join(subjects)} and leave at least one to train on"
            )
    if not folds:
        raise SplitError(f"split {name!r}: no animal has labelled units for every one of {', '.join(config.tasks)}")
    return Split(name, tuple(folds))


def _labelled(subject: str, config: TrainConfig, recordings: Sequence[Recording]) -> bool:
    own = [recording for recording in recordings if recording.subject_id == subject]
    return all(any((task.labels(recording) != UNLABELLED).any() for recording in own) for task in config.tasks.values())
