"""Memory for what lasts no longer than a layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Scratch:
    """Buffers by name, kept from one layer to the next: fresh pages from the system cost as much as the arithmetic."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor of anything, in the memory of the last one of that `name`, which is thereby gone."""
        count, held = math.prod(shape), self._held.get(name)
        if held is None or held.numel() < count or held.dtype != dtype or held.device != device:
            held = self._held[name] = torch.empty(count, dtype=dtype, device=device)
        return held[:count].view(shape)


def keep_pages() -> None:
    """Have glibc keep what is freed for what comes next, instead of giving it back and asking for fresh pages.

    It does so for blocks up to the size of the largest it has seen freed, at most 32 MiB (mallopt(3),
    M_MMAP_THRESHOLD): it is shown one. No page of it is touched, and other allocators do not care.
    """
    torch.empty(32 * 2**20 - 2**16, dtype=torch.uint8, device="cpu")
