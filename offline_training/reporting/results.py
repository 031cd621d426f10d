"""docs/results.md, its pages, and the table of the README, from the result files: figures are read, never typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from offline_training.reporting.calcium_page import distance_section, fresh_section
from offline_training.reporting.dataset_page import comparison_section, nested_section
from offline_training.reporting.figures import save, scores_figure
from offline_training.reporting.files import ResultsError, read_json
from offline_training.reporting.nested import Comparison, Nested, OutOfDistribution, load
from offline_training.reporting.style import drawing
from offline_training.reporting.summary_page import readme_table, summary_page
from offline_training.studies.placement import table as placement_table

BEGIN, END = "<!-- results -->", "<!-- /results -->"
DEMO = "network"
"""The data set whose scores are the picture of the README."""
FOLDERS = {
    "network": "simulated networks of spiking neurons",
    "rat": "Neuropixels recordings of rats",
    "calcium": "simulated calcium imaging",
    "placement": "region borders along a shank",
}
"""What the folders of results are about, in words; a folder that is not here is called by its name."""
SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "fresh_animals": fresh_section,
    "normaliser": distance_section,
    "network": placement_table,
    "placement": placement_table,
    "ten_minutes": placement_table,
}
"""Sections of files whose content they take as it is, in the order of the page."""


def write_pages(results: Path, *, page: Path, readme: Path) -> list[Path]:
    """Write `page`, a page results_<data set>.md beside it for every folder of `results` that holds results, their
    pictures in figures/ beside them, and the table of `readme` between its markers.

    Returns what was written; a README that is absent or has no markers is left alone. Raises ResultsError where there
    are no results, or naming the file that is damaged.
    """
    # One page per data set.
    nested: dict[str, Nested] = {}
    pages: dict[str, str] = {}
    for folder in sorted(path for path in results.glob("*") if path.is_dir()):
        if (folder / "nested.json").is_file():
            nested[folder.name] = load(Nested, folder / "nested.json")
        if text := _folder_page(folder, nested.get(folder.name), page):
            pages[folder.name] = text
    if not pages:
        raise ResultsError(f"{results}: no folder holds results; run `nuclr-train evaluate`")
    written = []
    for name, text in pages.items():
        path = page.with_name(f"{page.stem}_{name}.md")
        path.write_text(text.rstrip() + "\n", encoding="utf-8")
        written.append(path)

    # The summary, which links them.
    foreign = results / "out_of_distribution.json"
    rows = load(OutOfDistribution, foreign).rows if foreign.is_file() else []
    links = {path.name: FOLDERS.get(name, name) for name, path in zip(pages, written, strict=True)}
    page.write_text(summary_page(list(nested.values()), rows, links), encoding="utf-8")
    written.append(page)

    # The README: its table and its picture.
    if DEMO in nested:
        with drawing():
            written.append(save(scores_figure(nested[DEMO].tasks), page.parent / "figures" / "demo.svg"))
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if BEGIN in text and END in text:
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        content = readme_table(list(nested.values()))
        readme.write_text(f"{before}{BEGIN}\n{content}\n{END}{after}", encoding="utf-8")
        written.append(readme)
    return written


def _folder_page(folder: Path, nested: Nested | None, page: Path) -> str:
    """The page of one folder, empty where it holds nothing that has a section."""
    found = {path.stem: path for path in folder.glob("*.json")}
    sections = []
    if nested is not None:
        sections.append(nested_section(nested, page))
    if "comparison" in found:
        sections.append(comparison_section(load(Comparison, found["comparison"])))
    for name, section in SECTIONS.items():
        if name in found:
            sections.append(section(read_json(found[name])))
    if not sections:
        return ""
    notes = folder / "notes.md"
    text = notes.read_text(encoding="utf-8") if notes.is_file() else ""
    return "\n".join([f"# Results: {FOLDERS.get(folder.name, folder.name)}\n", text, *sections])
