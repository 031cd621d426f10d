"""The files of the page: nothing from elsewhere, types that hold, licences with what is not ours."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.nuclr_stream.dashboard.figures import PAGE, written

ROOT = Path(__file__).parents[3]
OURS = ("*.js", "*.css", "*.html", "*.svg")


def test_no_file_names_another_origin(static: Path) -> None:
    for path in (path for pattern in OURS for path in static.glob(pattern)):
        urls = set(re.findall(r"https?://[^\s\"')]+", path.read_text(encoding="utf-8")))
        assert urls <= {"http://www.w3.org/2000/svg"}, path.name


def test_no_script_or_style_is_inside_of_a_document(static: Path) -> None:
    text = (static / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=", text)


def test_what_is_not_ours_has_its_licence_beside_it(static: Path) -> None:
    for folder in (static / "vendor").iterdir():
        assert "Copyright" in (folder / "LICENSE").read_text(encoding="utf-8")


def test_the_files_are_shipped(static: Path) -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    found = {path for pattern in shipped["nuclr_stream"] for path in (ROOT / "nuclr_stream").glob(pattern)}
    assert {path for path in static.rglob("*") if path.is_file()} <= found


def test_the_scripts_hold_the_types_that_they_declare() -> None:
    tsc = shutil.which("tsc")
    if tsc is None:
        pytest.skip("no tsc: npm install --global typescript")
    project = Path(__file__).parent / "tsconfig.json"
    done = subprocess.run([tsc, "--project", str(project)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_table_of_the_documentation_is_made_from_the_measurements() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page
