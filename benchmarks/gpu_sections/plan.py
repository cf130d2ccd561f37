"""What is asked for, and rows: the one shape in which every section tells what it found, or why it did not."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

Row = dict[str, Any]
Emit = Callable[[Row], None]
NO_KERNEL = ("No available kernel", "No viable backend for scaled_dot_product_attention")  # PyTorch's, of pinned ones
OK, WRONG, MISSING, MEMORY, FAILED = "ok", "wrong", "missing", "out of memory", "failed"


@dataclass(frozen=True)
class Plan:
    """Where a section runs, and whether it is a rehearsal: the same work at sizes that tell nothing."""

    device: str = "cuda"
    rehearsal: bool = False


@dataclass(frozen=True)
class Section:
    """work: ``module:function`` of (plan, emit). seconds: after which it is ended, what it has told so far kept."""

    work: str
    seconds: float

    def load(self) -> Callable[[Plan, Emit], None]:
        module, _, name = self.work.partition(":")
        function: Callable[[Plan, Emit], None] = getattr(import_module(module), name)
        return function


def row(name: str, status: str = OK, reason: str = "", **values: Any) -> Row:
    """status: ok, wrong (a bound was passed), missing (something is not here), out of memory, failed."""
    return {"name": name, "status": status, "reason": " ".join(reason.split()), **values}


def fault(name: str, problem: BaseException) -> Row:
    """The row of a piece of work that ended in `problem`."""
    from torch import OutOfMemoryError

    from deadweight.errors import MachineError

    told = " ".join(f"{type(problem).__name__}: {problem}".split())[:400]
    if isinstance(problem, OutOfMemoryError | MemoryError):
        return row(name, MEMORY, told)
    if isinstance(problem, ImportError | MachineError) or any(words in told for words in NO_KERNEL):
        return row(name, MISSING, told)
    return row(name, FAILED, told)


@contextmanager
def attempt(emit: Emit, name: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes a row of that name, and what comes after goes on."""
    try:
        yield
    except Exception as problem:
        emit(fault(name, problem))
        problem.__traceback__ = None  # its frames hold the tensors that did not fit
        released()


def released() -> None:
    """Give back what the last piece of work held."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
