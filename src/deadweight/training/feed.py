"""Images in batches: a small set is held whole and indexed, a large or augmented one is read as it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from deadweight.data import ImageSet, as_tensors
from deadweight.errors import InputError
from deadweight.training.pictures import Augmented

HELD_BYTES = 1 << 30


def chunked(indices: Tensor, size: int) -> list[Tensor]:
    """`indices` in pieces of `size`, the last one shorter."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


class Feed:
    """The images of one part of a data set, on `device`, in the order of given indices.

    Parameters
    ----------
    augmented:
        The same images as a recipe changes them; they are given where `batches` is told the draws.
    workers:
        Processes that read images which are not held; the images do not depend on their number.
    classes:
        Labels must lie below it.
    """

    def __init__(
        self,
        images: ImageSet,
        device: torch.device,
        *,
        augmented: Augmented | None = None,
        workers: int = 0,
        classes: int | None = None,
    ) -> None:
        if not len(images):
            raise InputError("a data set without images", expected="at least one image to train on and one held out")
        self._images, self._device, self._workers, self._classes = images, device, workers, classes
        self.augmented = augmented
        first, _ = images[0]
        self._held: tuple[Tensor, Tensor] | None = None
        if augmented is None and first.numel() * first.element_size() * len(images) <= HELD_BYTES:
            pixels, labels = as_tensors(images)
            self._check(labels)
            self._held = pixels.to(device), labels.to(device)

    def __len__(self) -> int:
        return len(self._images)

    def batches(
        self, chunks: Sequence[Tensor], draws: Sequence[Tensor] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(images (B, C, H, W), labels (B,)) of each chunk of indices, augmented by the chunk of draws beside it."""
        if self._held is not None:
            pixels, labels = self._held
            for chunk in chunks:
                at = chunk.to(self._device)
                yield pixels[at], labels[at]
            return
        images: Any = self._images
        keys: list[Any] = [chunk.tolist() for chunk in chunks]
        if self.augmented is not None and draws is not None:
            images = self.augmented
            keys = [list(zip(one, some.tolist(), strict=True)) for one, some in zip(keys, draws, strict=True)]
        pinned = self._device.type == "cuda"
        loader: Any = DataLoader(images, batch_sampler=keys, num_workers=self._workers, pin_memory=pinned)
        for batch, targets in loader:
            self._check(targets)
            yield batch.to(self._device, non_blocking=pinned), targets.to(self._device, non_blocking=pinned)

    def _check(self, labels: Tensor) -> None:
        if self._classes is not None:
            check_labels(int(labels.min()), int(labels.max()), self._classes)


def check_labels(low: int, high: int, classes: int) -> None:
    """Raise :class:`InputError` for a label the model has no output for."""
    if low < 0 or high >= classes:
        raise InputError(
            f"a label {high if high >= classes else low} for a model of {classes} classes",
            expected=f"labels from 0 to {classes - 1}",
            cure="build the model with num_classes=len(data.classes), or number the labels from 0",
        )
