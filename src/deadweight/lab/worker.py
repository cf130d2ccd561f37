"""What a worker process does: attempt the cells it is sent, tell how they ended, and die with its parent."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import time
from contextlib import suppress

import torch

from deadweight.lab.attempt import Task, attempt
from deadweight.lab.bench import BEGINS, WAITS
from deadweight.lab.cell import Cell

_NOTES_A_SECOND = 10


class _Notes:
    """Sends a cell's notes to the parent, none that comes right after another."""

    def __init__(self, pipe: multiprocessing.connection.Connection) -> None:
        self._pipe, self._last = pipe, 0.0

    def note(self, cell: Cell, text: str, done: float | None) -> None:
        now = time.monotonic()
        if now - self._last > 1 / _NOTES_A_SECOND or text in (WAITS, BEGINS):
            self._last = now
            with suppress(BrokenPipeError):
                self._pipe.send((text, done))


def serve(pipe: multiprocessing.connection.Connection, pickled: bytes, memory: int | None) -> None:
    """Until the pipe ends: receive a job, attempt it, send its ending. Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=die_with_parent, daemon=True).start()
    limit_memory(memory)
    task: Task = pickle.loads(pickled)  # noqa: S301  # from our own parent process, through a pipe only it holds
    prepare(task)
    notes = _Notes(pipe)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            pipe.send(attempt(pipe.recv(), task, notes))


def prepare(task: Task) -> None:
    """The same number of threads as the run's own process has: sums depend on it."""
    torch.set_num_threads(task.threads)


def limit_memory(allowed: int | None) -> None:
    """Let allocations beyond `allowed` bytes fail in this process, where the system can do that; None lifts it."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard if allowed is None else allowed, hard))


def die_with_parent() -> None:
    """A run that was killed must not leave workers behind that hold its cells."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
