"""docs/results.md, its pages, and the table of the README, from the result files: figures are read, never typed."""

from __future__ import annotations

from pathlib import Path

from offline_training.reporting.calcium_page import calcium_page
from offline_training.reporting.dataset_page import dataset_page
from offline_training.reporting.figures import save, scores_figure
from offline_training.reporting.files import ResultsError, read_json
from offline_training.reporting.nested import Comparison, Nested, OutOfDistribution, load
from offline_training.reporting.style import drawing
from offline_training.reporting.summary_page import readme_table, summary_page
from offline_training.studies.placement import table as placement_table

BEGIN, END = "<!-- results -->", "<!-- /results -->"
DEMO = "network"
"""The data set whose scores are the picture of the README."""


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
    links = {path.name: _link_words(name, nested.get(name)) for name, path in zip(pages, written, strict=True)}
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
    """The page of one folder, empty where it holds nothing that has one."""
    notes = (folder / "notes.md").read_text(encoding="utf-8") if (folder / "notes.md").is_file() else ""
    found = {path.stem: path for path in folder.glob("*.json")}
    if nested is not None or "comparison" in found:
        comparison = load(Comparison, found["comparison"]) if "comparison" in found else None
        return dataset_page(folder.name, notes, nested, comparison, page)
    if {"fresh_animals", "normaliser"} & set(found):
        parts = [read_json(found[name]) if name in found else None for name in ("fresh_animals", "normaliser")]
        return calcium_page(notes, *parts)
    if "placement" in found:
        tables = [placement_table(read_json(found[name])) for name in ("placement", "ten_minutes") if name in found]
        return "\n".join(["# Results: placement along the shank\n", notes, *tables])
    return ""


def _link_words(folder: str, nested: Nested | None) -> str:
    if nested is None:
        return {"calcium": "simulated calcium imaging", "placement": "region borders along a shank"}.get(folder, folder)
    return f"{folder}: {nested.kind}"
