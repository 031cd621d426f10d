"""Colours can be told apart by everybody, and text can be read: measured on the files that the page loads."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

STATIC = Path(__file__).parents[3] / "nuclr_stream" / "dashboard" / "static"
LEAST = 15.0
"""dE76 that two colours must lie apart, for everybody."""
# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])

Triple = npt.NDArray[np.float64]


def linear(colour: str) -> Triple:
    value = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: Triple) -> Triple:
    t = XYZ @ rgb / WHITE
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def classes(theme: str) -> list[str]:
    text = (STATIC / "palette.js").read_text(encoding="utf-8")
    line = re.search(rf"{theme}: \[(.*?)\]", text)
    assert line
    return re.findall(r"#\w{6}", line[1])


def inks(theme: str) -> dict[str, str]:
    text = (STATIC / "palette.js").read_text(encoding="utf-8")
    found = re.search(rf"INKS.*?{theme}: \{{(.*?)\}}", text, re.S)
    assert found
    return dict(re.findall(r"(\w+): \"(#\w{6})\"", found[1]))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("sight", sorted(SIGHT))
def test_classes_and_the_grey_of_undecided_units_are_told_apart(theme: str, sight: str) -> None:
    colours = [*classes(theme), inks(theme)["grey"]]
    assert len(colours) == 10
    seen = {colour: lab(np.clip(SIGHT[sight] @ linear(colour), 0, 1)) for colour in colours}
    near = min(combinations(colours, 2), key=lambda pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]))
    assert np.linalg.norm(seen[near[0]] - seen[near[1]]) >= LEAST, near


def test_the_measure_notices_a_palette_that_fails() -> None:
    okabe_ito = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999"]
    seen = [[lab(np.clip(matrix @ linear(colour), 0, 1)) for colour in okabe_ito] for matrix in SIGHT.values()]
    assert min(np.linalg.norm(a - b) for each in seen for a, b in combinations(each, 2)) < LEAST


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa_and_outlines_that_of_graphics(theme: str) -> None:
    ink = inks(theme)
    for name in ("ink", "faint", "accent", "error", "warning", "good"):
        assert contrast(ink[name], ink["panel"]) >= 4.5, name
        assert contrast(ink[name], ink["ground"]) >= 4.5, name
    assert contrast(ink["edge"], ink["panel"]) >= 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_style_sheet_and_the_drawings_have_the_same_colours(theme: str) -> None:
    text = (STATIC / "style.css").read_text(encoding="utf-8")
    block = re.search(r":root \{(.*?)\n\}" if theme == "dark" else r'data-theme="light"\] \{(.*?)\n\}', text, re.S)
    assert block
    sheet = dict(re.findall(r"--(\w+): (#\w{6})", block[1]))
    ink = inks(theme)
    shared = set(sheet) & set(ink)
    assert {"ground", "panel", "ink", "faint", "line", "accent", "error"} <= shared
    assert {name: sheet[name] for name in shared} == {name: ink[name] for name in shared}
