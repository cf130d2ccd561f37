"""Peak memory above what was there at entry.

On a CPU it is resident memory (RSS). Where Linux lets us reset the process's high-water mark
(``/proc/self/clear_refs``) the peak is the kernel's own and misses nothing; elsewhere a light thread samples RSS
every few milliseconds, and a peak shorter than that can be missed. On an accelerator it is PyTorch's allocator's
peak. Memory that other threads take meanwhile is counted too, for neither the kernel nor the allocator can tell.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

import psutil
import torch

PERIOD = 0.005  # seconds between two samples of the fallback
Source = Literal["high-water mark", "sampled", "allocator"]


class MemoryMeter:
    """Bytes above entry, between `start` and `stop`; meters nest and overlap.

    A peak that can be reset is one for the whole process, so an inner meter's reset would hide the outer's peak.
    Before each reset the peak so far is therefore handed to every meter under way.
    """

    _active: list[MemoryMeter] = []  # noqa: RUF012  # shared on purpose: one high-water mark a process
    _lock = threading.Lock()

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.source: Source = "allocator" if device is not None else "high-water mark" if resettable() else "sampled"
        self.entry: int = 0
        self.peak: int = 0

    @property
    def peak_bytes(self) -> int:
        return max(0, self.peak - self.entry)

    def start(self) -> None:
        if self.source == "sampled":
            self.entry = self.peak = resident()
            self._stopped = threading.Event()
            self._thread = threading.Thread(target=self._sample, name="deadweight-memory", daemon=True)
            self._thread.start()
            return
        with self._lock:
            self._hand_out()
            self._reset()
            self.entry = self.peak = self._now()
            self._active.append(self)

    def stop(self) -> None:
        if self.source == "sampled":
            self._stopped.set()
            self._thread.join()
            self.peak = max(self.peak, resident())
            return
        with self._lock:
            self._hand_out()
            self._active.remove(self)

    def _sample(self) -> None:
        while not self._stopped.wait(PERIOD):
            self.peak = max(self.peak, resident())

    def _hand_out(self) -> None:
        for device in {meter.device for meter in self._active}:
            peak = high_water() if device is None else int(torch.accelerator.max_memory_allocated(device))
            for meter in self._active:
                if meter.device == device:
                    meter.peak = max(meter.peak, peak)

    def _reset(self) -> None:
        if self.device is None:
            Path("/proc/self/clear_refs").write_text("5")  # 5: set the high-water mark to the present RSS
        else:
            torch.accelerator.reset_peak_memory_stats(self.device)

    def _now(self) -> int:
        return resident() if self.device is None else int(torch.accelerator.memory_allocated(self.device))


def resident() -> int:
    """Resident bytes of this process now."""
    return int(psutil.Process().memory_info().rss)


def high_water() -> int:
    """The kernel's high-water mark of this process's resident bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("the kernel reports no high-water mark")


@cache
def resettable(mark: Callable[[], int] = high_water) -> bool:
    """Whether the high-water mark can be read and really goes down when reset (some sandboxes only pretend)."""
    with suppress(OSError):
        block = bytearray(b"x") * (32 << 20)
        before = mark()
        del block
        Path("/proc/self/clear_refs").write_text("5")
        return mark() <= before - (16 << 20)
    return False
