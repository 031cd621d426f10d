"""What is held out together: whole animals for any zero-shot claim, or units of all populations for a transductive one.

Neurons return on other days, so units or recordings are never held out where the claim is about new animals. A split is
a word, or a JSON file with stable ids (configs/splits/): `name`, `what` it does in words, and either `held_out`, a list
of lists of subject ids, or `unit_folds`, a number of folds into which units fall by SHA-256 of their ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.windows.binning import BoolArray
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

    def trains_on(self, recording: AnyRecording) -> BoolArray:
        """Which units (U,) readouts may be fitted on."""
        return np.full(len(recording.unit_ids), recording.subject_id not in self.held_out)

    def tests_on(self, recording: AnyRecording) -> BoolArray:
        """Which units (U,) are tested: no unit of a recording is both."""
        return ~self.trains_on(recording)

    def training(self, recordings: Sequence[AnyRecording]) -> list[AnyRecording]:
        """The recordings that encoder and readouts may be trained on."""
        return [recording for recording in recordings if self.trains_on(recording).any()]

    def test(self, recordings: Sequence[AnyRecording]) -> list[AnyRecording]:
        """The recordings with units that are tested."""
        return [recording for recording in recordings if self.tests_on(recording).any()]


@dataclass(frozen=True)
class UnitFold(Fold):
    """Units of all populations that are tested together: part `part` of `parts`. Encoders may see their activity."""

    part: int
    parts: int

    @property
    def name(self) -> str:
        """Which part of how many."""
        return f"units{self.part + 1}of{self.parts}"

    def trains_on(self, recording: AnyRecording) -> BoolArray:
        """The units (U,) of all other parts."""
        return np.asarray(unit_parts(recording, self.parts) != self.part)


@dataclass(frozen=True)
class Split:
    """A way to hold out: its name, from the command line or its file, and its folds."""

    name: str
    folds: tuple[Fold, ...]

    def fold(self, name: str) -> Fold:
        """The fold of this name. Raises SplitError naming those that there are."""
        for fold in self.folds:
            if fold.name == name:
                return fold
        raise SplitError(f"split {self.name}: no fold {name!r}; choose from {', '.join(f.name for f in self.folds)}")


def unit_parts(recording: AnyRecording, parts: int) -> np.ndarray:
    """The part (U,) of every unit: SHA-256 of "recording_id/unit_id" modulo `parts`, the same on every machine."""
    # Not Python's hash: that one changes from process to process.
    names = [f"{recording.recording_id}/{unit_id}" for unit_id in recording.unit_ids]
    return np.array([int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % parts for name in names])


def parse_split(name: str, config: TrainConfig, recordings: Sequence[AnyRecording]) -> Split:
    """The split "leave-one-subject-out", "held-out=ID,ID" (one fold), or that of a .json file.

    Left out in turn are the animals with labelled units for every task; the others are always trained on.
    Raises SplitError for another name, a file with other content, an unknown animal, or a fold without training
    animals.
    """
    subjects = sorted({recording.subject_id for recording in recordings})
    if name.endswith(".json"):
        split = _read(Path(name))
    elif name == LEAVE_ONE_OUT:
        split = Split(name, tuple(Fold((subject,)) for subject in subjects if _labelled(subject, config, recordings)))
    elif name.startswith(HELD_OUT):
        split = Split(name, (Fold(tuple(sorted(set(name.removeprefix(HELD_OUT).split(","))))),))
    else:
        raise SplitError(f"split {name!r}: must be {LEAVE_ONE_OUT}, {HELD_OUT}ID,ID or a .json file")
    for fold in split.folds:
        unknown = set(fold.held_out) - set(subjects)
        if unknown or set(fold.held_out) == set(subjects):
            raise SplitError(
                f"split {name!r}: {', '.join(sorted(unknown)) or 'every animal'} cannot be held out; "
                f"choose some of {', '.join(subjects)} and leave at least one to train on"
            )
    if not split.folds:
        raise SplitError(f"split {name!r}: no animal has labelled units for every one of {', '.join(config.tasks)}")
    return split


def _read(path: Path) -> Split:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SplitError(f"{path}: not a readable JSON file ({error}); see configs/splits/") from error
    keys = set(content) - {"what"} if isinstance(content, dict) else set()
    if keys == {"name", "held_out"}:
        return Split(str(content["name"]), tuple(_animals(path, ids) for ids in _list(path, content["held_out"])))
    if keys != {"name", "unit_folds"}:
        raise SplitError(f"{path}: must hold name, what, and either held_out or unit_folds; it holds {sorted(keys)}")
    parts = content["unit_folds"]
    if not isinstance(parts, int) or parts < 2:
        raise SplitError(f"{path}: unit_folds = {parts!r}: must be a whole number of at least 2")
    return Split(str(content["name"]), tuple(UnitFold((), part, parts) for part in range(parts)))


def _animals(path: Path, ids: Any) -> Fold:
    return Fold(tuple(sorted({str(subject) for subject in _list(path, ids)})))


def _list(path: Path, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise SplitError(f"{path}: held_out: {value!r} must be a list of lists of subject ids, none of them empty")
    return value


def _labelled(subject: str, config: TrainConfig, recordings: Sequence[AnyRecording]) -> bool:
    own = [recording for recording in recordings if recording.subject_id == subject]
    return all(any((task.labels(recording) != UNLABELLED).any() for recording in own) for task in config.tasks.values())
