"""Watching a run: a live table in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deadweight.lab.cell import Cell
from deadweight.lab.status import STATES, RunStatus, State, format_duration
from deadweight.secrets import hide, printable

_SILENCE = 60.0  # seconds a log may be silent while cells talk
_SHOWN = 12  # running cells, at most, that get a line in the table
_COLOURS = {"done": "green", "running": "cyan", "failed": "red", "left": "default"}


class Watch:
    """An :class:`~deadweight.lab.bench.Observer` for people. Writes to standard error, so that output can be piped.

    In a terminal: a table of the studies (done, running, failed, left), a line a running cell, and the time left.
    Elsewhere, in a log: a line when a cell ends, with the same counts, and one a minute from a cell that takes long.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._live: Live | None = None
        self._status = RunStatus(())
        self._running: dict[str, tuple[Cell, float]] = {}
        self._notes: dict[str, tuple[str, float | None]] = {}
        self._spoke = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def planned(self, cells: Sequence[Cell], waiting: Sequence[Cell]) -> None:
        states: dict[str, State] = {cell.key: "done" for cell in cells}
        self._status = RunStatus(cells, states | {cell.key: "left" for cell in waiting})
        kept = len(cells) - len(waiting)
        again = f", {kept} done before" if kept else ""
        left = self._status.seconds_left()
        guess = f", about {format_duration(left)}" if left else ""
        self.console.print(f"{len(cells)} cells{again}{guess}", highlight=False)
        if self.console.is_terminal and waiting:
            self._live = Live(get_renderable=self.table, console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def started(self, cell: Cell) -> None:
        self._status.states[cell.key] = "running"
        self._running[cell.key] = (cell, time.monotonic())

    def note(self, cell: Cell, text: str, done: float | None) -> None:
        self._notes[cell.key] = (hide(text), done)
        if self._live is None and time.monotonic() - self._spoke > _SILENCE:
            share = "" if done is None else f" ({done:.0%})"
            self._say(f"      {cell.label}: {printable(hide(text))}{share}; {self.summary()}")

    def finished(self, cell: Cell, seconds: float, error: str | None) -> None:
        self._running.pop(cell.key, None)
        self._notes.pop(cell.key, None)
        if error is None:
            self._status.finished(cell, seconds)
        else:
            self._status.states[cell.key] = "failed"
        mark = "[green]done[/]" if error is None else "[red]failed[/]"
        number = self._status.total("done")
        line = f"{number:>3}/{len(self._status.cells)} {mark} {escape(cell.label)}  [dim]{seconds:.1f} s[/]"
        rest = "" if self._live is not None else f"  [dim]({escape(self.summary())})[/]"
        self.console.print(line + rest, highlight=False, soft_wrap=True)
        self._spoke = time.monotonic()
        if error is not None:
            said = f"      {printable(error.splitlines()[0]) if error else 'no reason given'}"
            self.console.print(said, style="red", markup=False, highlight=False, soft_wrap=True)

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._spoke = time.monotonic()

    def summary(self) -> str:
        """What the table says, in a line: 2 running, 1 failed, 7 left, about 4 min to go."""
        told = [f"{number} {state}" for state in STATES[1:] if (number := self._status.total(state))]
        left = self._status.seconds_left()
        if left and told:
            told.append(f"about {format_duration(left)} to go")
        return ", ".join(told) or "nothing left"

    def table(self) -> Group:
        """What the terminal shows now."""
        table = Table(box=None, pad_edge=False)
        table.add_column("study")
        for state in STATES:
            table.add_column(state, justify="right", style=_COLOURS[state])
        for study, counts in self._status.counts().items():
            table.add_row(Text(printable(study)), *(str(counts[state]) for state in STATES))
        under_way = Table.grid(padding=(0, 2))
        for cell, began in list(self._running.values())[:_SHOWN]:
            text, done = self._notes.get(cell.key, ("", None))
            bar = ProgressBar(total=1, completed=done, width=20) if done is not None else Text("")
            under_way.add_row(
                Text(cell.label[:44]),
                format_duration(time.monotonic() - began),
                bar,
                Text(printable(text[:48]), style="dim"),
            )
        left = self._status.seconds_left()
        rest = Text(f"about {format_duration(left)} left" if left is not None else "", style="dim")
        return Group(table, under_way, rest)
