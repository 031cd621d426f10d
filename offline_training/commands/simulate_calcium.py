"""`nuclr-train simulate-calcium`: calcium traces of simulated animals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate_calcium(
    out: Annotated[Path, typer.Option("--out", help="Folder for the .npz recordings.")],
    animals: Annotated[int, typer.Option(help="How many animals.")] = 16,
    first_seed: Annotated[int, typer.Option(help="Seed of the first animal; the next ones count up.")] = 5000,
    units: Annotated[int, typer.Option(help="Units of each recording.")] = 120,
    duration_s: Annotated[float, typer.Option(help="Length of each recording in seconds.")] = 600.0,
) -> None:
    """Write labelled calcium traces (dF/F) of simulated animals."""
    from offline_training.simulation.calcium import write_simulated_calcium

    paths = write_simulated_calcium(out, animals=animals, first_seed=first_seed, units=units, duration_s=duration_s)
    typer.echo(f"{len(paths)} recordings in {out}")
