"""Sections that do as their names say, and a run of them as a program: ``python -m gpu_toy OUT``."""

import os
import signal
import sys
import time
from pathlib import Path

from gpu_sections import Plan, Section, runner
from gpu_sections.plan import attempt, row


def quick(plan, emit):
    emit(row("one", value=1.5))
    emit(row("two", value=float("nan")))


def hangs(plan, emit):
    emit(row("before", pid=os.getpid()))
    time.sleep(600)
    emit(row("after"))


def dies(plan, emit):
    emit(row("before"))
    os.kill(os.getpid(), signal.SIGKILL)


def raises(plan, emit):
    emit(row("before"))
    raise ValueError("out of luck\nand of lines")


def out_of_memory(plan, emit):
    import torch

    with attempt(emit, "large"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 58.00 GiB")
    emit(row("small"))


def without_a_package(plan, emit):
    with attempt(emit, "peer"):
        import a_package_nobody_has  # noqa: F401
    emit(row("ours"))


def chatters(plan, emit):
    sys.stdout.write("a library's own words\n")
    emit(row("said"))


def section(work, seconds=60.0):
    return Section(f"gpu_toy:{work.__name__}", seconds)


if __name__ == "__main__":
    runner.PRELOAD.clear()
    runner.run({"quick": section(quick), "hangs": section(hangs)}, Plan("cpu"), Path(sys.argv[1]), seconds=600)
