"""Pages from result files: one summary, one page per data set, the table of the README; nothing is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offline_training.reporting.calcium_page import distance_section
from offline_training.reporting.files import ResultsError
from offline_training.reporting.nested import Difference, Scores
from offline_training.reporting.results import write_pages
from offline_training.reporting.summary_page import verdict
from tests.offline_training.reporting.examples import write_example

ROOT = Path(__file__).parents[3]


class Pages:
    """A folder of results, and what is made of it."""

    def __init__(self, root: Path) -> None:
        self.results, self.docs, self.readme = root / "results", root / "docs", root / "README.md"
        self.docs.mkdir()
        self.readme.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")

    def write(self) -> dict[str, str]:
        """{file name: text} of every page that was written."""
        written = write_pages(self.results, page=self.docs / "results.md", readme=self.readme)
        return {path.name: path.read_text(encoding="utf-8") for path in written}


@pytest.fixture
def pages(tmp_path: Path) -> Pages:
    return Pages(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """{file name: text} of all pages of the example, made once for the tests that only read them."""
    pages = Pages(tmp_path_factory.mktemp("example"))
    write_example(pages.results / "network")
    return pages.write()


def add_rats(pages: Pages) -> None:
    """The example once more under another name, beside a file of comparison methods."""
    folder = write_example(pages.results / "rat", lambda found: found.update(name="rat", kind="rats"))
    lolcat = {"units": 7, "macro_f1": 0.258, "macro_f1_range": [0.25, 0.27], "balanced_accuracy": 0.27}
    isi = {"units": 7, "macro_f1": 0.19, "macro_f1_interval": [0.1, 0.3], "balanced_accuracy": 0.188}
    neuprint = {"row": "neuprint", "setting": "transductive zero-shot", "seeds": [0], "budget": {"cpu_s": 90.0}}
    rows = [
        {"row": "lolcat", "setting": "inductive zero-shot", "seeds": [0, 1], "seconds": {"60": lolcat, "all": lolcat}},
        neuprint | {"seconds": {"all": lolcat}},
        {"row": "isi", "setting": "inductive zero-shot", "seconds": {"60": isi, "all": isi}},
    ]
    task = {"scored": ["STR"], "rows": [{"role": "comparison"} | row for row in rows]}
    facts = {"format": 3, "protocol": "One rat out.", "command": "nuclr-train compare", "machine": "abacus"}
    fold = {"test": ["K265"], "train_animals": 6, "setting": "inductive zero-shot"}
    comparison = facts | {"folds": [fold], "tasks": {"brain_region": task}}
    (folder / "comparison.json").write_text(json.dumps(comparison))
    (folder / "notes.md").write_text("Mind the caveat.\n")


def test_every_row_of_a_task_stands_on_the_page_of_its_data_set(written: dict[str, str]) -> None:
    page = written["results_network.md"]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if " (0." in line]
    assert rows[:4] == [
        "nuclr-stream, the shipped pool",
        "NuCLR embedding, with neighbours alone",
        "spike statistics, with neighbours, no encoder",
        "the same pool with readouts of whole recordings only",
    ]
    assert "| 0.623 (0.563-0.673) | 0.789 (0.729-0.839) | 0.966 (0.906-1.016) | 0.962 | 0.143 |" in page
    assert "Scored: E, PV, SST; 90 units; chance 0.33." in page


def test_a_page_says_how_it_was_made_and_what_each_fold_chose(written: dict[str, str]) -> None:
    page = written["results_network.md"]
    assert "Two of three animals are left out and then the third. Folds: 2; tested on 3 animals, trained on" in page
    assert "trained on 1 to 2 in each fold (inductive zero-shot)." in page
    assert "Seed 0, abacus; numpy 2." in page and "nuclr-train evaluate configs/made.toml" in page
    assert (
        "| a1, a2 | NuCLR embedding, with neighbours (C 0.01, 0.1); spike statistics, with neighbours (C 0.1, 1); "
        "macro-F1 0.70 on training animals left out, 0.80 on all | spike statistics, with neighbours (C 0.01) |" in page
    )


def test_few_animals_have_a_line_each_and_many_are_a_spread(pages: Pages, written: dict[str, str]) -> None:
    def many(found: dict[str, Any]) -> None:
        for task in found["tasks"].values():
            for row in task["rows"]:
                whole = row["seconds"]["all"]
                own = whole["per_animal"]["a1"] | {"precision": None}
                whole["per_animal"] = {f"b{i}": own | {"units": 10 + i, "macro_f1": i / 20} for i in range(21)}

    few = written["results_network.md"]
    assert "| a1 | 40 | 0.951 | " in few and "spread over" not in few
    assert "| animal | cell type: units | cell type: macro-F1 | cell type: macro-F1, spike statistics |" in few
    write_example(pages.results / "network", many)
    spread = pages.write()["results_network.md"]
    assert "spread over 21 animals" in spread and "| b1 |" not in spread
    assert "| lowest | 10 | 0.000 | 0.000 |" in spread and "| middle | 20 | 0.500 | 0.500 |" in spread
    assert "| highest | 30 | 1.000 | 1.000 | 82 % | - | 30 |" in spread


def test_comparison_methods_stand_beside_with_their_setting(pages: Pages) -> None:
    add_rats(pages)
    page = pages.write()["results_rat.md"]
    assert "Mind the caveat." in page and "Animals tested: K265." in page and "brain region: STR; 7 units." in page
    assert "| LOLCAT (re-implemented) [0, 1] | 0.258 (0.250-0.270) | 0.258 (0.250-0.270) | 0.270 | - |" in page
    assert "NeuPRINT (re-implemented, no behaviour), transductive zero-shot [0] | - | 0.258" in page
    assert "| 0.270 | 1.5 |" in page and "| interval histogram (128 bins) | 0.190 (0.100-0.300) |" in page


def test_a_method_that_answers_one_question_only_has_dashes_for_the_other(pages: Pages) -> None:
    add_rats(pages)
    path = pages.results / "rat" / "comparison.json"
    found = json.loads(path.read_text())
    found["tasks"]["waveform_class"] = found["tasks"]["brain_region"] | {
        "rows": found["tasks"]["brain_region"]["rows"][2:]
    }
    path.write_text(json.dumps(found))
    page = pages.write()["results_rat.md"]
    isi = "0.190 (0.100-0.300) | 0.190 (0.100-0.300) | 0.188"
    assert f"| interval histogram (128 bins) | {isi} | {isi} | - |" in page
    assert "[0] | - | 0.258 (0.250-0.270) | 0.270 | - | - | - | 1.5 |" in page


def test_comparison_methods_alone_make_a_page(pages: Pages) -> None:
    add_rats(pages)
    (pages.results / "rat" / "nested.json").unlink()
    written = pages.write()
    assert "## Comparison methods" in written["results_rat.md"] and "## cell type" not in written["results_rat.md"]
    assert "No nested evaluation" in written["results.md"] and "No nested evaluation" in pages.readme.read_text()


def test_the_summary_has_the_floor_beside_the_pool_and_says_where_it_is_ahead(written: dict[str, str]) -> None:
    page = written["results.md"]
    assert "| network: cell type | 10 s | 0.623 (0.563-0.673) | 0.449 | nuclr-stream |" in page
    assert "|  | whole recording | 0.966 (0.906-1.016) | 0.596 | nuclr-stream | 0.962 | 0.143 | 88 % | 100 % |" in page
    assert "**The simpler method is ahead** in 3 of 6 comparisons" in page
    assert "brain region of network, 10 s; brain region of network, 60 s; brain region of network, whole" in page
    assert "* [simulated networks of spiking neurons](results_network.md)" in page


@pytest.mark.parametrize(
    ("floor", "interval", "expected"),
    [
        (0.49, (0.005, 0.02), "level"),
        (0.40, (0.06, 0.14), "nuclr-stream"),
        (0.60, (-0.14, -0.06), "spike statistics"),
        (0.40, (-0.02, 0.2), "nuclr-stream (not certain)"),
        (0.60, (-0.2, 0.02), "spike statistics (not certain)"),
        (0.60, None, "spike statistics"),
    ],
)
def test_who_is_ahead_follows_from_the_paired_difference(
    floor: float, interval: tuple[float, float] | None, expected: str
) -> None:
    difference = None if interval is None else Difference(macro_f1=0.5 - floor, interval=interval)
    ours = Scores(units=1, macro_f1=0.5, balanced_accuracy=0.5, over_floor=difference, per_animal={})
    assert verdict(ours, ours.model_copy(update={"macro_f1": floor})) == expected


def test_scores_with_activity_of_tested_animals_say_so(pages: Pages) -> None:
    def seen(found: dict[str, Any]) -> None:
        found["folds"][0]["setting"] = "transductive zero-shot"

    write_example(pages.results / "network", seen)
    written = pages.write()
    assert "in each fold (inductive zero-shot and transductive zero-shot)." in written["results_network.md"]
    assert "| network (inductive zero-shot and transductive zero-shot): cell type | 10 s |" in written["results.md"]


def test_classes_that_are_not_scored_are_no_rows_of_the_confusion(pages: Pages) -> None:
    def unscored(found: dict[str, Any]) -> None:
        task = found["tasks"]["cell_type"]
        task["scored"] = ["E", "PV"]
        task["rows"][0]["seconds"]["all"]["confusion"][2] = [0, 0, 0]

    written = write_example(pages.results / "network", unscored) and pages.write()
    assert "Scored: E, PV; 90 units; chance 0.50." in written["results_network.md"]
    figure = (pages.docs / "figures" / "network_confusion.svg").read_text()
    assert "PV (" in figure and "SST (" not in figure and ">SST<" in figure


def test_a_pool_that_is_ahead_everywhere_says_so(pages: Pages) -> None:
    write_example(pages.results / "network", lambda found: found["tasks"].pop("brain_region"))
    assert "are ahead nowhere in these 3 comparisons" in pages.write()["results.md"]


def test_without_a_floor_nothing_is_compared(pages: Pages) -> None:
    def no_floor(found: dict[str, Any]) -> None:
        for task in found["tasks"].values():
            task["rows"] = [row for row in task["rows"] if row["role"] != "floor"]

    write_example(pages.results / "network", no_floor)
    written = pages.write()
    assert "No simpler method was scored beside the pool." in written["results.md"]
    assert "| network: cell type | 10 s | 0.623 (0.563-0.673) | - | - |" in written["results.md"]


def test_units_of_another_kind_have_a_table(pages: Pages) -> None:
    write_example(pages.results / "network")
    foreign = {
        "bundle": "demo",
        "units_of": "rats",
        "units": 1748,
        "task": "cell_type",
        "called": 0.01,
        "flagged": None,
    }
    own = foreign | {"units_of": "fresh animals", "called": None, "flagged": 0.02}
    (pages.results / "out_of_distribution.json").write_text(json.dumps({"rows": [foreign, own]}))
    page = pages.write()["results.md"]
    assert "| demo | rats | 1,748 | cell type | 1 % | - |" in page
    assert "| demo | fresh animals | 1,748 | cell type | - | 2 % |" in page


def test_the_table_of_the_readme_is_replaced_between_its_markers(written: dict[str, str]) -> None:
    text = written["README.md"]
    assert text.startswith("before\n<!-- results -->\n| data") and text.endswith("<!-- /results -->\nafter\n")
    assert "old" not in text and "**The simpler method is ahead**" in text
    assert (
        "| simulated networks: 3 animals | cell type (E, PV, SST) | 0.79 | 0.97 | 0.60 | 88 %, 100 % | nuclr-stream |"
        in text
    )
    assert "| brain region (CA1, DG) | 0.79 | 0.77 | 0.99 |" in text


def test_the_table_of_the_readme_has_at_most_five_rows(pages: Pages) -> None:
    for name in ("a", "b", "c"):
        write_example(pages.results / name, lambda found, name=name: found.update(name=name))
    pages.write()
    assert pages.readme.read_text().count("simulated networks: 3 animals") == 5


def test_a_readme_without_markers_is_left_alone(pages: Pages) -> None:
    write_example(pages.results / "network")
    pages.readme.write_text("no markers")
    assert "README.md" not in pages.write() and pages.readme.read_text() == "no markers"


def test_pictures_come_from_the_same_numbers_and_do_not_change(pages: Pages) -> None:
    write_example(pages.results / "network")
    page = pages.write()["results_network.md"]
    figures = pages.docs / "figures"
    first = {path.name: path.read_bytes() for path in figures.iterdir()}
    assert set(first) == {"demo.svg", "network_scores.svg", "network_confusion.svg"}
    assert "](figures/network_scores.svg)" in page and "](figures/network_confusion.svg)" in page
    pages.write()
    assert first == {path.name: path.read_bytes() for path in figures.iterdir()}


def test_the_running_normaliser_is_compared_over_time() -> None:
    ratio = np.array([[1.2, 1.0], [0.9, 1.0], [1.0, 1.0]])
    result = {
        **{"quantile": 0.99, "warm_up_frames": 256, "frame_rate_hz": 4.28, "animals": ["a", "b", "c"], "units": 9},
        **{"duration_s": 60.0, "seconds": [15.0, 30.0], "ratio": ratio.tolist(), "worst_distance": [0.2, 0.0]},
    }
    section = distance_section(result)
    assert "from 256 frames (60 s) on" in section
    assert "| 15 s | 1.000 | 0.900 - 1.200 | 20.0 % |" in section


def test_pages_without_results_are_an_error(pages: Pages) -> None:
    (pages.results / "speed").mkdir(parents=True)
    with pytest.raises(ResultsError, match="nuclr-train evaluate"):
        pages.write()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda found: found.pop("protocol"), "protocol: Field required"),
        (lambda found: found.update(format=2), "format: Input should be 3"),
        (lambda found: found["tasks"]["cell_type"]["rows"].pop(0), "tasks.cell_type: .*one row must be shipped"),
        (lambda found: found["tasks"]["cell_type"]["rows"][0]["seconds"].pop("all"), "scores of the whole recording"),
    ],
)
def test_a_damaged_file_is_named_with_its_field(pages: Pages, change: Any, named: str) -> None:
    write_example(pages.results / "network", change)
    with pytest.raises(ResultsError, match=rf"network/nested\.json: .*{named}"):
        pages.write()


def test_the_files_of_this_repository_make_short_pages(tmp_path: Path) -> None:
    """Every folder with results has a page that fits few screens, and the files are summaries."""
    written = write_pages(ROOT / "results", page=tmp_path / "results.md", readme=tmp_path / "README.md")
    pages = {path.name: path.read_text().count("\n") for path in written if path.suffix == ".md"}
    assert {"results_calcium.md", "results_placement.md", "results_rat.md"} <= set(pages)
    assert max(pages.values()) < 120
    size = sum(path.stat().st_size for path in (ROOT / "results").rglob("*") if path.is_file())
    assert size < 3e6, "predictions of single units do not belong into the tree"
