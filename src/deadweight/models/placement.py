"""Dtypes and devices by name."""

from __future__ import annotations

import torch

from deadweight.errors import InputError
from deadweight.registry import did_you_mean


def torch_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """``"bfloat16"`` or ``torch.bfloat16`` as a dtype; unknown names raise :class:`InputError`."""
    if name is None or isinstance(name, torch.dtype):
        return name
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(
            f"unknown dtype {name!r}",
            expected="float32, bfloat16, float16 or float64",
            cure=did_you_mean(name, ["float32", "bfloat16", "float16", "float64"]),
        )
    return found


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, else the accelerator if this machine has one, else the CPU."""
    if device is not None:
        try:
            return torch.device(device)
        except RuntimeError as problem:
            raise InputError(
                f"unknown device {device!r}", expected="cpu, cuda, cuda:0, mps …", cure="run `deadweight doctor`"
            ) from problem
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")
