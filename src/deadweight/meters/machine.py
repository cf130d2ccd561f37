"""What this machine is, and how fast its matrix product runs at best."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from deadweight.errors import InputError
from deadweight.meters.clock import accelerator, synchronise


def machine() -> dict[str, str | int | None]:
    """Facts for a record's context: processor, cores, memory in bytes, threads, accelerator, versions."""
    place = accelerator()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": int(psutil.virtual_memory().total),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "accelerator": None if place is None else f"{place.type}: {_name(place)}",
    }


def described(facts: Mapping[str, Any]) -> str:
    """A machine in one line, from :func:`machine` or from a record's context."""
    memory = f"{facts['memory_bytes'] / 2**30:.0f} GiB"
    parts = [f"{facts['processor']} ({facts['vector']})", f"{facts['cores']} cores", memory, facts["accelerator"]]
    return ", ".join(str(part) for part in parts if part)


def processor() -> str:
    """The processor's name as its maker writes it, where the system tells."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def machine_peak(
    dtype: torch.dtype = torch.float32,
    *,
    device: str | torch.device | None = None,
    size: int = 1024,
    seconds: float = 0.5,
) -> float:
    """FLOP/s of a square matrix product of `size`, the median over `seconds`: what a share of the peak refers to.

    A product of n × n matrices takes 2 n³ operations. Raises :class:`InputError` for a dtype without a product.
    """
    place = torch.device(device) if device is not None else accelerator() or torch.device("cpu")
    if not dtype.is_floating_point or size < 1:
        raise InputError(f"peak of {dtype} at size {size}", expected="a floating dtype, size ≥ 1", cure="try float32")
    source = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=source).to(place, dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype, device=place)
    times: list[float] = []
    with torch.no_grad():
        torch.mm(left, right, out=out)
        begin = time.perf_counter()
        while len(times) < 5 or time.perf_counter() - begin < seconds:
            synchronise(place)
            start = time.perf_counter()
            torch.mm(left, right, out=out)
            synchronise(place)
            times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times)
