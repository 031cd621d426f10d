"""The report: one page that needs nothing but itself, says what it shows, and gives a reason for what it leaves out."""

from __future__ import annotations

import base64
import json
import re
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
from offline_training.readouts.run_readouts import fit_readouts
from offline_training.reporting.report import write_report
from offline_training.reporting.report.curves import scaling_curve
from offline_training.reporting.report.embeddings import NAMED, OTHERS, UNNAMED, named
from offline_training.reporting.report.files import ReportError
from offline_training.reporting.report.outcomes import Outcome, outcomes
from offline_training.reporting.report.style import MUTED, looks
from offline_training.simulation.animals import simulate

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
    folder = pretrain(TrainConfig.parse(CONFIG), recordings, tmp_path_factory.mktemp("report") / "run")
    fit_readouts(folder, recordings)
    return folder


def fold_of(held_out: str, seed: int | None, features: dict[str, list[int]], label: list[int]) -> dict[str, Any]:
    """A result file of a fold with two classes; the predictions are those after the whole recording."""
    return {
        "seed": seed,
        "tasks": {
            "region": {
                "recordings": [{"recording_id": "r", "subject_id": held_out, "units": len(label)}],
                "label": label,
                "features": {name: {"seconds": {"all": {"prediction": p}}} for name, p in features.items()},
            }
        },
    }


def mean_of(f1: float, spread: float = 0.0) -> dict[str, Any]:
    """Scores of a row of summary.json."""
    return {s: {"macro_f1": f1, "macro_f1_range": [f1 - spread, f1 + spread]} for s in ("10", "all")}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path)


@pytest.fixture(scope="module")
def full_page(run_dir: Path, recordings: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page with everything on it."""
    folder = write_results(tmp_path_factory.mktemp("results"))
    return page_of(run_dir, folder, recordings=recordings, results=folder)


def write_results(tmp_path: Path) -> Path:
    """Two folds, seeds 0 and 1, and a training-free feature that is better than the embedding."""
    for held_out, label in (("a", [0, 0, 1, 1]), ("b", [0, 1])):
        for seed, right in ((0, False), (1, True)):
            said = label if right else [0] * len(label)
            fold = fold_of(held_out, seed, {"embedding": said}, label)
            (tmp_path / f"fold_{held_out}_seed{seed}.json").write_text(json.dumps(fold))
        fold = fold_of(held_out, None, {"isi": [*label[:-1], -1]}, label)
        (tmp_path / f"fold_{held_out}_baseline.json").write_text(json.dumps(fold))
    animal = {"recall": {"A": 1.0, "B": 0.5}, "units_of_class": {"A": 3, "B": 3}}
    task = {
        "classes": ["A", "B"],
        "scored": ["A", "B"],
        "units": {"A": 3, "B": 3},
        "features": {
            "embedding": {"mean": mean_of(0.6, 0.1), "per_seed": {"0": {}, "1": {}}},
            "isi": {"mean": mean_of(0.7), "per_seed": {"None": {}}},
            "embedding_animals2": {"mean": mean_of(0.4), "per_seed": {"0": {}}},
            "embedding_animals12": {"mean": mean_of(0.5), "per_seed": {"0": {}}},
        },
        "per_subject": {"embedding": {"a": animal, "b": animal}},
    }
    facts = {
        "setting": "inductive zero-shot",
        "split": "leave-one-subject-out",
        "held_out": ["a", "b"],
        "seeds": [0, 1],
    }
    (tmp_path / "summary.json").write_text(json.dumps(facts | {"tasks": {"region": task}}))
    shares = {"1": {"macro_f1": [0.6]}, "0.01": {"macro_f1": [0.2, 0.4]}}
    labels = {"seeds": [0, 1], "draws": 3, "tasks": {"region": {"features": {"embedding": shares, "isi": shares}}}}
    (tmp_path / "label_efficiency.json").write_text(json.dumps(labels))
    return tmp_path


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
    assert len(alts) == 10 and all(alts) and len(page.texts["figcaption"]) == 10
    joined = "\n".join(alts)
    assert "40 units on a plane, coloured by cell_type: E " in joined
    assert "coloured by animal: sim_000001 20, sim_000002 20." in joined
    assert "Loss over 40 steps, from" in joined
    assert "Macro-F1 over observed time; after the whole recording 0.700 for ISI histogram" in joined
    assert "NuCLR embedding: A 1.00, B 0.50; ISI histogram (128 bins): A 1.00, B 0.33" in joined
    assert "Macro-F1 of region by number of pretraining animals: 2: 0.400, 12: 0.500." in joined
    assert "Macro-F1 of region by share of labels. NuCLR embedding: 1 %: 0.300, 100 %: 0.600; ISI" in joined


def test_the_run_is_told_from_its_files(run_dir: Path, tmp_path: Path) -> None:
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
    assert "scaling: the results hold no rows of `nuclr-train scale`" in reasons
    assert "label efficiency: there is no label_efficiency.json" in reasons


def test_throughput_comes_from_tensorboards_clock_or_is_refused(run_dir: Path, tmp_path: Path) -> None:
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


def test_a_unit_without_prediction_counts_as_an_error(results: Path) -> None:
    features = json.loads((results / "summary.json").read_text())["tasks"]["region"]["features"]
    (isi,) = outcomes(results, "region", features)["isi"]
    scored = np.array([0, 1])
    assert isi.confusion(scored, 2).tolist() == [[3, 0, 0], [0, 1, 2]]
    assert isi.f1(scored) == pytest.approx([1.0, 0.5])


def test_units_of_other_classes_are_not_scored() -> None:
    outcome = Outcome("0", label=np.array([0, 0, 1, 2, 2]), prediction=np.array([0, 1, 1, 1, 0]))
    assert outcome.f1(np.array([0, 1])) == pytest.approx([2 / 3, 2 / 3]), "class 2 would have made it worse"


def test_features_without_files_are_left_out_and_said(run_dir: Path, results: Path, tmp_path: Path) -> None:
    for path in results.glob("fold_*"):
        path.unlink()
    page = page_of(run_dir, tmp_path, results=results)
    assert any("the fold_*.json files are not in the folder" in text for text in page.texts["p.missing"])
    assert any(image["alt"].startswith("Macro-F1 over observed time") for image in page.images)


def test_fresh_animals_are_shown_one_by_one(run_dir: Path, tmp_path: Path) -> None:
    times = {s: {"macro_f1": [0.4, 0.6], "median": 0.5, "range": [0.4, 0.6]} for s in ("60", "all")}
    facts = {"setting": "inductive zero-shot", "animals": ["x", "y"], "units": 20, "duration_s": 60.0}
    task = {"classes": ["E", "PV"], "features": {"embedding": times, "rate": times}}
    (tmp_path / "fresh_animals.json").write_text(json.dumps(facts | {"tasks": {"cell_type": task}}))
    page = page_of(run_dir, tmp_path, results=tmp_path)
    alts = [image["alt"] for image in page.images]
    assert any(alt.startswith("Macro-F1 of 2 fresh animals; medians after the whole recording:") for alt in alts)


@pytest.mark.parametrize("content", ["", "[1]", '{"tasks": {}}'])
def test_a_damaged_result_is_refused_by_name(run_dir: Path, results: Path, tmp_path: Path, content: str) -> None:
    (results / "fold_a_seed0.json").write_text(content)
    with pytest.raises(ReportError, match=r"fold_a_seed0\.json"):
        write_report(run_dir, tmp_path / "report.html", results=results)
    assert not (tmp_path / "report.html").exists()


def test_folders_that_are_none_are_refused_by_name(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"absent/config\.json: not a readable JSON object"):
        write_report(tmp_path / "absent", tmp_path / "report.html")
    with pytest.raises(ReportError, match="absent: no such folder"):
        write_report(run_dir, tmp_path / "report.html", results=tmp_path / "absent")


def test_colours_are_told_apart_in_every_kind_of_colour_vision() -> None:
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


def test_scaling_is_in_the_order_of_the_numbers() -> None:
    rows = {"embedding_animals12": {"mean": mean_of(0.5)}, "embedding_animals2": {"mean": mean_of(0.4, 0.1)}}
    curve = scaling_curve(rows | {"embedding": {"mean": mean_of(0.6)}})
    assert list(curve) == [2, 12] and curve[2] == pytest.approx((0.4, 0.3, 0.5))


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
