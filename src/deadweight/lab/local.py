"""The local engine: cells in worker processes, each a fence around the cell it runs.

A worker that is killed, crashes or outstays its time fails its own cell and no other. Workers come from a fork
server that has imported PyTorch already, so a new one costs milliseconds; each keeps what its study has loaded.
"""

from __future__ import annotations

import math
import multiprocessing
import multiprocessing.connection
import pickle
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from deadweight.errors import InputError
from deadweight.lab.attempt import AttemptResult, Job, Task, Work
from deadweight.lab.bench import BEGINS, WAITS, Listener
from deadweight.lab.limits import Limits, cores, free_memory, room_for_another
from deadweight.lab.worker import serve

_GRACE = 3.0  # seconds between asking a worker to end and ending it


def _preload(work: Work) -> list[str]:
    """What the fork server imports once for all workers: PyTorch, the worker, and the code of the cells."""
    module = type(getattr(work, "__self__", None)).__module__ if hasattr(work, "__self__") else work.__module__
    return ["torch", "deadweight.lab.worker", *([] if module in ("__main__", "builtins") else [module])]


@dataclass
class _Worker:
    process: Any  # a multiprocessing Process of one context or another
    pipe: multiprocessing.connection.Connection
    job: Job | None = None
    began: float = 0.0

    def dead(self) -> bool:
        return not self.process.is_alive()


class Processes:
    """Up to `limits.jobs` cells at a time on this machine, as far as memory allows."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._jobs = cores() if limits.jobs == 0 else limits.jobs or 1
        if limits.memory is not None:
            fit = max(1, free_memory() // limits.memory)
            self._jobs = min(self._jobs, int(fit))
        self._workers: list[_Worker] = []
        self._largest = 0

    def open(self, task: Task, listener: Listener | None) -> None:
        _refuse_unguarded_script()
        self._listener = listener
        try:
            self._task = pickle.dumps(task)
        except Exception as problem:
            raise InputError(
                f"the study's code cannot be sent to another process: {problem}",
                expected="functions and classes of an importable module",
                cure="move them into a module of their own, or run with jobs=1 and no limits",
            ) from problem
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if context.get_start_method() == "forkserver":
            context.set_forkserver_preload(_preload(task.work))
        self._context = context

    def full(self) -> bool:
        busy = [worker for worker in self._workers if worker.job is not None]
        if not busy:
            return False
        if len(busy) >= self._jobs or any(worker.job.alone for worker in busy if worker.job):
            return True
        return not room_for_another(self._largest)

    def takes(self, job: Job) -> bool:
        return not job.alone or all(worker.job is None for worker in self._workers)

    def start(self, job: Job) -> None:
        worker = next((one for one in self._workers if one.job is None and not one.dead()), None) or self._hire()
        worker.job, worker.began = job, time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):  # it died just now: endings() tells
            worker.pipe.send(job)

    def _hire(self) -> _Worker:
        self._workers = [one for one in self._workers if one.job is not None or not one.dead()]
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(theirs, self._task, self._limits.memory), name="deadweight-worker", daemon=False
        )
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def endings(self, seconds: float) -> list[tuple[str, AttemptResult]]:
        busy = [worker for worker in self._workers if worker.job is not None]
        if not busy:
            time.sleep(seconds)
            return []
        multiprocessing.connection.wait([worker.pipe for worker in busy], timeout=self._patience(busy, seconds))
        over = []
        for worker in busy:
            assert worker.job is not None
            self._weigh(worker)
            ending = self._heard(worker) or self._overdue(worker)
            if ending is not None:
                over.append((worker.job.cell.key, ending))
                worker.job = None
        return over

    def _patience(self, busy: list[_Worker], seconds: float) -> float:
        if self._limits.timeout is None:
            return seconds
        first = min(worker.began for worker in busy) + self._limits.timeout - time.monotonic()
        return max(0.0, min(seconds, first))

    def _heard(self, worker: _Worker) -> AttemptResult | None:
        """What a worker has told since: notes go to the listener, an ending is handed back, an end of line is one."""
        assert worker.job is not None
        try:
            while worker.pipe.poll():
                told = worker.pipe.recv()
                if isinstance(told, AttemptResult):
                    return told
                if told[0] in (WAITS, BEGINS):  # waiting for the machine is not the cell's own time
                    worker.began = math.inf if told[0] == WAITS else time.monotonic()
                if self._listener is not None:
                    self._listener.note(worker.job.cell, *told)
        except (EOFError, OSError):
            worker.process.join(_GRACE)
            _end(worker)
            return AttemptResult(
                "lost", max(0.0, time.monotonic() - worker.began), describe_exit(worker.process.exitcode)
            )
        return None

    def _overdue(self, worker: _Worker) -> AttemptResult | None:
        taken, limit = time.monotonic() - worker.began, self._limits.timeout
        if limit is None or taken < limit:
            return None
        _end(worker)
        return AttemptResult("overdue", taken, f"took longer than {limit:g} s, the time a cell is given")

    def _weigh(self, worker: _Worker) -> None:
        with suppress(psutil.Error):  # it is gone
            self._largest = max(self._largest, int(psutil.Process(worker.process.pid).memory_info().rss))

    def close(self) -> None:
        deadline = time.monotonic() + _GRACE
        try:
            for worker in self._workers:
                worker.pipe.close()  # an idle worker ends by itself
                if worker.job is not None:
                    worker.process.terminate()
            for worker in self._workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:  # a second Ctrl-C comes here, wherever the first one left us
            for worker in self._workers:
                _end(worker)
            self._workers = []


def _end(worker: _Worker) -> None:
    if worker.process.is_alive():
        worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        doubt = "; the system does that when memory runs out" if name == "SIGKILL" else ""
        return f"the worker process was ended by {name}{doubt}"
    return f"the worker process ended by itself with exit code {code}"


def _refuse_unguarded_script() -> None:
    """A worker that imports the user's script must not find it starting another run."""
    if multiprocessing.parent_process() is not None and getattr(
        multiprocessing.current_process(), "_inheriting", False
    ):
        raise InputError(
            "this script starts a run whenever it is imported, and worker processes import it",
            expected='the run under `if __name__ == "__main__":`',
            cure="put the call there, or use jobs=1",
        )
