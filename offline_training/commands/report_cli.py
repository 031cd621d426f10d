"""The commands of `nuclr-train` that show results to others: report, report-results, submission, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offline_training.commands.recordings_cli import HELP, load_recordings


def submission(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs with readouts of the Cosmos regions.")],
    recordings: Annotated[Path, typer.Option("--recordings", help=HELP)],
    label: Annotated[str, typer.Option("--label", help="Name of the submission.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the prediction files.")],
) -> None:
    """Write BrainWideBench prediction files, one a run, for single units and for units pooled along depth."""
    from offline_training.pretraining.runs import Run
    from offline_training.studies.submission import write_submission

    loaded = load_recordings(recordings, Run.open(runs[0]).config)
    for path in write_submission(runs, loaded, label=label, out=out):
        typer.echo(str(path))


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory that pretrain wrote.")],
    out: Annotated[Path, typer.Option("--out", help="HTML page to write.")],
    recordings: Annotated[Path | None, typer.Option("--recordings", help=HELP)] = None,
    results: Annotated[Path | None, typer.Option("--results", help="Folder that evaluate wrote.")] = None,
    projection: Annotated[str, typer.Option(help="pca, or umap where umap-learn is installed.")] = "pca",
) -> None:
    """Write one HTML page with all figures inside: losses, embeddings, confusion, scores and curves."""
    from offline_training.pretraining.runs import Run
    from offline_training.reporting.report import write_report

    loaded = load_recordings(recordings, Run.open(run).config) if recordings is not None else []
    typer.echo(str(write_report(run, out, recordings=loaded, results=results, projection=projection)))


def reproduce(
    name: Annotated[str, typer.Argument(metavar="allen|ibl|steinmetz|bugeon", help="Which experiment.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for recordings, encoders and scores.")],
    archive: Annotated[Path | None, typer.Option("--archive", help="The archive, already downloaded.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Instead of the published settings.")] = None,
    held_out: Annotated[str, typer.Option(help="Animals to hold out instead of the published ones: ID,ID.")] = "",
    seed: Annotated[int | None, typer.Option(help="Instead of the config's training.seed.")] = None,
) -> None:
    """Repeat a published experiment from its public archive, and print its table beside the published one.

    The layout of each archive is described in offline_training/studies/reproduce/. Published settings need a GPU.
    """
    from offline_training.config import TrainConfig
    from offline_training.studies.reproduce import allen, bugeon, ibl, steinmetz
    from offline_training.studies.reproduce.download import download
    from offline_training.studies.reproduce.experiment import as_table
    from offline_training.studies.reproduce.experiment import reproduce as repeat

    known = {one.ARCHIVE.name: one.ARCHIVE for one in (allen, ibl, steinmetz, bugeon)}
    if name not in known:
        raise typer.BadParameter(f"{name!r}: choose one of {', '.join(known)}")
    chosen = known[name]
    settings = TrainConfig.load(config or chosen.config)
    if seed is not None:
        settings = settings.with_training(seed=seed)
    folder = archive or download(chosen, out / "archive")
    names = tuple(one.strip() for one in held_out.split(",") if one.strip())
    typer.echo(as_table(repeat(chosen, folder, out, config=settings, held_out=names)))


def report_results(
    results: Annotated[Path, typer.Option(help="Folder of result folders.")] = Path("results"),
    page: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/results.md"),
    readme: Annotated[Path, typer.Option(help="File with a table between markers.")] = Path("README.md"),
) -> None:
    """Write docs/results.md and the table of the README from the result files; nothing there is typed by hand."""
    from offline_training.reporting.results import write_pages

    for path in write_pages(results, page=page, readme=readme):
        typer.echo(str(path))
