"""From the result files of folds to one summary: rows that may stand side by side, and those that may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from offline_training.evaluation.aggregate import combine
from offline_training.evaluation.evaluate import EvaluationError
from tests.offline_training.tiny import fold_file, three_folds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An evaluation with the embedding and one comparison method."""
    three_folds(tmp_path)
    three_folds(tmp_path, feature="lolcat")
    return tmp_path


def test_single_units_and_units_joined_along_depth_stand_beside_each_other(folder: Path) -> None:
    mean = combine(folder)["tasks"]["region"]["features"]["embedding"]["mean"]["all"]
    assert (mean["macro_f1"], mean["multi_macro_f1"], mean["multi_balanced_accuracy"]) == (0.619, 1.0, 1.0)


def test_every_row_is_compared_with_the_embedding(folder: Path) -> None:
    (difference,) = combine(folder)["tasks"]["region"]["differences"]
    assert (difference["row"], difference["minus"]) == ("lolcat", "embedding")
    assert difference["per_subject"] == {"A": 0.0, "B": 0.0, "C": 0.0}


def test_a_row_of_two_settings_is_an_error(folder: Path) -> None:
    fold_file(folder, "A", seed=0, label=[0] * 3, prediction=[0] * 3, feature="lolcat", setting="transductive")
    with pytest.raises(EvaluationError, match="lolcat holds results of several evaluations"):
        combine(folder)


def test_rows_of_other_units_are_an_error(folder: Path) -> None:
    fold_file(folder, "A", seed=0, label=[1] * 3, prediction=[0] * 3, feature="lolcat")
    with pytest.raises(EvaluationError, match="lolcat was tested on other units than the rows beside it"):
        combine(folder)


def test_files_of_another_version_are_an_error(folder: Path) -> None:
    fold_file(folder, "A", seed=0, label=[0] * 3, prediction=[0] * 3, format=1)
    with pytest.raises(EvaluationError, match="another version; remove them"):
        combine(folder)


def test_a_seed_with_a_missing_fold_is_left_out_and_named(folder: Path) -> None:
    (folder / "fold_B_lolcat_seed0.json").unlink()
    summary = combine(folder)
    assert summary["incomplete"] == ["lolcat, seed 0"]
    assert list(summary["tasks"]["region"]["features"]) == ["embedding"]
