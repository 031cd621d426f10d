"""What all figures and the page share: colours that every kind of colour vision tells apart, and marks beyond them."""

from __future__ import annotations

import base64
import io
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MUTED = ("#332288", "#CC6677", "#117733", "#DDCC77", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499")
"""Paul Tol's qualitative scheme "muted": nine colours, stated apart in all three colour-vision deficiencies."""
GREY, INK, PALE = "#BBBBBB", "#222222", "#E6E6E6"
MARKS = ("o", "s", "^", "D")
WIDTH_IN = 8.6
"""Width of a figure that fills the page."""

_SETTINGS: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.5,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": PALE,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "nuclr-stream",
}


@dataclass(frozen=True)
class Look:
    """Colour and mark of one category."""

    colour: str
    mark: str


def looks(names: list[str]) -> dict[str, Look]:
    """A look for every name, in their order: the nine colours first, then the same ones with other marks.

    Up to 36 names have looks of their own; who has more shows fewer by name (see `embeddings.named`).
    """
    every = [Look(colour, mark) for mark, colour in product(MARKS, MUTED)]
    return {name: every[i % len(every)] for i, name in enumerate(names)}


def drawing() -> AbstractContextManager[None]:
    """The context in which figures are made and written: their fonts, lines and colours."""
    return matplotlib.rc_context(_SETTINGS)


def panels(rows: int, columns: int, *, height_in: float, width_in: float = WIDTH_IN) -> tuple[Figure, list[Axes]]:
    """A figure of rows x columns panels, and the panels row by row."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def data_uri(figure: Figure) -> str:
    """The figure as an SVG data URI, the same every time; letters are outlines, so that no font is needed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, dpi=180)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
