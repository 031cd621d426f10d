"""`nuclr-train pretrain`: an encoder from recordings, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.readers import AnyRecording
from offline_training.commands.recordings_cli import HELP, load_recordings


def pretrain(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file, see configs/pretrain_*.toml.")],
    recordings: Annotated[Path, typer.Option("--recordings", help=HELP)],
    out: Annotated[Path, typer.Option("--out", help="Directory of the run.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    only: Annotated[str, typer.Option(help="Train on these subjects only, separated by commas.")] = "",
    without: Annotated[str, typer.Option(help="Leave these subjects out, separated by commas.")] = "",
    seed: Annotated[int | None, typer.Option(help="Instead of the config's training.seed.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of the config's training.steps.")] = None,
) -> None:
    """Train an encoder without labels. Ctrl-C saves and ends; --resume goes on with the very next step."""
    from offline_training.config import TrainConfig
    from offline_training.pretraining.distributed import is_first
    from offline_training.pretraining.pretrain import pretrain as train
    from offline_training.pretraining.runs import Run
    from offline_training.readouts.validation import validation_score

    settings = TrainConfig.load(config)
    if seed is not None:
        settings = settings.with_training(seed=seed)
    if steps is not None:
        settings = settings.with_training(steps=steps, epochs=None)
    loaded = load_recordings(recordings, settings)
    chosen = of_subjects(loaded, only=_names(only), without=_names(without))
    score = validation_score(settings, chosen)
    train(settings, chosen, out, score=score, resume=resume, title=settings.name)
    if not is_first():  # of several processes one reports
        return
    run = Run.open(out)
    info, state = run.info, "finished" if run.finished else "stopped; --resume goes on"
    typer.echo(f"{out}: {info['step']}/{info['steps']} steps, {info['windows_per_s']} windows/s, {state}")


def of_subjects(recordings: list[AnyRecording], *, only: set[str], without: set[str]) -> list[AnyRecording]:
    """The recordings of the subjects `only` (of all where it is empty) that are not in `without`.

    Raises ConfigError naming a subject that has no recording.
    """
    known = {recording.subject_id for recording in recordings}
    if unknown := (only | without) - known:
        raise ConfigError(f"no recording of subject {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    chosen = (only or known) - without
    return [recording for recording in recordings if recording.subject_id in chosen]


def _names(listed: str) -> set[str]:
    return {name.strip() for name in listed.split(",") if name.strip()}
