"""`nuclr-export`: bundle a run, import published weights, check a bundle. Heavy imports wait for a command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nuclr_stream.errors import NuclrStreamError

if TYPE_CHECKING:
    from exporters.export import Contents
    from nuclr_stream.prediction.out_of_distribution import OutOfDistribution
    from offline_training.readouts.task_model import TaskModel

_PUBLISHED_SPIKES: dict[str, Any] = {"name": "imported", "kind": "published weights", "training": {"steps": 1}}
"""The defaults of a config are the published window and rules; steps are asked for and say nothing here."""

app = typer.Typer(
    name="nuclr-export",
    help="Turn a trained run into a bundle that the daemon loads, without torch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.command()
def bundle(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of `nuclr-train pretrain` and `readout`.")],
    out: Annotated[Path, typer.Option("--out", help="Directory to write; an older bundle there is replaced.")],
    name: Annotated[
        str, typer.Option("--name", help="Name of the bundle; that of the run's config if not given.")
    ] = "",
    evaluation: Annotated[
        Path | None, typer.Option("--evaluation", help="JSON of `nuclr-train evaluate`: figures for manifest and card.")
    ] = None,
) -> None:
    """Export encoder and readouts, with parity checked; nothing is written when a graph differs from its model."""
    from exporters.export import write_bundle
    from exporters.figures import read_evaluation
    from offline_training.readouts.task_model import load_task_models

    figures = read_evaluation(evaluation) if evaluation else {}
    tasks = load_task_models(run)
    fitted = json.loads((run / "readouts.json").read_text(encoding="utf-8"))
    for found in fitted["tasks"].values():
        del found["single"], found["pools"]  # those of the product stand in the tasks of the manifest
    contents = _contents(run, name=name, evaluation=figures, tasks=tasks, fitted=fitted)
    parity = write_bundle(contents, out)
    typer.echo(f"{out}: written")
    _last_line({"bundle": _checked(out)[0], "parity": parity})


@app.command("import")
def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="File of nerdslab/nuclr or ibl-bwb.")],
    layout: Annotated[str, typer.Option("--layout", help="Which code wrote it: nuclr or brainwidebench.")],
    out: Annotated[Path, typer.Option("--out", help="Directory for the run; its bundle goes to bundle/ in it.")],
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Open pickled objects, which may run any code that they hold.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML with window, rules and tasks; published spike windows if not given."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help=".npz: counts (U, T), embedding (U, D) of the authors' code, for proof."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of run and bundle; that of the config if not given.")] = "",
) -> None:
    """Turn published weights into safetensors and a bundle without readouts; `nuclr-train readout` adds those."""
    from exporters.export import write_bundle
    from offline_training.config import TrainConfig
    from offline_training.pretraining.weights import import_weights, read_checkpoint, write_imported

    settings = TrainConfig.load(config) if config else TrainConfig.parse(_PUBLISHED_SPIKES)
    settings = settings.model_copy(update={"name": name or settings.name})
    weights = read_checkpoint(checkpoint, trust_pickle=trust_pickle)
    encoder, settings, proof = import_weights(weights, layout=layout, config=settings, reference=reference)
    write_imported(out, encoder, settings, source=checkpoint, layout=layout, proof=proof)
    contents = _contents(out, name="", evaluation={}, tasks={}, fitted={"subjects": [], "recordings": []})
    parity = write_bundle(contents, out / "bundle")
    spec = settings.window.spec
    typer.echo(f"{out}: {spec.window_s:g} s windows, {settings.encoder.spatiotemporal_blocks} spatio-temporal blocks")
    typer.echo(f"{out / 'bundle'}: written, without readouts: embeddings only")
    tasks = ", ".join(settings.tasks) or "no task: import with a --config that names some"
    typer.echo(f"next: nuclr-train readout {out} --recordings DIR ({tasks})")
    typer.echo(str(proof))
    _last_line({"bundle": _checked(out / "bundle")[0], "parity": parity, "reference_max_abs": proof.max_abs})


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the bundle.")],
) -> None:
    """Verify format, hashes and graphs, and replay the sample window."""
    bundle_id, differences = _checked(folder)
    typer.echo(f"{folder}: whole, and its sample gives the expected output")
    _last_line({"bundle": bundle_id, "max_abs": differences})


def main() -> None:
    """Run the command line: an error raised on purpose is one line on stderr and exit code 2."""
    try:
        app()
    except NuclrStreamError as error:
        print(f"nuclr-export: {error}", file=sys.stderr)
        sys.exit(2)


def _contents(
    run: Path, *, name: str, evaluation: dict[str, Any], tasks: dict[str, TaskModel], fitted: dict[str, Any]
) -> Contents:
    """Gather what a run says of itself; "seen" are the animals and recordings of the encoder and of the readouts."""
    from exporters.export import Contents
    from nuclr_stream.bundle.manifest import MembershipPart, TrainedOn
    from offline_training.config import RecordingSettings
    from offline_training.pretraining.runs import Run

    opened = Run.open(run)
    config, info = opened.config, opened.info
    settings, description = config.model_dump(mode="json", exclude_none=True), config.kind or config.name
    membership: MembershipPart | None = MembershipPart(
        **(config.recordings or RecordingSettings()).model_dump(), drop_last_s=config.training.drop_last_s
    )
    if "imported" in info:  # how published weights were trained is not in their file
        settings = {part: settings[part] for part in ("window", "rules", "encoder")}
        description, membership = f"{description}; encoder: {info['animals']}", None
    seen = {key: tuple(sorted({*info[key], *fitted[key]})) for key in ("subjects", "recordings")}
    return Contents(
        name=name or config.name,
        encoder=opened.encoder,
        spec=config.window.spec,
        rules=config.rules.rules,
        tasks=tasks,
        membership=membership,
        trained_on=TrainedOn(description=description, **seen),
        training={
            "encoder": {key: value for key, value in info.items() if key not in ("name", "kind")},
            "readouts": fitted,
            "config": settings,
        },
        evaluation=evaluation,
        out_of_distribution=_out_of_distribution(run) if tasks else None,
    )


def _out_of_distribution(run: Path) -> OutOfDistribution | None:
    import numpy as np

    from nuclr_stream.prediction.out_of_distribution import OutOfDistribution

    path = run / "out_of_distribution.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as archive:
        return OutOfDistribution.of_arrays({name: archive[name] for name in archive.files})


def _checked(folder: Path) -> tuple[str, dict[str, float]]:
    from nuclr_stream.bundle.manifest import load_bundle
    from nuclr_stream.inference.model import check_bundle

    loaded = load_bundle(folder)
    return loaded.bundle_id, check_bundle(loaded)


def _last_line(document: dict[str, Any]) -> None:
    """The last line of stdout is JSON for machines."""
    typer.echo(json.dumps(document))
