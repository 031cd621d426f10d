"""The notebook that most users begin with, cell by cell."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[3] / "examples" / "quickstart.ipynb"


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell and return the value of its last line, as a notebook shows it."""
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        body.append(last)
    exec(compile(ast.Module(body, type_ignores=[]), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


def test_every_cell_runs_and_shows_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells), "saved without outputs"
    names: dict[str, Any] = {}
    shown = [run_cell(cell.source, names) for cell in cells]
    frame = names["frame"]
    assert shown[1].shape == (5, 10) and len(frame) == 235
    assert int(shown[2].sum()) == int(shown[3].sum()) == 235
    assert frame["predicted_cell_type"].notna().sum() > 60, "most are called after five minutes"
    assert " um  " in capsys.readouterr().out
