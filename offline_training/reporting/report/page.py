"""The page: sections of text, tables and figures as one HTML document that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from matplotlib.figure import Figure

from offline_training.reporting.style import WIDTH_IN, data_uri

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #222; background: #fff;
       max-width: 56rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem;
     border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
p.lead { color: #555; margin-top: 0; } p.missing { color: #555; border-left: 3px solid #bbb; padding-left: .8rem; }
table { border-collapse: collapse; font-size: .88rem; margin: .8rem 0; } caption { text-align: left; color: #555; }
th, td { text-align: left; vertical-align: top; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #e6e6e6; }
td { overflow-wrap: break-word; } td:first-child { white-space: nowrap; } th { font-weight: 600; }
figure { margin: 1.2rem 0; } figure img { height: auto; } figcaption { font-size: .88rem; color: #555; }
@media print { body { max-width: none; margin: 0; font-size: 10pt; } figure, table { break-inside: avoid; }
  h2 { break-after: avoid; } @page { margin: 16mm; } }
"""


@dataclass(frozen=True)
class Picture:
    """A figure with what it shows: `alt` for those who can't see it, `caption` for all."""

    figure: Figure
    alt: str
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of plain text under a head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Missing:
    """Why something that belongs here is not shown."""

    why: str


Part = Picture | Table | Missing | str


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in order."""

    title: str
    parts: Sequence[Part] = field(default_factory=list)


def render(title: str, lead: str, sections: Iterable[Section]) -> str:
    """The document as text; everything that was read from files is escaped."""
    body = "\n".join(_section(section) for section in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        f"{body}\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    return "\n".join([f"<section>\n<h2>{escape(section.title)}</h2>", *map(_part, section.parts), "</section>"])


def _part(part: Part) -> str:
    if isinstance(part, Picture):
        width = round(100 * part.figure.get_size_inches()[0] / WIDTH_IN)  # so that letters are of one size everywhere
        image = f'<img src="{data_uri(part.figure)}" style="width: {width}%" alt="{escape(part.alt)}">'
        return f"<figure>\n{image}\n<figcaption>{escape(part.caption)}</figcaption>\n</figure>"
    if isinstance(part, Table):
        caption = f"<caption>{escape(part.caption)}</caption>\n" if part.caption else ""
        return f"<table>\n{caption}{_rows([part.head], 'th')}{_rows(part.rows, 'td')}</table>"
    if isinstance(part, Missing):
        return f'<p class="missing">Not shown: {escape(part.why)}</p>'
    return f"<p>{escape(part)}</p>"


def _rows(rows: Sequence[Sequence[str]], cell: str) -> str:
    return "".join(
        f"<tr>{''.join(f'<{cell}>{escape(text)}</{cell}>' for text in row)}</tr>\n" for row in rows if any(row)
    )
