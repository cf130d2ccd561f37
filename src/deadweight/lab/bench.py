"""What a cell's code may use while it runs, and who watches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deadweight.errors import CellFailed
from deadweight.lab.cell import Cell
from deadweight.lab.records import Record
from deadweight.lab.store import Store

WAITS = "waits for other work on this machine"  # notes that stop the clock of a cell's timeout
BEGINS = "begins"  # and start it again


class Observer(Protocol):
    """Who watches a run: a live table, a log, a test."""

    def planned(self, cells: Sequence[Cell], waiting: Sequence[Cell]) -> None: ...
    def started(self, cell: Cell) -> None: ...
    def note(self, cell: Cell, text: str, done: float | None) -> None: ...
    def finished(self, cell: Cell, seconds: float, error: str | None) -> None: ...


class Listener(Protocol):
    """The part of an :class:`Observer` a cell under way talks to."""

    def note(self, cell: Cell, text: str, done: float | None) -> None: ...


@dataclass(frozen=True)
class Workbench:
    """What a cell's code may use: its own folder, the folders of the cells it needs, a way to tell progress.

    leads: whether this process writes; False in all but the first of those that do a spread cell together.
    """

    folder: Path
    store: Store
    cell: Cell
    device: str = "cpu"
    observer: Listener | None = None
    neighbours: dict[str, Cell] = field(default_factory=dict)
    leads: bool = True

    def note(self, text: str, done: float | None = None) -> None:
        """Tell the observer what goes on; `done` is the finished share of this cell, 0 … 1."""
        if self.observer is not None:
            self.observer.note(self.cell, text, done)

    def folder_of(self, key: str) -> Path:
        """The folder of a cell this one needs."""
        return self.store.folder_of(key)

    def record_of(self, key: str) -> Record:
        """The record of a cell this one needs."""
        record = self.store.record(self.neighbours[key]) if key in self.neighbours else None
        if record is None:
            raise CellFailed(f"cell {self.cell.key} needs the record of {key}, which is not there")
        return record
