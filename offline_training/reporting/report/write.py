"""A run as one page: which sections there are, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nuclr_stream.recordings.readers import AnyRecording
from offline_training.reporting.report.embeddings import embeddings_section
from offline_training.reporting.report.page import render
from offline_training.reporting.report.readouts import readouts_section
from offline_training.reporting.report.run import Run, run_sections
from offline_training.reporting.report.scores import scores_sections
from offline_training.reporting.style import drawing


def write_report(
    run_dir: Path,
    out: Path,
    *,
    recordings: Sequence[AnyRecording] = (),
    results: Path | None = None,
    projection: str = "pca",
) -> Path:
    """Write the page about a run to `out` and return it.

    `recordings` are embedded for the map of units, `results` is a folder with a nested.json of `nuclr-train
    evaluate`. Raises ResultsError for a file that can't be read, ConfigError for an unknown projection.
    """
    run = Run.load(run_dir)
    with drawing():
        sections = [
            *run_sections(run),
            embeddings_section(run_dir, recordings, projection=projection),
            readouts_section(run_dir),
            *scores_sections(results),
        ]
        page = render(f"{run.info['name']}: a NuCLR training", run.lead, sections)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out
