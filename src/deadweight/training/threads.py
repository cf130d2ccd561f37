"""How many processor threads a small model is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

SMALL = 1_000_000  # parameters below which a step is too short for a team of threads to pay


@contextmanager
def suitable_threads(model: nn.Module, device: str) -> Iterator[int]:
    """One thread for a small model on a CPU: faster, and the same sums wherever it runs. Yields the number."""
    before = torch.get_num_threads()
    small = device == "cpu" and sum(weight.numel() for weight in model.parameters()) < SMALL
    if small:
        torch.set_num_threads(1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
