"""Two pieces of work in turns, in one process, and the ratio of their times round by round."""

from __future__ import annotations

import ctypes
import platform
import statistics
import time
from collections.abc import Callable

import torch


def where(dtype: str = "float32") -> str:
    """The line every figure is quoted with."""
    from deadweight.meters import described, machine

    software = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{described(machine())}, {torch.get_num_threads()} threads, {software}, {dtype}"


def keep_memory() -> None:
    """Tell glibc to keep freed memory, as the allocators made for servers do.

    Left alone it gives large blocks back at every call, and what is then timed is how fast the machine hands out pages.
    """
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_most = -1, -4
        ctypes.CDLL(None).mallopt(trim_threshold, 2**31 - 1)
        ctypes.CDLL(None).mallopt(mmap_most, 0)


def ratio(
    ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int = 7, warmup: int = 2
) -> dict[str, float]:
    """Median of time(ours) / time(theirs) over interleaved rounds, with the smallest and the largest."""
    for _ in range(warmup):
        ours(), theirs()
    ratios, first, second = [], [], []
    for _ in range(rounds):
        one, two = _seconds(ours), _seconds(theirs)
        first.append(one), second.append(two), ratios.append(one / two)
    return {
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
        "ours": statistics.median(first), "theirs": statistics.median(second),
    }  # fmt: skip


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def say(title: str, found: dict[str, float], against: str) -> None:
    print(
        f"{title}: {found['ratio']:.2f} × {against} ({found['low']:.2f} … {found['high']:.2f}; "
        f"{found['ours']:.3f} s against {found['theirs']:.3f} s)"
    )


def in_turns(works: dict[str, Callable[[], object]], *, rounds: int = 5, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each of several pieces of work, one of each a round."""
    for _ in range(warmup):
        for work in works.values():
            work()
    return {name: list(took) for name, took in zip(
        works, zip(*([_seconds(work) for work in works.values()] for _ in range(rounds)), strict=True), strict=True
    )}  # fmt: skip


def table(seconds: dict[str, list[float]], against: str, notes: dict[str, str] | None = None) -> None:
    """A line each: median time, and the median of its ratios to `against` round by round."""
    for name, took in seconds.items():
        ratios = [one / two for one, two in zip(took, seconds[against], strict=True)]
        note = (notes or {}).get(name, "")
        print(
            f"  {name:42s} {statistics.median(took) * 1e3:9.1f} ms  {statistics.median(ratios):7.3f} × {against} "
            f"({min(ratios):.3f} … {max(ratios):.3f})  {note}"
        )
