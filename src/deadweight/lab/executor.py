"""The grid: which cell runs when, each once, through failures, deaths and second runners. Engines say where."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from deadweight.errors import MachineError
from deadweight.lab.attempt import AttemptResult, Job, Task, Work, attempt
from deadweight.lab.bench import Listener, Observer
from deadweight.lab.cell import Cell
from deadweight.lab.store import Store

_PATIENCE = 0.2  # seconds before a cell another runner works on is looked at again


class Engine(Protocol):
    """Where cells run. It attempts what it is given and tells how each attempt ended; order and retries are not its."""

    def open(self, task: Task, listener: Listener | None) -> None:
        """Get ready; refuses with a :class:`~deadweight.errors.DeadweightError` what it cannot do."""

    def full(self) -> bool:
        """Whether no further cell can be started now."""

    def takes(self, job: Job) -> bool:
        """Whether this one can be started now."""

    def start(self, job: Job) -> None:
        """Begin an attempt."""

    def endings(self, seconds: float) -> list[tuple[str, AttemptResult]]:
        """(key, ending) of attempts that are over; waits for at most so many seconds until there is one."""

    def close(self) -> None:
        """End whatever still runs, at once."""


class InProcess:
    """One cell after another, here: no process to start, nothing loaded twice."""

    def open(self, task: Task, listener: Listener | None) -> None:
        self._task, self._listener = task, listener
        self._over: list[tuple[str, AttemptResult]] = []

    def full(self) -> bool:
        return False

    def takes(self, job: Job) -> bool:
        return True

    def start(self, job: Job) -> None:
        self._over.append((job.cell.key, attempt(job, self._task, self._listener)))

    def endings(self, seconds: float) -> list[tuple[str, AttemptResult]]:
        over, self._over = self._over, []
        if not over:
            time.sleep(seconds)
        return over

    def close(self) -> None:
        return None


def run_cells(
    cells: Sequence[Cell],
    work: Work,
    store: Store,
    *,
    device: str = "cpu",
    observer: Observer | None = None,
    budget: float | None = None,
    engine: Engine | None = None,
    retries: int = 1,
) -> None:
    """Give every cell its record, in order, as far as possible.

    A cell with a record is not run again. A cell that raises leaves an attempt and the rest go on; so does one whose
    process dies, after `retries` more tries. Only the machine's own refusals (:class:`MachineError` from the store)
    and Ctrl-C stop the run. A cell another runner works on is left to it and looked at again later. No cell is started
    once `budget` seconds are over. `engine` says where cells run; by default here, one after another.
    """
    waiting = [cell for cell in cells if store.record(cell) is None]
    if observer is not None:
        observer.planned(cells, waiting)
    if not waiting:
        return
    store.prepare(waiting)
    engine = engine or InProcess()
    grid = _Grid(cells, waiting, store, engine, observer, retries)
    deadline = None if budget is None else time.monotonic() + budget
    try:
        engine.open(Task(work, Path(store.folder), device, torch.get_num_threads()), observer)
        grid.run(deadline)
    finally:
        engine.close()


class _Grid:
    """The cells that wait and those that run."""

    def __init__(
        self,
        cells: Sequence[Cell],
        waiting: Sequence[Cell],
        store: Store,
        engine: Engine,
        observer: Observer | None,
        retries: int,
    ) -> None:
        self._by_key = {cell.key: cell for cell in cells}
        self._waiting = {cell.key: cell for cell in waiting}
        self._running: dict[str, Cell] = {}
        self._store, self._engine, self._observer, self._retries = store, engine, observer, retries
        self._deaths: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}

    def run(self, deadline: float | None) -> None:
        while self._waiting or self._running:
            self._start(deadline)
            self._hear(_PATIENCE)

    def _start(self, deadline: float | None) -> None:
        """Start, in order, whatever can start now."""
        for cell in list(self._waiting.values()):
            if deadline is not None and time.monotonic() > deadline:
                self._waiting.clear()
            if not self._waiting or self._engine.full():
                return
            job = self._job(cell)
            if not self._ready(cell) or not self._engine.takes(job):
                continue
            del self._waiting[cell.key]
            self._running[cell.key] = cell
            if self._observer is not None:
                self._observer.started(cell)
            self._engine.start(job)
            self._hear(0)

    def _job(self, cell: Cell) -> Job:
        needs = {key: self._by_key[key] for key in cell.needs if key in self._by_key}
        # A process that died may have died of its neighbours' hunger for memory: the next try is made alone.
        return Job(cell, needs, alone=cell.exclusive or self._deaths[cell.key] > 0)

    def _ready(self, cell: Cell) -> bool:
        if time.monotonic() < self._not_before.get(cell.key, 0.0):
            return False
        return not any(key in self._waiting or key in self._running for key in cell.needs)

    def _hear(self, seconds: float) -> None:
        for key, ending in self._engine.endings(seconds):
            self._end(self._running.pop(key), ending)

    def _end(self, cell: Cell, ending: AttemptResult) -> None:
        if ending.state == "refused":
            assert isinstance(ending.refusal, MachineError)
            raise ending.refusal
        if ending.state == "busy":
            self._not_before[cell.key] = time.monotonic() + _PATIENCE
            self._waiting[cell.key] = cell
            return
        if ending.state in ("lost", "overdue"):
            ending = self._write_down(cell, ending)
        if self._observer is not None:
            self._observer.finished(cell, ending.seconds, ending.error)

    def _write_down(self, cell: Cell, ending: AttemptResult) -> AttemptResult:
        """Write the attempt a dead process could not; a cell whose process died by itself may be tried again."""
        with self._store.claim(cell, wait=5) as mine:
            if self._store.record(cell) is not None:  # it died after its work was done
                return replace(ending, state="done", error=None)
            if mine:
                self._store.fail(cell, ending.error or "the process died", "")
        if ending.state == "lost":
            self._deaths[cell.key] += 1
            if self._deaths[cell.key] <= self._retries:
                self._waiting[cell.key] = cell
        return ending
