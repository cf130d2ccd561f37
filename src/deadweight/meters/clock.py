"""Time: a monotonic clock whose edges wait for the accelerator, and the processor time of all our threads."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch


def accelerator() -> torch.device | None:
    """The accelerator that work may be queued on, None where there is only the CPU."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def synchronise(device: torch.device | None) -> None:
    """Wait until `device` has done what was queued; nothing to wait for on a CPU."""
    if device is not None and device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)


@dataclass
class Stopwatch:
    """Seconds between two synchronised edges.

    seconds:     by ``time.perf_counter``, which is monotonic.
    cpu_seconds: user and system time of this process, all its threads included, its children not.
    """

    device: torch.device | None = None
    seconds: float = field(default=0.0, init=False)
    cpu_seconds: float = field(default=0.0, init=False)

    def start(self) -> None:
        synchronise(self.device)
        self._cpu = time.process_time()
        self._start = time.perf_counter()

    def stop(self) -> None:
        synchronise(self.device)
        self.seconds = time.perf_counter() - self._start
        self.cpu_seconds = time.process_time() - self._cpu
