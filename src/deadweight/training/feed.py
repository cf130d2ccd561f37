"""Images in batches: a small set is held whole and indexed, a large one is read as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from deadweight.data import ImageSet, as_tensors
from deadweight.errors import InputError

HELD_BYTES = 1 << 30


def chunked(indices: Tensor, size: int) -> list[Tensor]:
    """`indices` in pieces of `size`, the last one shorter."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


class Feed:
    """The images of one part of a data set, on `device`, in the order of given indices."""

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        if not len(images):
            raise InputError("a data set without images", expected="at least one image to train on and one held out")
        self._images, self._device = images, device
        first, _ = images[0]
        self._held: tuple[Tensor, Tensor] | None = None
        if first.numel() * first.element_size() * len(images) <= HELD_BYTES:
            pixels, labels = as_tensors(images)
            self._held = pixels.to(device), labels.to(device)

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, chunks: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """(images (B, C, H, W), labels (B,)) of each chunk of indices."""
        if self._held is not None:
            pixels, labels = self._held
            for chunk in chunks:
                at = chunk.to(self._device)
                yield pixels[at], labels[at]
            return
        listed: Any = [chunk.tolist() for chunk in chunks]
        loader: Any = DataLoader(self._images, batch_sampler=listed)  # type: ignore[arg-type]  # map-style by protocol
        for images, labels in loader:
            yield images.to(self._device), labels.to(self._device)
