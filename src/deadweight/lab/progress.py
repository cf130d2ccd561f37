"""Watching a run: a live table in a terminal, plain lines in a log."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from deadweight.lab.cell import Cell


class Watch:
    """An :class:`~deadweight.lab.executor.Observer` for people. Writes to standard error, so that output can be piped.

    In a terminal: one bar for all cells, one for the cell under way. Elsewhere: a line when a cell ends.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._live = self.console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[told]}"),
            console=self.console,
            disable=not self._live,
            transient=True,
        )
        self._all: TaskID | None = None
        self._cell: TaskID | None = None
        self._done = self._total = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def planned(self, cells: Sequence[Cell], kept: int) -> None:
        self._total, self._done = len(cells), kept
        self._all = self._bars.add_task("cells", total=len(cells), completed=kept, told="")
        self._cell = self._bars.add_task("", total=100, told="", visible=False)
        left = sum(cell.seconds for cell in cells) * (1 - kept / max(1, len(cells)))
        again = f", {kept} done before" if kept else ""
        guess = f", about {max(1, round(left / 60))} min" if left else ""
        self.console.print(f"{len(cells)} cells{again}{guess}", highlight=False)

    def started(self, cell: Cell) -> None:
        if self._cell is not None:
            self._bars.reset(self._cell, description=cell.label[:44], told="", visible=True, total=100)

    def note(self, cell: Cell, text: str, done: float | None) -> None:
        if self._cell is not None:
            completed = None if done is None else round(100 * done)
            self._bars.update(self._cell, told=text[:60], completed=completed)

    def finished(self, cell: Cell, seconds: float, error: str | None) -> None:
        self._done += error is None
        if self._all is not None:
            self._bars.update(self._all, completed=self._done)
        mark = "[green]done[/]" if error is None else "[red]failed[/]"
        line = f"{self._done:>3}/{self._total} {mark} {escape(cell.label)}  [dim]{seconds:.1f} s[/]"
        self.console.print(line, highlight=False, soft_wrap=True)
        if error is not None:
            said = f"      {error.splitlines()[0]}"
            self.console.print(said, style="red", markup=False, highlight=False, soft_wrap=True)
