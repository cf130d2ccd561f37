"""The interleaved benchmark: one worker process per mechanism, driven in turns, so that drift hits all alike.

Exactly one worker is at work at any time. A worker that raises, is killed or outstays its time is left out with
its error, and the others go on.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from deadweight.attention import MECHANISMS
from deadweight.lab import Json
from deadweight.lab.local import describe_exit
from deadweight.meters import EnergyDevice, IdlePower
from deadweight.studies.attention.timing.subject import Subject
from deadweight.studies.attention.timing.worker import Entry, serve

# Imported once, in the server that workers are forked from, rather than by each of them at their first call.
PRELOAD = ["torch", "torch._dynamo", "zeus.device.cpu", "zeus.device.gpu", "deadweight.studies.attention.timing.worker"]
WARM_UP = 1  # turns of each, after its very first step
PATIENCE = 900.0  # seconds a worker may take for one call
GRACE = 5.0
_MAIN = threading.Lock()


@dataclass
class Worker:
    """One mechanism, its process, and all it has measured.

    first: its facts and the peak memory of its first step. turns, meters: one per round. error: what took it out.
    """

    name: str
    process: Any
    pipe: multiprocessing.connection.Connection
    first: dict[str, Json] | None = None
    turns: list[dict[str, Json]] = field(default_factory=list)
    meters: list[dict[str, Json]] = field(default_factory=list)
    error: str | None = None

    def ask(self, call: str, **arguments: object) -> dict[str, Json] | None:
        """What the worker answers; None, with the error kept, where it cannot any more."""
        if self.error is not None:
            return None
        try:
            self.pipe.send((call, arguments))
            if not self.pipe.poll(PATIENCE):
                raise TimeoutError(f"took longer than {PATIENCE:g} s for one call")
            state, told = self.pipe.recv()
        except TimeoutError as late:
            state, told = "failed", str(late)
        except (EOFError, OSError):
            self.process.join(GRACE)
            state, told = "failed", describe_exit(self.process.exitcode)
        if state == "failed":
            self._out(told)
            return None
        answer: dict[str, Json] = told
        return answer

    def _out(self, error: str) -> None:
        self.error = error
        self.end()

    def end(self) -> None:
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def interleaved_benchmark(
    subjects: Mapping[str, Subject],
    *,
    rounds: int,
    metered: int = 2,
    threads: int = 1,
    devices: Sequence[EnergyDevice] | None = None,
    model: Sequence[EnergyDevice] = (),
    window: float = 0.0,
    idle: IdlePower | None = None,
    memory: int | None = None,
    note: Callable[[str, float], None] | None = None,
    watch: Callable[[str, int], None] | None = None,
) -> list[Worker]:
    """Build all, warm all up, then `rounds` timed and `metered` metered rounds of all in turn.

    Parameters
    ----------
    threads, memory:
        Of each worker; memory None: what is free on the machine now, on a CPU.
    devices, model, window, idle:
        Energy counters of the metered rounds (None: the machine's), a power model beside them, their shortest window,
        the power at rest.
    note:
        Told what goes on and the share done.
    watch:
        Told (name, process id) of each worker, for tests.
    """
    workers: list[Worker] = []
    names = list(subjects)
    total = len(names) * (1 + WARM_UP + rounds + metered)
    done = 0

    def each(call: str, number: int, **arguments: object) -> Iterator[tuple[Worker, dict[str, Json]]]:
        nonlocal done
        for worker in workers[number % len(workers) :] + workers[: number % len(workers)]:  # none always after the same
            answer = worker.ask(call, **arguments)
            done += 1
            if note is not None:
                note(f"{subjects[worker.name].length:,} tokens, {worker.name}", done / total)
            if answer is not None:
                yield worker, answer

    try:
        for name in names:
            subject = subjects[name]
            allowed = memory if memory is not None or subject.device != "cpu" else psutil.virtual_memory().available
            workers.append(_start(name, Entry(subject, threads, allowed, devices, model)))
            if watch is not None:
                watch(name, workers[-1].process.pid)
        for worker, told in each("first", 0):
            worker.first = told
        for number in range(WARM_UP):
            for _ in each("turn", number):
                pass
        for number in range(rounds):
            for worker, told in each("turn", number):
                worker.turns.append(told)
        for number in range(metered):
            for worker, told in each("meter", number, idle=idle, seconds=window, metered_first=bool(number % 2)):
                worker.meters.append(told)
    finally:
        for worker in workers:
            worker.end()
    return workers


def _start(name: str, entry: Entry) -> Worker:
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(PRELOAD)
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, entry), name=f"deadweight-{name}", daemon=True)
    with _without_main(entry.subject.mechanism):
        process.start()
    theirs.close()
    return Worker(name, process, ours)


@contextmanager
def _without_main(mechanism: str) -> Iterator[None]:
    """Start a worker without importing the user's script in it, where a run may stand unguarded.

    Only a mechanism that the script itself defines needs it there.
    """
    if getattr(MECHANISMS.get(mechanism), "__module__", "") == "__main__":
        yield
        return
    with _MAIN:
        real = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = real
