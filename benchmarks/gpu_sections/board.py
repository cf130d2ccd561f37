"""The energy counter of the board that torch computes on; a clockwork in its place where a run is rehearsed."""

from __future__ import annotations

import time
from typing import Any

from deadweight.meters import EnergyDevice, NullEnergy
from deadweight.meters.gpus import gpu_devices
from gpu_sections.plan import Plan

WATTS = 50.0


class Clockwork:
    """A counter that runs evenly, as no board's does: it makes a rehearsal walk the paths that a real one would."""

    name, scope, provenance = "rehearsal", "nothing: a clock", "measured"
    modulus, shortest, reason, cure = None, 0.0, "a clock, not a counter", ""

    def joules(self) -> float:
        return WATTS * time.perf_counter()

    def power(self) -> float:
        return WATTS


def energy_of_the_board(plan: Plan) -> tuple[list[EnergyDevice], str]:
    """The counter of torch's first device, and what must be known about it; a missing one says why."""
    if plan.rehearsal:
        return [Clockwork()], "a clock in place of a counter"
    try:
        found = gpu_devices()
    except Exception as problem:  # a driver that is half there fails in ways of its own
        return [NullEnergy("gpu", f"{type(problem).__name__}: {problem}", "install nvidia-ml-py and zeus")], ""
    if len(found) == 1:
        return found, ""
    wanted = uuid_of_torch()
    for device in found:
        if wanted and uuid_of_counter(device) == wanted:
            return [device], f"{len(found)} boards: {device.name} is the one torch computes on, and alone is charged"
    return found[:1], f"{len(found)} boards, none known to be torch's: the first is charged"


def uuid_of_torch() -> str | None:
    import torch

    found = getattr(torch.cuda.get_device_properties(0), "uuid", None) if torch.cuda.is_available() else None
    return None if found is None else str(found).removeprefix("GPU-")


def uuid_of_counter(device: Any) -> str | None:
    import pynvml

    handle = getattr(getattr(device, "gpu", None), "handle", None)
    if handle is None:
        return None
    try:
        told = pynvml.nvmlDeviceGetUUID(handle)
    except pynvml.NVMLError:
        return None
    return (told.decode() if isinstance(told, bytes) else str(told)).removeprefix("GPU-")
