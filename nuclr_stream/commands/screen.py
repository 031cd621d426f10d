"""Predictions on a terminal: a live table of units, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from contextlib import ExitStack

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nuclr_stream.wire import Abstained, Predictions, TaskPredictions, UnitFlag

REFRESH_S = 0.2
_COLOURS = ("green", "magenta", "cyan", "yellow", "blue", "red", "bright_green", "bright_magenta")
_BAR = 5


class Screen:
    """Shows the latest predictions of one stream on `console`; use it as a context.

    `order` are unit ids in the order in which rows are shown, by default that of the predictions. Without a terminal a
    line appears every `line_every_s` seconds of the recording.
    """

    def __init__(self, console: Console, *, order: list[str] | None = None, line_every_s: float = 0.0) -> None:
        self._console = console
        self._place = {unit_id: place for place, unit_id in enumerate(order or [])}
        self._line_every_s = line_every_s
        self._next_line_s = 0.0
        self._shown_at = 0.0
        self._stack = ExitStack()
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = self._stack.enter_context(Live(console=self._console, auto_refresh=False))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def show(self, predictions: Predictions, note: str = "") -> None:
        """Show predictions, unless something was shown a moment ago; `note` stands beside the figures."""
        time_s = float(predictions.end_sample / predictions.sample_rate)
        if self._live is None:
            if time_s >= self._next_line_s:
                self._next_line_s = time_s + self._line_every_s
                self._console.print(headline(predictions, note), soft_wrap=True, highlight=False, markup=False)
        elif time.monotonic() - self._shown_at >= REFRESH_S:
            self._shown_at = time.monotonic()
            self._live.update(self._table(predictions, note), refresh=True)

    def _table(self, predictions: Predictions, note: str) -> Group:
        """Return a headline and as many units as fit, spread evenly over the order of rows."""
        table = Table(pad_edge=False)
        table.add_column("unit", no_wrap=True, min_width=6)
        for task in predictions.tasks:
            table.add_column(Text(task.name.replace("_", " ")), no_wrap=True)
        table.add_column("windows", justify="right", min_width=7)
        table.add_column("notes", no_wrap=True)
        names = predictions.unit_ids
        rows = sorted(range(len(names)), key=lambda row: self._place.get(names[row], row))
        room = min(max(self._console.height - 8, 5), len(rows))
        for place in np.linspace(0, len(rows) - 1, room).astype(int).tolist():
            row = rows[place]
            cells = [_cell(predictions, task, row) for task in predictions.tasks]
            notes = ", ".join(UnitFlag(int(predictions.flags[row])).words).replace("_", " ")
            # Text, not str: rich reads markup in a str, and ids, classes and tasks come from outside
            table.add_row(Text(names[row]), *cells, Text(str(predictions.windows[row])), Text(notes))
        if len(rows) > room:
            table.caption = f"{room} of {len(rows)} units"
        return Group(Text(headline(predictions, note)), table)


def headline(predictions: Predictions, note: str = "") -> str:
    """Return one line that says how far the stream is and how many units have a prediction."""
    time_s = float(predictions.end_sample / predictions.sample_rate)
    units = len(predictions.unit_ids)
    called = ", ".join(f"{task.name} of {int((~task.abstained).sum())}" for task in predictions.tasks)
    count = int(predictions.out_of_distribution.sum())
    strange = f"{count} out of distribution" if count else ""
    parts = [f"{predictions.stream}  {time_s:7.1f} s  {units} units", called, strange, predictions.state, note]
    return "  ".join(part for part in (*parts, *predictions.reasons) if part)


def _cell(predictions: Predictions, task: TaskPredictions, row: int) -> Text:
    """Return the top class, a bar as long as its probability, and for how long the class has been the same.

    Where it is abstained from it is grey, with the reason. Other classes of the set stand behind it, unless the set
    holds all of them.
    """
    top, why = int(np.argmax(task.probabilities[row])), Abstained(task.why[row])
    bar = "█" * round(_BAR * float(task.probabilities[row, top]))
    same_s = float((predictions.end_sample - int(task.stable_since[row])) / predictions.sample_rate)
    others = [name for k, name in enumerate(task.classes) if task.sets[row, k] and k != top]
    beside = f" or {', '.join(others)}" if others and not task.sets[row].all() else ""
    note = why.word.replace("_", " ") if why else f"same for {same_s:.0f} s{beside}"
    style = "bright_black" if why else _COLOURS[top % len(_COLOURS)]
    return Text(f"{task.classes[top]:<6} {bar:<{_BAR}} {note}", style=style)
