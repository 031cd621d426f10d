"""Pages from result files: rows of encoders, arms and peers in one table, every claim with its setting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offline_training.evaluation.aggregate import combine
from offline_training.evaluation.evaluate import EvaluationError
from offline_training.reporting.results import ResultsError, write_pages
from tests.offline_training.tiny import fold_file, three_folds

ENCODER = {"parameters": 1234, "step": 7, "machine": "abacus", "precision": "fp32", "windows": 8, "seconds": 120.0}
BUDGET = {"steps": 40, "cpu_s": 90.0, "parameters": 99, "how": "forty steps"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An evaluation with our row, an arm, three numbers of animals, and peers of several kinds."""
    folder = tmp_path / "results" / "made"
    folder.mkdir(parents=True)
    three_folds(folder, encoder=ENCODER)
    three_folds(folder, feature="embedding_vicreg", encoder=ENCODER | {"seconds": 60.0})
    for animals in (1, 10, 2):
        three_folds(folder, feature=f"embedding_animals{animals}", encoder=ENCODER)
    three_folds(folder, feature="lolcat", entry={"budget": BUDGET})
    three_folds(folder, feature="neuprint", setting="transductive zero-shot", entry={"budget": BUDGET})
    three_folds(folder, feature="winner", entry={"selected_on_these_folds": True})
    three_folds(folder, feature="depth_only", seed=None)
    return folder


def page_of(folder: Path) -> str:
    page = folder.parents[1] / "docs" / "results.md"
    page.parent.mkdir(exist_ok=True)
    write_pages(folder.parent, page=page, readme=folder / "no_readme.md")
    return page.read_text()


def test_a_row_says_its_setting_and_how_it_was_chosen(folder: Path):
    combine(folder)
    page = page_of(folder)
    assert "| NuCLR embedding | 0.6" in page
    assert "| NeuPRINT (re-implemented, no behaviour) (transductive zero-shot) |" in page
    assert "| winner (**selected on these folds**) |" in page
    assert "| NuCLR embedding, VICReg |" in page
    assert page.index("pretrained on 1 animal |") < page.index("pretrained on 2 animals |")
    assert page.index("pretrained on 2 animals |") < page.index("pretrained on 10 animals |")


def test_single_units_and_units_joined_along_depth_stand_beside_each_other(folder: Path):
    mean = combine(folder)["tasks"]["region"]["features"]["embedding"]["mean"]["all"]
    assert (mean["macro_f1"], mean["multi_macro_f1"], mean["multi_balanced_accuracy"]) == (0.619, 1.0, 1.0)
    page = page_of(folder)
    assert "| 0.619 | 0.500 | 1.000 | 1.000 |" in page
    assert "**These columns use depth**" in page


def test_what_training_took_stands_beside_the_scores(folder: Path):
    summary = combine(folder)
    assert summary["encoder"]["minutes"] == [2.0, 2.0]
    page = page_of(folder)
    assert "| NuCLR embedding | 1,234 | 7 | 2.0 | abacus, fp32 |" in page
    assert "| LOLCAT (re-implemented) | 99 | 40 | 1.5 (CPU) | forty steps |" in page
    assert "| depth alone (a control that cheats) | 99" not in page


def test_pictures_come_from_the_same_numbers_and_do_not_change(folder: Path):
    combine(folder)
    page = page_of(folder)
    figures = folder.parents[1] / "docs" / "figures"
    names = {"made_region_confusion.svg", "made_region_scaling.svg"}
    assert {path.name for path in figures.iterdir()} == names
    assert all(f"](figures/{name})" in page for name in names)
    before = {name: (figures / name).read_bytes() for name in names}
    page_of(folder)
    assert before == {name: (figures / name).read_bytes() for name in names}


def test_every_row_is_compared_with_the_embedding(folder: Path):
    differences = combine(folder)["tasks"]["region"]["differences"]
    assert {one["minus"] for one in differences} == {"embedding"}
    assert len(differences) == 8
    assert differences[0]["per_subject"] == {"A": 0.0, "B": 0.0, "C": 0.0}
    page = page_of(folder)
    assert "Every row minus NuCLR embedding:" in page
    assert "| +0.000 [+0.000, +0.000] |" in page


def test_a_row_of_two_settings_is_refused(folder: Path):
    fold_file(folder, "A", seed=0, label=[0] * 3, prediction=[0] * 3, feature="lolcat", setting="transductive")
    with pytest.raises(EvaluationError, match="lolcat holds results of several evaluations"):
        combine(folder)


def test_rows_of_other_units_are_refused(folder: Path):
    fold_file(folder, "A", seed=0, label=[1] * 3, prediction=[0] * 3, feature="lolcat")
    with pytest.raises(EvaluationError, match="lolcat was tested on other units than the rows beside it"):
        combine(folder)


def test_files_of_another_version_are_refused(folder: Path):
    fold_file(folder, "A", seed=0, label=[0] * 3, prediction=[0] * 3, format=1)
    with pytest.raises(EvaluationError, match="another version; remove them"):
        combine(folder)


def test_a_missing_fold_is_said_on_the_page(folder: Path):
    (folder / "fold_B_lolcat_seed0.json").unlink()
    combine(folder)
    page = page_of(folder)
    assert "Left out because a fold is missing: lolcat, seed 0." in page
    assert "| LOLCAT" not in page


def test_label_efficiency_is_a_table_and_a_curve(folder: Path):
    combine(folder)
    points = {"0.1": {"macro_f1": [0.2, 0.4]}, "1": {"macro_f1": [0.5]}}
    content = {"setting": "inductive zero-shot", "split": "s", "draws": 2, "seeds": [0]}
    tasks = {"region": {"features": {"embedding": points}}}
    (folder / "label_efficiency.json").write_text(json.dumps(content | {"tasks": tasks}))
    page = page_of(folder)
    assert "| NuCLR embedding | 0.300 (0.200-0.400) | 0.500 |" in page
    assert (folder.parents[1] / "docs" / "figures" / "made_region_labels.svg").is_file()


def test_the_table_of_the_readme_is_replaced_between_its_markers(folder: Path):
    combine(folder)
    (folder / "notes.md").write_text("Mind the caveat.\n")
    readme, page = folder.parents[1] / "README.md", folder.parents[1] / "results.md"
    readme.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    assert write_pages(folder.parent, page=page, readme=readme) == [page, readme]
    text = readme.read_text()
    assert (
        "| made: made | region (2) | 3 animals, leave-one-subject-out; inductive zero-shot | 0.619 | - | - | - |"
        in text
    )
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "Mind the caveat." in page.read_text()


def test_the_readme_shows_no_other_setting_and_no_study(folder: Path):
    for path in folder.glob("fold_*"):
        path.write_text(path.read_text().replace("inductive zero-shot", "transductive zero-shot"))
    combine(folder)
    readme = folder.parents[1] / "README.md"
    readme.write_text("<!-- results --><!-- /results -->")
    write_pages(folder.parent, page=folder.parents[1] / "results.md", readme=readme)
    assert "| made |" not in readme.read_text()


def test_pages_without_results_are_refused(tmp_path: Path):
    with pytest.raises(ResultsError, match="nuclr-train evaluate"):
        write_pages(tmp_path, page=tmp_path / "results.md", readme=tmp_path / "README.md")
