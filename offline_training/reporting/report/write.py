"""A run as one page: which sections there are, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nuclr_stream.recordings.recording import Recorded
from offline_training.reporting.report.curves import curves_section
from offline_training.reporting.report.embeddings import embeddings_section
from offline_training.reporting.report.page import render
from offline_training.reporting.report.run import Run, readouts_section, run_sections
from offline_training.reporting.report.scores import scores_sections
from offline_training.reporting.report.style import drawing


def write_report(
    run_dir: Path,
    out: Path,
    *,
    recordings: Sequence[Recorded] = (),
    results: Path | None = None,
    projection: str = "pca",
) -> Path:
    """Write the page about a run to `out` and return it.

    `recordings` are embedded for the map of units, `results` is a folder of result files of `nuclr-train evaluate` or
    `evaluate-simulated`. Raises ReportError for a file that can't be read, ConfigError for an unknown projection.
    """
    run = Run.load(run_dir)
    with drawing():
        sections = [
            *run_sections(run),
            embeddings_section(run_dir, recordings, projection=projection),
            readouts_section(run_dir),
            *scores_sections(results),
            curves_section(results),
        ]
        page = render(f"{run.info['name']}: a NuCLR training", run.lead, sections)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out
