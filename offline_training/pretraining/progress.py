"""What a person sees while an encoder trains: a bar with the time left, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 15.0


class TrainingProgress:
    """A context manager; `step` is called after every step. Writes to stderr, or to `console`."""

    def __init__(self, title: str, *, steps: int, done: int = 0, console: Console | None = None) -> None:
        self.title, self.steps, self.first = title, steps, done
        self.console = console or Console(stderr=True)
        self.bar = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[terms]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.bar.add_task(title, total=steps, completed=done, terms="")
        self.started = self.shown = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.bar.stop()

    def step(self, done: int, *, loss: float, numerator: float, denominator: float, windows_per_s: float) -> None:
        """Show that `done` steps are behind, with the loss and its two terms."""
        terms = f"loss {loss:.3f} = {numerator:.3f} + {denominator:.3f}  {windows_per_s:.0f} windows/s"
        self.bar.update(self.task, completed=done, terms=terms)
        now = time.monotonic()
        if self.console.is_terminal or (now - self.shown < LINE_EVERY_S and done < self.steps):
            return
        self.shown = now
        left_s = (now - self.started) / max(done - self.first, 1) * (self.steps - done)
        self.console.print(f"{self.title}  {done}/{self.steps}  {terms}  {left_s:.0f} s left", highlight=False)
