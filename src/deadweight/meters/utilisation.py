"""How busy the accelerator was, and what went to and from the disk."""

from __future__ import annotations

import threading
from contextlib import suppress

import psutil
import torch

from deadweight.meters.reading import Reading

PERIOD = 0.1  # seconds between two samples of the accelerator
SHARE = "share"


class UtilisationMeter:
    """Between `start` and `stop`: the accelerator's mean utilisation, sampled, and this process's disk traffic.

    disk_read_bytes, disk_write_bytes: None where the system does not tell.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device: torch.device | None = device if device is not None and device.type == "cuda" else None
        self.disk_read_bytes: int | None = None
        self.disk_write_bytes: int | None = None
        self._samples: list[float] = []
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._before = _disk()
        if self.device is not None:
            self._stopped = threading.Event()
            self._thread = threading.Thread(target=self._sample, name="deadweight-utilisation", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._stopped.set()
            self._thread.join()
        after = _disk()
        if self._before is not None and after is not None:
            self.disk_read_bytes, self.disk_write_bytes = (
                now - then for now, then in zip(after, self._before, strict=True)
            )

    @property
    def accelerator(self) -> Reading:
        """Share of the time a kernel ran on the accelerator, as its driver tells it."""
        if self._samples:
            return Reading(sum(self._samples) / len(self._samples), SHARE, "measured")
        why = "no accelerator was used" if self.device is None else "the driver tells no utilisation, or time was short"
        return Reading.missing(SHARE, why, "measure on a CUDA device, for half a second or more")

    def _sample(self) -> None:
        while not self._stopped.wait(PERIOD):
            with suppress(RuntimeError, OSError, ImportError):
                self._samples.append(torch.cuda.utilization(self.device) / 100)


def _disk() -> tuple[int, int] | None:
    with suppress(psutil.Error, AttributeError, OSError):
        moved = psutil.Process().io_counters()
        return int(moved.read_bytes), int(moved.write_bytes)
    return None
