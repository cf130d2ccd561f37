"""Training images for refits, choices and readouts: drawn over all classes by seed, no image for two purposes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deadweight.data import ImageSet
from deadweight.evaluation import logits_of, predictions, stratified_subset, to_bits

CALIBRATION, SELECTION, FITTING = 128, 256, 4096  # images


def drawn(images: ImageSet, counts: Sequence[int], seed: int, size: int = 32) -> list[list[tuple[Tensor, Tensor]]]:
    """One list of batches (images, labels) for each of `counts`, without overlap while there are enough images.

    Of a set too small for all, later ones take again what earlier ones had.
    """
    taken: list[int] = []
    found = []
    for count in counts:
        chosen = stratified_subset(images, count, seed, leave_out=taken) or stratified_subset(images, count, seed)
        taken += chosen
        found.append(_batches(images, chosen, size))
    return found


def _batches(images: ImageSet, chosen: Sequence[int], size: int) -> list[tuple[Tensor, Tensor]]:
    pairs = [images[at] for at in chosen]
    return [
        (torch.stack([image for image, _ in some]), torch.tensor([label for _, label in some]))
        for some in (pairs[start : start + size] for start in range(0, len(pairs), size))
    ]


def logits_on(model: nn.Module, pictures: Tensor) -> Tensor:
    """(B, classes) float32 on the CPU."""
    weight = next(model.parameters())
    with torch.inference_mode():
        return logits_of(model(pictures.to(weight.device, weight.dtype))).float().cpu()


def right_answers(model: nn.Module, images: ImageSet, size: int, truth: Tensor) -> str:
    """Bits: whether each image is answered as `truth` says."""
    return to_bits(predictions(model, images, size)[0].argmax(1) == truth)


def divergence(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Mean Kullback-Leibler divergence of the answers after from those before, in nats per image.

    >>> divergence([torch.zeros(2, 3)], [torch.zeros(2, 3)])
    0.0
    """
    one, two = (torch.cat(list(logits)).double().log_softmax(1) for logits in (before, after))
    return float((one.exp() * (one - two)).sum(1).mean())


__all__ = ["CALIBRATION", "FITTING", "SELECTION", "divergence", "drawn", "logits_on", "right_answers"]
