"""`nuclr-train normaliser-distance`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Units = Annotated[int, typer.Option(help="Units of each recording.")]
Duration = Annotated[float, typer.Option(help="Length of each recording in seconds.")]


def normaliser_distance(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A config of traces with a normaliser.")],
    out: Annotated[Path, typer.Option("--out", help="Result file.")] = Path("results/calcium/normaliser.json"),
    animals: Annotated[int, typer.Option(help="How many fresh animals.")] = 6,
    first_seed: Annotated[int, typer.Option(help="Seed of the first one.")] = 9900,
    units: Units = 120,
    duration_s: Duration = 600.0,
) -> None:
    """Measure the running normaliser of traces against the percentile of the whole recording, on simulated animals."""
    from nuclr_stream.errors import ConfigError
    from offline_training.config import TrainConfig
    from offline_training.studies.normaliser_distance import normaliser_distance as measure

    settings = TrainConfig.load(config).window.spec.normaliser
    if settings is None:
        raise ConfigError(f"{config}: window.normaliser is missing; there is nothing to measure")
    seeds = range(first_seed, first_seed + animals)
    result = measure(settings, seeds=seeds, out=out, units=units, duration_s=duration_s)
    for seconds, worst in zip(result["seconds"], result["worst_distance"], strict=True):
        typer.echo(f"{seconds:5g} s: at most {100 * worst:.1f} % from the percentile of the whole recording")
