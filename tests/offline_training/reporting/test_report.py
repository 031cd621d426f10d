"""The report: one page that needs nothing but itself, says what it shows, and gives a reason for what it leaves out."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from nuclr_stream.errors import ConfigError
from offline_training.commands.cli import main
from offline_training.config import TrainConfig
from offline_training.pretraining.pretrain import pretrain
from offline_training.reporting.files import ResultsError
from offline_training.reporting.report import write_report
from offline_training.reporting.report.embeddings import NAMED, OTHERS, UNNAMED, named
from offline_training.reporting.style import MUTED, looks
from offline_training.simulation.animals import simulate
from tests.offline_training.reporting.examples import write_example

CONFIG = {
    "name": "tiny <run>",
    "kind": "simulated animals",
    "encoder": {"dim": 8, "heads": 1, "head_dim": 8, "ffn_hidden": 8, "temporal_blocks": 1, "spatiotemporal_blocks": 1},
    "training": {"steps": 40, "batch_windows": 2},
    "tasks": {"cell_type": {"column": "cell_type", "classes": {c: [c] for c in ("E", "PV", "SST", "VIP")}}},
}


class Page(HTMLParser):
    """What matters of a page: images with their texts, headings, reasons, and addresses that lead elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str]] = []
        self.tags: list[str] = []
        self.elsewhere: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(f"{tag}.{values['class']}" if "class" in values else tag)
        self.elsewhere += [v for k, v in values.items() if k in ("src", "href") and not v.startswith("data:")]
        if tag == "img":
            self.images.append(values)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.setdefault(self.tags[-1], []).append(data)


@pytest.fixture(scope="module")
def recordings() -> list[Any]:
    return [simulate(seed, units=20, duration_s=60.0) for seed in (1, 2)]


@pytest.fixture(scope="module")
def run_dir(recordings: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(TrainConfig.parse(CONFIG), recordings, tmp_path_factory.mktemp("report") / "run")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_example(tmp_path / "results")


@pytest.fixture(scope="module")
def full_page(run_dir: Path, recordings: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page with everything on it."""
    folder = write_example(tmp_path_factory.mktemp("results"))
    return page_of(run_dir, folder, recordings=recordings, results=folder)


def page_of(run_dir: Path, tmp_path: Path, **options: Any) -> Page:
    return Page(write_report(run_dir, tmp_path / "report.html", **options).read_text(encoding="utf-8"))


def test_the_page_needs_nothing_but_itself(run_dir: Path, recordings: list[Any], results: Path, tmp_path: Path) -> None:
    page = page_of(run_dir, tmp_path, recordings=recordings, results=results)
    assert page.elsewhere == [] and not {"script", "link", "iframe"} & set(page.tags)
    for image in page.images:
        kind, content = image["src"].split(",", 1)
        assert kind == "data:image/svg+xml;base64"
        svg = ElementTree.fromstring(base64.b64decode(content))
        inside = [v for node in svg.iter() for k, v in node.attrib.items() if k.endswith("href")]
        assert all(address.startswith(("#", "data:")) for address in inside)
        assert not [node for node in svg.iter() if node.tag.endswith("}text")], (
            "letters are outlines: no font is needed"
        )


def test_every_figure_says_in_words_what_it_shows(full_page: Page) -> None:
    page = full_page
    alts = [image["alt"] for image in page.images]
    assert len(alts) == 8 and all(alts) and len(page.texts["figcaption"]) == 8
    joined = "\n".join(alts)
    assert "40 units on a plane, coloured by cell_type: E " in joined
    assert "coloured by animal: sim_000001 20, sim_000002 20." in joined
    assert "Loss over 40 steps, from" in joined
    assert "Macro-F1 of cell type after the whole recording: nuclr-stream, the shipped pool 0.966, " in joined
    assert "the same pool with readouts of whole recordings only 0.884. Called: 88 %, right of those: 100 %." in joined
    assert re.search(r"share of each class that was recognised: E [01]\.\d\d, PV [01]\.\d\d, SST", joined)


def test_scores_are_listed_by_animal(full_page: Page) -> None:
    cells = full_page.texts["td"]
    assert cells[cells.index("a1") : cells.index("a1") + 6] == ["a1", "40", "0.951", "0.170", "82 %", "100 %"]


def test_the_run_is_described_from_its_files(run_dir: Path, tmp_path: Path) -> None:
    page = page_of(run_dir, tmp_path)
    assert page.texts["h1"] == ["tiny <run>: a NuCLR training"], "names are escaped"
    cells = page.texts["td"]
    assert cells[cells.index("animals") + 1] == "2: sim_000001, sim_000002"
    assert cells[cells.index("steps") + 1].startswith("40 of 40")
    assert "cell_type: E, PV, SST, VIP" in cells
    assert page.texts["p.lead"][0].startswith("simulated animals. ") and "finished" in page.texts["p.lead"][0]


def test_what_is_not_there_has_a_reason(run_dir: Path, tmp_path: Path) -> None:
    reasons = "\n".join(page_of(run_dir, tmp_path).texts["p.missing"])
    assert "no recordings were given (--recordings DIR)" in reasons
    assert "no results were given (--results DIR" in reasons


def test_readouts_are_shown_with_their_settings(run_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "with_readouts"
    shutil.copytree(run_dir, run)
    pool = {"predictors": ["embedding"], "n": [1, 6.0], "weight": [[1.0], [2.0]]}
    task = {"classes": ["E", "PV"], "c": {"embedding": [0.1]}, "pools": [pool], "single": {"embedding": pool}}
    task |= {"scores": {"0": {"left_out": 0.5}}, "prior": None, "many": list(range(9))}
    (run / "readouts.json").write_text(json.dumps({"tasks": {"cell_type": task}}))
    cells = page_of(run, tmp_path).texts["td"]
    place = cells.index("E, PV")
    settings = "c.embedding = 0.1, pools.1.predictors = embedding, pools.1.n = 1 6, scores.0.left_out = 0.5"
    assert cells[place - 1 : place + 2] == ["cell_type", "E, PV", settings]


def test_throughput_comes_from_tensorboards_clock_or_is_missing(run_dir: Path, tmp_path: Path) -> None:
    assert any("windows per second" in image["alt"] for image in page_of(run_dir, tmp_path).images)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "run.json", "metrics.jsonl"):
        (bare / name).write_bytes((run_dir / name).read_bytes())
    page = page_of(bare, tmp_path)
    reasons = "\n".join(page.texts["p.missing"])
    assert "windows/s over steps: there are no TensorBoard event files" in reasons
    assert "this run has no readouts" in reasons


def test_the_same_files_give_the_same_page(run_dir: Path, tmp_path: Path) -> None:
    first, second = (write_report(run_dir, tmp_path / name).read_text() for name in ("a", "b"))
    assert first == second


def test_a_folder_without_scores_or_confusion_says_what_is_missing(run_dir: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    reasons = page_of(run_dir, tmp_path, results=empty).texts["p.missing"]
    assert any("empty holds no nested.json of `nuclr-train evaluate`" in text for text in reasons)

    def no_confusion(found: dict[str, Any]) -> None:
        for task in found["tasks"].values():
            task["rows"][0]["seconds"]["all"]["confusion"] = []

    page = page_of(run_dir, tmp_path, results=write_example(tmp_path / "bare", no_confusion))
    assert "Not shown: confusion: the results hold no confusion matrix." in page.texts["p.missing"]
    assert any(image["alt"].startswith("Macro-F1 of cell type") for image in page.images)


@pytest.mark.parametrize("content", ["", "[1]", '{"tasks": {}}'])
def test_a_damaged_result_is_named(run_dir: Path, results: Path, tmp_path: Path, content: str) -> None:
    (results / "nested.json").write_text(content)
    with pytest.raises(ResultsError, match=r"nested\.json"):
        write_report(run_dir, tmp_path / "report.html", results=results)
    assert not (tmp_path / "report.html").exists()


def test_folders_that_do_not_exist_are_named(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"absent/config\.json: not a readable JSON object"):
        write_report(tmp_path / "absent", tmp_path / "report.html")
    with pytest.raises(ResultsError, match="absent: no such folder"):
        write_report(run_dir, tmp_path / "report.html", results=tmp_path / "absent")


def test_colours_can_be_told_apart_in_every_kind_of_colour_vision() -> None:
    """Simulated after Vienot, Brettel and Mollon 1999 (red, green); distances in CIE Lab."""
    simulations = {
        "normal": np.eye(3),
        "protan": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
        "deutan": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    }
    colours = np.array([to_rgb(colour) for colour in MUTED])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    for kind, matrix in simulations.items():
        lab = lab_of(np.clip(linear @ matrix.T, 0, 1))
        distance = np.linalg.norm(lab[:, None] - lab[None], axis=2)[np.triu_indices(len(MUTED), 1)]
        assert distance.min() > 12, kind


def lab_of(linear: np.ndarray) -> np.ndarray:
    """CIE Lab (N, 3) of linear sRGB (N, 3), white D65."""
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = np.cbrt(xyz / np.array([0.95047, 1, 1.08883]))
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def test_ten_classes_look_different_and_the_rest_is_grey_together() -> None:
    shown = looks([f"class{i}" for i in range(10)])
    assert len({(look.colour, look.mark) for look in shown.values()}) == 10
    many = np.array([f"animal{i:02}" for i in range(30) for _ in range(i + 1)] + [UNNAMED])
    assert names_of(named(many)) == {*(f"animal{i:02}" for i in range(30 - NAMED + 1, 30)), OTHERS, UNNAMED}


def names_of(group: Iterable[str]) -> set[str]:
    return {str(name) for name in group}


def test_umap_is_never_required(run_dir: Path, recordings: list[Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match="needs the package umap-learn"):
        write_report(run_dir, tmp_path / "report.html", recordings=recordings, projection="umap")
    with pytest.raises(ConfigError, match="projection 'tsne': choose pca or umap"):
        write_report(run_dir, tmp_path / "report.html", recordings=recordings, projection="tsne")


def test_the_command_writes_the_page(
    run_dir: Path, recordings: list[Any], results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "animals").mkdir()
    recordings[0].save(tmp_path / "animals" / "one.npz")
    options = ["--recordings", str(tmp_path / "animals"), "--results", str(results), "--projection", "pca"]
    out = tmp_path / "deeper" / "report.html"
    monkeypatch.setattr(sys, "argv", ["nuclr-train", "report", str(run_dir), *options, "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and capsys.readouterr().out.strip() == str(out)
    assert re.search(r"20 units of 1 recordings", out.read_text())
