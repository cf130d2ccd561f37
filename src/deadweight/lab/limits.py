"""What a run may use: how many cells at a time, how long one may take, how much memory it may have."""

from __future__ import annotations

import os
from dataclasses import dataclass

from deadweight.errors import InputError
from deadweight.models.free_memory import free_memory

_RESERVE = 2**30  # bytes left to the rest of the machine when another cell is started


@dataclass(frozen=True)
class Limits:
    """Bounds of a run.

    jobs:    cells at a time; 0: as many as there are cores; default: one here, as many as have room on a cluster.
    timeout: seconds a cell may take; a longer one fails.
    memory:  bytes a cell may allocate; a hungrier one fails, and no more run at a time than fit the machine.
    retries: how often a cell is tried again whose process or machine died under it.
    address: of the cluster, where there is one.
    cpus, gpus: what a cell takes of a cluster.
    """

    jobs: int | None = None
    timeout: float | None = None
    memory: int | None = None
    retries: int = 1
    address: str | None = None
    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        for name, least in (("jobs", 0), ("retries", 0), ("cpus", 0), ("gpus", 0)):
            if (getattr(self, name) or 0) < least:
                raise InputError(f"{name} = {getattr(self, name)}", expected=f"at least {least}")
        if self.timeout is not None and self.timeout <= 0:
            raise InputError(f"timeout = {self.timeout}", expected="seconds, more than 0")
        if self.memory is not None and self.memory < 2**28:
            raise InputError(f"memory = {self.memory}", expected="at least 256 MB: PyTorch itself needs that")


def cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def room_for_another(largest: int) -> bool:
    """Whether memory allows one more cell beside those that run, the largest of which needed `largest` bytes."""
    return free_memory() > max(largest, _RESERVE)


__all__ = ["Limits", "cores", "free_memory", "room_for_another"]
