"""Which checkpoint counts: the last one, or the one that does best on labelled animals kept out of pretraining.

The NuCLR authors choose by validation macro-F1, that is, with labels; a training that does the same notes it in
run.json and in all results. Validation animals train nothing of the encoder and are never test animals. What scores a
checkpoint is an argument (`offline_training.readouts.validation`): pretraining does not import readouts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.readers import AnyRecording
from offline_training.config import TrainConfig
from offline_training.model.encoder import Encoder
from offline_training.pretraining.steps import Training

Score = Callable[[Encoder], float]
"""How good an encoder is on the validation animals; higher is better."""


def without_validation(config: TrainConfig, recordings: Sequence[AnyRecording]) -> list[AnyRecording]:
    """The recordings that views are drawn from: all but those of the validation animals.

    Raises ConfigError when a validation animal has no recording, or no other animal has one.
    """
    chosen = set(config.selection.subjects) if config.selection else set()
    known = {recording.subject_id for recording in recordings}
    if missing := sorted(chosen - known):
        raise ConfigError(
            f"selection.subjects: no recording of {', '.join(missing)} among those to train on; an animal that is "
            f"held out for testing must not choose the checkpoint. Choose from {', '.join(sorted(known))}"
        )
    if chosen and chosen >= known:
        raise ConfigError(f"selection.subjects: {', '.join(sorted(known))} are all animals; leave some to train on")
    return [recording for recording in recordings if recording.subject_id not in chosen]


def keep_the_better(training: Training, score: float) -> None:
    """Note the score of this step, and keep its weights if it is above all before; the first of equals stays."""
    before: dict[str, Any] = training.selected or {"macro_f1": -1.0, "scores": []}
    scores = [*before["scores"], [training.step, score]]
    if score > before["macro_f1"]:
        # A copy: the optimiser goes on changing the weights in place.
        weights = {name: value.detach().cpu().clone() for name, value in training.encoder.state_dict().items()}
        before = {"encoder": weights, "step": training.step, "macro_f1": score}
    training.selected = before | {"scores": scores}
