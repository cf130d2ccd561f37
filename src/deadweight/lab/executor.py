"""The local executor: cells in order, each once, surviving failures, kills and second runners."""

from __future__ import annotations

import errno
import random
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from filelock import FileLock

from deadweight.errors import CellFailed, DeadweightError, MachineError
from deadweight.lab.cell import Cell
from deadweight.lab.context import context
from deadweight.lab.records import Outcome, Record
from deadweight.lab.store import Store, disk


class Observer(Protocol):
    """Who watches a run: a live table, a log, a test."""

    def planned(self, cells: Sequence[Cell], kept: int) -> None: ...
    def started(self, cell: Cell) -> None: ...
    def note(self, cell: Cell, text: str, done: float | None) -> None: ...
    def finished(self, cell: Cell, seconds: float, error: str | None) -> None: ...


@dataclass(frozen=True)
class Workbench:
    """What a cell's code may use: its own folder, the folders of the cells it needs, a way to tell progress."""

    folder: Path
    store: Store
    cell: Cell
    device: str = "cpu"
    observer: Observer | None = None
    neighbours: dict[str, Cell] = field(default_factory=dict)

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


def run_cells(
    cells: Sequence[Cell],
    work: Callable[[Cell, Workbench], Outcome],
    store: Store,
    *,
    device: str = "cpu",
    observer: Observer | None = None,
    budget: float | None = None,
) -> None:
    """Give every cell its record, in order, as far as possible.

    A cell with a record is not run again. A cell that raises leaves an attempt and the rest go on; only the
    machine's own refusals (:class:`MachineError` from the store) and Ctrl-C stop the run. A cell another runner
    works on is left to it and looked at again at the end. No cell is started once `budget` seconds are over.
    """
    began = time.monotonic()
    by_key = {cell.key: cell for cell in cells}
    waiting = [cell for cell in cells if store.record(cell) is None]
    if observer is not None:
        observer.planned(cells, len(cells) - len(waiting))
    while waiting:
        busy: list[Cell] = []
        for cell in waiting:
            if budget is not None and time.monotonic() - began > budget:
                return
            with store.claim(cell) as mine:
                if not mine:
                    busy.append(cell)
                elif store.record(cell) is None:
                    _do(cell, work, store, by_key, device, observer)
        if busy:
            time.sleep(0.2)
        waiting = busy


def _do(
    cell: Cell,
    work: Callable[[Cell, Workbench], Outcome],
    store: Store,
    by_key: dict[str, Cell],
    device: str,
    observer: Observer | None,
) -> None:
    if observer is not None:
        observer.started(cell)
    bench = Workbench(store.folder_of(cell.key), store, cell, device, observer, by_key)
    began = time.monotonic()
    error: str | None = None
    try:
        for key in cell.needs:
            bench.record_of(key)
        _seed(cell)
        with _alone() if cell.exclusive else nullcontext():
            outcome = work(cell, bench)
        measured = {"seconds": time.monotonic() - began, **outcome.measured}
        record = Record(cell, outcome.result, measured, {**context(), **outcome.context})
        store.write(record)
    except MachineError as problem:
        if problem.__cause__ is not None:  # the disk itself said no: nothing further can be written
            raise
        error = str(problem)
        store.fail(cell, error, traceback.format_exc())
    except OSError as problem:
        with disk(store.folder):
            if problem.errno in _DISK:
                raise
        error = f"{type(problem).__name__}: {problem}"
        store.fail(cell, error, traceback.format_exc())
    except Exception as problem:
        error = str(problem) if isinstance(problem, DeadweightError) else f"{type(problem).__name__}: {problem}"
        store.fail(cell, error, traceback.format_exc())
    if observer is not None:
        observer.finished(cell, time.monotonic() - began, error)


def _seed(cell: Cell) -> None:
    """Start every global generator from the cell's key: what ran before in this process must not show."""
    number = int(cell.key[:8], 16)
    random.seed(number)
    np.random.seed(number)  # libraries draw from the global state; ours never do
    torch.manual_seed(number)


_DISK = {errno.ENOSPC, errno.EROFS, errno.EDQUOT}  # no cell can do better than the one that met it


def _alone() -> AbstractContextManager[object]:
    """The machine-wide lock of cells that time things."""
    return FileLock(Path(tempfile.gettempdir()) / "deadweight-timing.lock")
