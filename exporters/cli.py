"""`nuclr-export`: bundle a run, check a bundle. Commands import what they need when they run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nuclr_stream.errors import NuclrStreamError

if TYPE_CHECKING:
    from exporters.export import Contents

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

    figures = read_evaluation(evaluation) if evaluation else {}
    parity = write_bundle(_contents(run, name=name, evaluation=figures), out)
    typer.echo(f"{out}: written")
    _last_line({"bundle": _checked(out)[0], "parity": parity})


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


def _contents(run: Path, *, name: str, evaluation: dict[str, Any]) -> Contents:
    """Gather what a run says of itself; "seen" are the animals and recordings of the encoder and of the readouts."""
    from exporters.export import Contents
    from nuclr_stream.bundle import MembershipPart, TrainedOn
    from offline_training.config import RecordingSettings
    from offline_training.pretrain import load_run
    from offline_training.readout import load_readouts

    encoder, config, info = load_run(run)
    readouts = load_readouts(run)
    fitted = json.loads((run / "readouts.json").read_text(encoding="utf-8"))
    settings = config.model_dump(mode="json", exclude_none=True)
    seen = {key: tuple(sorted({*info[key], *fitted[key]})) for key in ("subjects", "recordings")}
    return Contents(
        name=name or config.name,
        encoder=encoder,
        spec=config.window.spec,
        rules=config.rules.rules,
        readouts=readouts,
        membership=MembershipPart(
            **(config.recordings or RecordingSettings()).model_dump(), drop_last_s=config.training.drop_last_s
        ),
        trained_on=TrainedOn(description=config.kind or config.name, **seen),
        training={
            "encoder": {key: value for key, value in info.items() if key not in ("name", "kind")},
            "readouts": fitted,
            "config": settings,
        },
        evaluation=evaluation,
    )


def _checked(folder: Path) -> tuple[str, dict[str, float]]:
    from nuclr_stream.bundle import load_bundle
    from nuclr_stream.inference import check_bundle

    loaded = load_bundle(folder)
    return loaded.bundle_id, check_bundle(loaded)


def _last_line(document: dict[str, Any]) -> None:
    """The last line of stdout is JSON for machines."""
    typer.echo(json.dumps(document))
