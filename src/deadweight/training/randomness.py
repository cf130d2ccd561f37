"""Every random stream of training follows from the recipe's seed and a place in the run, never from what ran before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def number(*place: int | str) -> int:
    """32 bits from a place such as (seed, epoch)."""
    digest = hashlib.blake2b("/".join(str(part) for part in place).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def reseed(*place: int | str, device: torch.device | None = None) -> None:
    """Start every stream the parts draw from at `place`: the CPU's, and that of an accelerator where one is given.

    torch drives dropout and drop-path, numpy timm's mixup, Python timm's random erasing, all three RandAugment.
    """
    start = number(*place)
    torch.default_generator.manual_seed(start)  # torch.manual_seed spells out a stack trace while CUDA is not used
    if device is not None and device.type != "cpu":
        torch.get_device_module(device).manual_seed(start)
    np.random.seed(start)
    random.seed(start)


@contextmanager
def streams_kept(device: torch.device) -> Iterator[None]:
    """Put the global streams back as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    forked = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices=forked, device_type="cuda" if device.type == "cpu" else device.type):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def epoch_order(images: int, *, seed: int, epoch: int, repeats: int = 1) -> tuple[Tensor, Tensor]:
    """(indices of an epoch, a number for each that its augmentation follows from).

    With repeats, each drawn picture comes that many times in a row and the epoch ends after `images` of them, as with
    timm's RepeatAugSampler told not to round (by default it drops what exceeds a multiple of 256). Neighbours go to
    different processes. Unlike there, the order depends on the seed and not on the epoch alone.
    """
    generator = torch.Generator().manual_seed(number(seed, epoch))
    order = torch.randperm(images, generator=generator)
    draws = torch.randint(2**31, (images,), generator=generator)
    return order.repeat_interleave(repeats)[:images], draws
