"""What the card is, how it is cut and read, and how fast its matrix products run: what every other row refers to."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from deadweight.meters import machine, machine_peak
from gpu_sections.board import energy_of_the_board
from gpu_sections.plan import MISSING, Emit, Plan, attempt, row

PACKAGES = (
    "torch", "triton", "transformers", "timm", "accelerate", "zeus", "nvidia-ml-py", "numpy", "scipy", "datasets",
    "lm-eval", "flash-linear-attention", "flash-attn",
)  # fmt: skip
PRODUCTS = (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16))


def card(plan: Plan, emit: Emit) -> None:
    with attempt(emit, "machine"):
        emit(row("machine", **machine()))
    emit(row("versions", python=platform.python_version(), cuda=torch.version.cuda, **versions()))
    with attempt(emit, "card"):
        emit(row("card", **facts(plan)))
    with attempt(emit, "NVML"):
        emit(driver(plan))
    with attempt(emit, "energy counter"):
        (device,), note = energy_of_the_board(plan)
        status = MISSING if device.provenance == "missing" else "ok"
        reason = "; ".join(part for part in (device.reason, note) if part)
        emit(row("energy counter", status, reason, device=device.name, provenance=device.provenance, cure=device.cure))
    size, seconds = (64, 0.01) if plan.rehearsal else (8192, 0.5)
    for name, dtype in PRODUCTS:
        with attempt(emit, f"peak, {name}"):
            rate = machine_peak(dtype, device=plan.device, size=size, seconds=seconds)
            emit(row(f"peak, {name}", flops_per_second=rate, size=size))


def versions() -> dict[str, str | None]:
    """Of the packages whose versions matter; None where one is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def facts(plan: Plan) -> dict[str, Any]:
    """As torch tells them."""
    if plan.device != "cuda":
        return {"card": "none: the CPU, for a rehearsal", "boards": 0}
    told = torch.cuda.get_device_properties(0)
    return {
        "card": told.name,
        "boards": torch.cuda.device_count(),
        "memory_bytes": told.total_memory,
        "multiprocessors": told.multi_processor_count,
        "capability": f"{told.major}.{told.minor}",
    }


def driver(plan: Plan) -> dict[str, Any]:
    """As NVML tells it: the driver, and whether the board is cut into slices (MIG)."""
    if plan.device != "cuda":
        return row("NVML", MISSING, "a rehearsal reads no driver")
    import pynvml

    try:
        pynvml.nvmlInit()
        told = pynvml.nvmlSystemGetDriverVersion()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError as problem:
        return row("NVML", MISSING, f"NVML cannot be read: {problem}")
    try:
        sliced = pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    except pynvml.NVMLError:  # boards that cannot be sliced refuse the question
        sliced = False
    why = "MIG is on: the work has a slice of the board, and the counter is of the whole" if sliced else ""
    return row("NVML", "ok", why, driver=told.decode() if isinstance(told, bytes) else told, mig=sliced)
