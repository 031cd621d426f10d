"""Options that several commands share, and the bundle that they name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated

import typer

from nuclr_stream.bundle.manifest import find_bundle, load_bundle, shipped_bundles
from nuclr_stream.errors import ConfigError
from nuclr_stream.inference.model import Model, Provider

Bundle = Annotated[
    str, typer.Option("--bundle", help="Name of a shipped bundle, or its directory; NAME@ID takes no other.")
]
Data = Annotated[str, typer.Option("--data-endpoint", help="Where the daemon takes spikes.")]
Results = Annotated[str, typer.Option("--results-endpoint", help="Where the daemon publishes.")]
Query = Annotated[str, typer.Option("--query-endpoint", help="Where the daemon answers.")]
Threads = Annotated[int, typer.Option("--threads", help="Of one inference; 0 takes all cores but one.")]

PopulationBy = Annotated[
    str, typer.Option("--population-by", help="Column whose values are populations instead of probes, or all.")
]
AbstainBelow = Annotated[
    float | None, typer.Option("--abstain-below", help="Top probability below which no class is called, for all tasks.")
]

FILES = "Recordings: .npz, .nwb, torch_brain .h5, a Kilosort/phy folder, or a folder of any of these."


def load_model(bundle: str, *, provider: Provider = "auto", threads: int = 0) -> Model:
    """Return the bundle that `--bundle` names, ready to run; `threads` 0 takes all cores but one.

    Raises ConfigError when none is named, BundleError and ProviderError as Model does.
    """
    if not bundle:
        shipped = ", ".join(shipped_bundles()) or "none in this installation"
        raise ConfigError(
            f"no bundle: pass --bundle NAME (shipped: {shipped}) or --bundle DIR; "
            "nuclr-export bundle RUN --out DIR makes one from a training run"
        )
    model = Model(load_bundle(find_bundle(bundle)), provider=provider, threads=threads or None)
    if model.provider_note:
        logging.getLogger(__name__).warning("running on %s: %s", model.provider, model.provider_note)
    return model


def warn_of_thresholds(model: Model, abstain: Mapping[str, float]) -> None:
    """Log a warning for every task whose threshold is set below one that the bundle's card makes a statement about."""
    for task, threshold in abstain.items():
        pool = model.task(task).pools[0]
        if threshold < max(pool.abstain_below):
            logging.getLogger(__name__).warning(
                "abstain.%s = %g is below the bundle's own threshold (%s by exposure): %s no longer holds",
                task,
                threshold,
                ", ".join(f"{own:g}" for own in pool.abstain_below),
                model.task(task).threshold_promise,
            )
