"""The encoder of every fold: trained on what the fold may train on, once, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nuclr_stream.recordings.readers import AnyRecording
from offline_training.config import TrainConfig
from offline_training.data.splits import Fold
from offline_training.evaluation.nested import EvaluationError
from offline_training.pretraining.pretrain import pretrain
from offline_training.pretraining.runs import Run
from offline_training.readouts.validation import validation_score


def covering(fold: Fold, encoder_folds: Sequence[Fold]) -> Fold:
    """The first of `encoder_folds` whose encoder sees none of the animals that `fold` tests. Raises EvaluationError."""
    for encoder_fold in encoder_folds:
        if set(fold.held_out) <= set(encoder_fold.held_out):
            return encoder_fold
    raise EvaluationError(f"fold {fold.name}: no fold of --encoders leaves out all of its animals")


def pretrain_once(config: TrainConfig, recordings: Sequence[AnyRecording], run_dir: Path) -> None:
    """Pretrain unless it is done already; go on where it was interrupted. Raises EvaluationError when what is there
    comes from other settings or recordings, or when it is interrupted again."""
    begun = (run_dir / "checkpoint.pt").is_file()
    if begun:
        run = Run.open(run_dir)
        if not run.is_of(config, recordings):
            raise EvaluationError(
                f"{run_dir}: trained with other settings or recordings; remove it or name another place"
            )
        if run.finished:
            return
    score = validation_score(config, recordings)
    pretrain(config, recordings, run_dir, score=score, resume=begun, title=run_dir.name)
    if not Run.open(run_dir).finished:
        raise EvaluationError(f"{run_dir}: the training was interrupted; the same command goes on with it")
