"""The commands of `nuclr-train` that vary one thing and score all else alike: ablate, scale, label-efficiency."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offline_training.commands.recordings_cli import HELP, load_recordings

if TYPE_CHECKING:
    from offline_training.config import TrainConfig
    from offline_training.evaluation.variants import Arm

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file, see configs/pretrain_*.toml.")]
Recordings = Annotated[Path, typer.Option("--recordings", help=HELP)]
SplitName = Annotated[str, typer.Option("--split", help="As for evaluate.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the result files.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder for the encoders.")]
Seeds = Annotated[str, typer.Option(help="Seeds of the pretraining, separated by commas.")]
Steps = Annotated[int | None, typer.Option(help="Instead of the config's training.steps, for all arms alike.")]
Hop = Annotated[float | None, typer.Option(help="Seconds between windows, instead of the config's.")]


def ablate(
    config: ConfigFile,
    recordings: Recordings,
    split: SplitName,
    out: Out,
    runs: Runs,
    seeds: Seeds = "0",
    hop_s: Hop = None,
    steps: Steps = None,
    only: Annotated[str, typer.Option(help="Some of the ablations, separated by commas.")] = "",
) -> None:
    """Pretrain without population layers, without unit dropout, with the published loss and with VICReg."""
    from offline_training.evaluation.variants import ablations

    settings = _settings(config, steps)
    arms = ablations(settings)
    if unknown := sorted({*only.split(",")} - {*arms, ""}):
        raise typer.BadParameter(f"no ablation {', '.join(unknown)}; there are {', '.join(arms)}")
    chosen = [arm for name, arm in arms.items() if not only or name in only.split(",")]
    _run_arms(chosen, settings, recordings, split=split, out=out, runs=runs, seeds=seeds, hop_s=hop_s)


def scale(
    config: ConfigFile,
    recordings: Recordings,
    split: SplitName,
    out: Out,
    runs: Runs,
    animals: Annotated[str, typer.Option(help="How many animals to pretrain on, separated by commas.")],
    seeds: Seeds = "0",
    hop_s: Hop = None,
    steps: Steps = None,
) -> None:
    """Pretrain on fewer of the training animals; the readouts are fitted on all of them."""
    from offline_training.evaluation.variants import scaling

    settings = _settings(config, steps)
    arms = list(scaling(settings, [int(number) for number in animals.split(",")]).values())
    _run_arms(arms, settings, recordings, split=split, out=out, runs=runs, seeds=seeds, hop_s=hop_s)


def label_efficiency(
    config: ConfigFile,
    recordings: Recordings,
    split: SplitName,
    out: Out,
    runs: Runs,
    seeds: Seeds = "0",
    hop_s: Hop = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the labelled units for every share.")] = 3,
) -> None:
    """Fit readouts on 1, 3, 10, 30 and 100 % of the labelled training units, on encoders that `evaluate` trained."""
    from offline_training.config import TrainConfig
    from offline_training.data.splits import parse_split
    from offline_training.studies.label_efficiency import label_efficiency as measure

    settings = TrainConfig.load(config)
    loaded = load_recordings(recordings, settings)
    parsed = parse_split(split, settings, loaded)
    path = measure(
        settings, loaded, parsed, seeds=_numbers(seeds), draws=draws, out_dir=out, runs_dir=runs, hop_s=hop_s
    )
    typer.echo(str(path))


def _settings(config: Path, steps: int | None) -> TrainConfig:
    from offline_training.config import TrainConfig

    settings = TrainConfig.load(config)
    return settings if steps is None else settings.with_training(steps=steps, epochs=None)


def _run_arms(
    arms: list[Arm],
    config: TrainConfig,
    recordings: Path,
    *,
    split: str,
    out: Path,
    runs: Path,
    seeds: str,
    hop_s: float | None,
) -> None:
    from offline_training.data.splits import parse_split
    from offline_training.evaluation.aggregate import combine
    from offline_training.evaluation.evaluate import run_fold

    loaded = load_recordings(recordings, config)
    parsed = parse_split(split, config, loaded)
    for arm in arms:
        for seed in _numbers(seeds):
            for fold in parsed.folds:
                done = run_fold(
                    config,
                    loaded,
                    fold,
                    seed=seed,
                    out_dir=out,
                    runs_dir=runs,
                    hop_s=hop_s,
                    split=parsed,
                    arm=arm,
                )
                typer.echo(str(done), err=True)
    combine(out)


def _numbers(listed: str) -> list[int]:
    return [int(number) for number in listed.split(",")]
