"""One attempt at a cell, from its claim to its record: the same function in whichever process the cell runs."""

from __future__ import annotations

import errno
import random
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from deadweight.errors import DeadweightError, MachineError
from deadweight.lab.bench import BEGINS, WAITS, Listener, Workbench
from deadweight.lab.cell import Cell
from deadweight.lab.context import context
from deadweight.lab.files import DISK, disk
from deadweight.lab.machine_lock import machine
from deadweight.lab.records import Outcome, Record
from deadweight.lab.store import Store
from deadweight.secrets import hide

Work = Callable[[Cell, Workbench], Outcome]


@dataclass(frozen=True)
class Task:
    """What all cells of a run share: the code that does them, the run's folder, the device, the threads of torch."""

    work: Work
    folder: Path
    device: str
    threads: int


@dataclass(frozen=True)
class Job:
    """A cell to be attempted, and the cells it needs. `alone`: nothing else of this run beside it."""

    cell: Cell
    needs: Mapping[str, Cell] = field(default_factory=dict)
    alone: bool = False


@dataclass(frozen=True)
class AttemptResult:
    """How an attempt ended.

    state:    done: the record stands; failed: the attempt is written down; busy: another runner has the cell;
              lost: the process died and wrote nothing; overdue: it was ended for taking too long, and wrote nothing;
              refused: the disk said no, so no other cell can do better.
    """

    state: Literal["done", "failed", "busy", "lost", "overdue", "refused"]
    seconds: float = 0.0
    error: str | None = None
    refusal: MachineError | None = None


def attempt(job: Job, task: Task, listener: Listener | None = None) -> AttemptResult:
    """Claim the cell, do it and write its record; what it raises becomes a written attempt.

    Only what is not an :class:`Exception` (Ctrl-C, the end of the process) comes through.
    """
    store, cell = Store(task.folder), job.cell
    began = time.monotonic()
    try:
        with store.claim(cell) as mine:
            if not mine:
                return AttemptResult("busy")
            store.tidy(cell.key)
            if store.record(cell) is not None:  # another runner was faster
                return AttemptResult("done")
            error = _do(job, task, store, listener)
    except MachineError as problem:
        return AttemptResult("refused", time.monotonic() - began, hide(str(problem)), problem)
    return AttemptResult("done" if error is None else "failed", time.monotonic() - began, error)


def _do(job: Job, task: Task, store: Store, listener: Listener | None) -> str | None:
    """The error, if there was one; raises MachineError when the disk refused to take the record or the attempt."""
    cell = job.cell
    bench = Workbench(store.folder_of(cell.key), store, cell, task.device, listener, dict(job.needs))
    try:
        for key in cell.needs:
            bench.record_of(key)
        seed_from(cell)
        with machine(alone=cell.exclusive, waiting=lambda: bench.note(WAITS)) as waited:
            if waited:
                bench.note(BEGINS)
            began = time.monotonic()
            outcome = task.work(cell, bench)
            seconds = time.monotonic() - began
        measured = {"seconds": seconds, **outcome.measured}
        store.write(Record(cell, outcome.result, measured, {**context(), **outcome.context}))
    except MachineError as problem:
        cause = problem.__cause__
        if cause is not None and getattr(cause, "errno", None) != errno.EFBIG:
            raise  # the disk itself said no, and not to this file alone: nothing further can be written
        return _failed(store, cell, str(problem))
    except OSError as problem:
        with disk(store.folder):
            if problem.errno in DISK:
                raise
        return _failed(store, cell, f"{type(problem).__name__}: {problem}")
    except Exception as problem:
        told = str(problem) if isinstance(problem, DeadweightError) else f"{type(problem).__name__}: {problem}"
        return _failed(store, cell, told)
    return None


def _failed(store: Store, cell: Cell, error: str) -> str:
    store.fail(cell, error, traceback.format_exc())
    return hide(error)


def seed_from(cell: Cell) -> None:
    """Start every global generator from the cell's key: what ran before in this process must not show."""
    number = int(cell.key[:8], 16)
    random.seed(number)
    np.random.seed(number)  # libraries draw from the global state; ours never do
    torch.manual_seed(number)
