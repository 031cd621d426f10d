"""The terminal view itself: probes on top, regions along depth on the left, units on the right."""

from __future__ import annotations

import time
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import DataTable, Footer, Static

from nuclr_stream.terminal.feed import Feed, Seen
from nuclr_stream.terminal.lines import (
    ORDERS,
    PROBES,
    event_line,
    health,
    probe_row,
    region_lines,
    unit_columns,
    unit_rows,
)

REFRESH_S = 0.5


class TopApp(App[None]):
    """Shows what a feed has seen, twice a second; it changes nothing in the daemon."""

    CSS = """
    #daemon { height: 1; background: $boost; }
    #daemon.gone { background: $error; color: $text; }
    #probes { height: auto; max-height: 10; }
    #regions { width: 38; border: round $primary; }
    #units { border: round $primary; }
    #events { height: auto; max-height: 5; color: $text-muted; }
    """
    TITLE = "nuclr-stream"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("left_square_bracket", "probe(-1)", "Probe before", key_display="["),
        Binding("right_square_bracket", "probe(1)", "Next probe", key_display="]"),
        Binding("o", "order", "Order"),
        Binding("t", "task", "Task"),
        Binding("space", "freeze", "Freeze", priority=True),
    ]

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed
        self.chosen = ""
        self.order = ORDERS[0]
        self.task_number = 0
        self.frozen = False
        self._columns: tuple[str, ...] = ()

    def compose(self) -> ComposeResult:
        """Lay the parts out."""
        yield Static(id="daemon", markup=False)
        yield DataTable(id="probes", cursor_type="none")
        with Horizontal():
            with VerticalScroll(id="regions"):
                yield Static(id="depth", markup=False)
            yield DataTable(id="units", cursor_type="row", zebra_stripes=True)
        yield Static(id="events", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to show."""
        self.query_one("#probes", DataTable).add_columns(*PROBES)
        self.query_one("#units", DataTable).focus()
        self.set_interval(REFRESH_S, self.show)
        self.show()

    def show(self) -> None:
        """Draw the newest, unless the display is frozen; the stream never is."""
        seen = self._feed.seen
        if self.frozen:
            return
        if self.chosen not in seen.streams:
            self._choose(seen.streams[0] if seen.streams else "")
        line = self.query_one("#daemon", Static)
        line.update(health(seen))
        line.set_class(bool(seen.gone), "gone")
        self.query_one("#events", Static).update("\n".join(event_line(event) for event in seen.events))
        self._show_probes(seen)
        self._show_units(seen)
        placement = seen.placement if seen.placed == self.chosen else None
        panel = self.query_one("#regions")
        lines = region_lines(placement, height=panel.size.height)
        self.query_one("#depth", Static).update("\n".join(lines))

    def action_probe(self, step: int) -> None:
        """Show the next or the one before."""
        streams = self._feed.seen.streams
        if streams:
            place = streams.index(self.chosen) if self.chosen in streams else 0
            self._choose(streams[(place + step) % len(streams)])
            self.show()

    def action_order(self) -> None:
        """Order units in the next way."""
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]
        self.show()

    def action_task(self) -> None:
        """Order by the confidence in the next task."""
        self.task_number += 1
        self.show()

    def action_freeze(self) -> None:
        """Hold the display, or let it go on."""
        self.frozen = not self.frozen
        self.query_one("#units").border_subtitle = "frozen: space goes on" if self.frozen else ""
        self.show()

    def _choose(self, stream: str) -> None:
        self.chosen = stream
        self._feed.choose(stream)

    def _show_probes(self, seen: Seen) -> None:
        table = self.query_one("#probes", DataTable)
        table.clear()
        now = time.monotonic()
        for stream in seen.streams:
            mark = "▶ " if stream == self.chosen and len(seen.streams) > 1 else ""
            name, *cells = probe_row(seen, stream, now)
            table.add_row(mark + name, *cells)

    def _show_units(self, seen: Seen) -> None:
        table = self.query_one("#units", DataTable)
        one = seen.predictions.get(self.chosen)
        if one is None:
            table.clear()
            table.border_title = f"{self.chosen or 'no probe yet'}: no predictions yet"
            return
        if self._columns != unit_columns(one):
            self._columns = unit_columns(one)
            table.clear(columns=True)
            table.add_columns(*self._columns)
        place, scroll = table.cursor_row, table.scroll_offset
        table.clear()
        placement = seen.placement if seen.placed == self.chosen else None
        rows = unit_rows(one, placement, order=self.order, task=self.task_number)
        table.add_rows(rows)
        table.move_cursor(row=min(place, len(rows) - 1), animate=False, scroll=False)
        table.scroll_to(*scroll, animate=False)
        by = f"{self.order} in {one.tasks[self.task_number % len(one.tasks)].name}" if one.tasks else self.order
        table.border_title = f"{self.chosen}: all {len(rows)} units, by {by.replace('_', ' ')}"
