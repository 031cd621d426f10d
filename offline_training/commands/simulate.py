"""`nuclr-train simulate`: labelled recordings of simulated animals, by either of two simulations."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    """Which simulation: intensities that classes modulate, fast, or a network of coupled cells, hard."""

    SIMPLE = "simple"
    NETWORK = "network"


def simulate(
    out: Annotated[Path, typer.Option("--out", help="Folder for the .npz recordings.")],
    kind: Annotated[
        Kind, typer.Option(help="simple: seconds an animal; network: a hard test, 20 s of one core for 5 minutes.")
    ] = Kind.SIMPLE,
    animals: Annotated[int, typer.Option(min=1, help="How many animals.")] = 16,
    first_seed: Annotated[
        int,
        typer.Option(
            help="simple: seed of the first animal, the next ones count up. network: the seed of all animals, which "
            "differ by their index 0, 1, ...; from 10000 on seeds are reserved for judging."
        ),
    ] = 1000,
    sessions: Annotated[int | None, typer.Option(min=1, help="simple: recordings of each animal; 1.")] = None,
    units: Annotated[int | None, typer.Option(help="simple: units of each recording; 120.")] = None,
    duration_s: Annotated[float, typer.Option(help="Length of each recording in seconds.")] = 600.0,
) -> None:
    """Write labelled populations of simulated animals."""
    if kind is Kind.NETWORK:
        from offline_training.simulation.network import write_networks

        for option, value in (("--sessions", sessions), ("--units", units)):
            if value is not None:
                raise typer.BadParameter(f"{option}: the network draws its own units, in one session an animal")
        paths = write_networks(out, animals=animals, seed=first_seed, duration_s=duration_s)
    else:
        from offline_training.simulation.animals import write_simulated

        paths = write_simulated(
            out,
            animals=animals,
            first_seed=first_seed,
            recordings=sessions or 1,
            units=120 if units is None else units,
            duration_s=duration_s,
        )
    typer.echo(f"{len(paths)} recordings in {out}")
