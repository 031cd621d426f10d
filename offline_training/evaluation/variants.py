"""Arms of an experiment: the same evaluation with something left out of, or changed in, the pretraining.

Ablations change the settings; scaling leaves animals out of the pretraining, never out of the readouts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.recording import Recording
from offline_training.config import TrainConfig


@dataclass(frozen=True)
class Arm:
    """One way to pretrain: settings and, unless it is None, with how many of the training animals."""

    name: str
    config: TrainConfig
    animals: int | None = None

    def recordings(self, training: Sequence[Recording], seed: int) -> list[Recording]:
        """Those to pretrain on: of the first `animals` subjects in an order by SHA-256 of seed and subject id, so that
        fewer animals are a subset of more. Raises ConfigError when there are not so many."""
        subjects = sorted({recording.subject_id for recording in training}, key=lambda one: _rank(one, seed))
        if self.animals is not None and self.animals > len(subjects):
            raise ConfigError(f"arm {self.name}: {self.animals} animals to pretrain on, the fold has {len(subjects)}")
        return [recording for recording in training if recording.subject_id in subjects[: self.animals]]


def ablations(config: TrainConfig) -> dict[str, Arm]:
    """The published ablations of `config` by name.

    `no_spatial` has as many temporal blocks instead of the spatio-temporal ones: units never attend to each other.
    """
    blocks = config.encoder.temporal_blocks + config.encoder.spatiotemporal_blocks
    changes: dict[str, dict[str, Any]] = {
        "no_spatial": {"encoder": {"temporal_blocks": blocks, "spatiotemporal_blocks": 0}},
        "no_unit_dropout": {"training": {"unit_keep": (1.0, 1.0)}},
        "published_loss": {"loss": {"kind": "published"}},
        "vicreg": {"loss": {"kind": "vicreg"}},
    }
    return {name: Arm(name, _changed(config, change)) for name, change in changes.items()}


def scaling(config: TrainConfig, animals: Sequence[int]) -> dict[str, Arm]:
    """One arm for every number of animals to pretrain on, by name."""
    return {f"animals{number}": Arm(f"animals{number}", config, number) for number in animals}


def _changed(config: TrainConfig, change: dict[str, dict[str, Any]]) -> TrainConfig:
    values = config.model_dump(exclude_none=True)
    for section, content in change.items():
        values[section] = values[section] | content
    return TrainConfig.parse(values, config.name)


def _rank(subject: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{subject}".encode()).hexdigest()
