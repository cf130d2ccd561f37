"""How a classifier does on held-out images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deadweight.training.feed import Feed, chunked


@dataclass(frozen=True)
class Scores:
    """Per held-out image, in the order of the data: the predicted class, its rightness, the label among five."""

    predicted: Tensor
    correct: Tensor
    among_five: Tensor

    @property
    def top1(self) -> float:
        return float(self.correct.double().mean())

    @property
    def top5(self) -> float:
        return float(self.among_five.double().mean())


def logits_of(output: object) -> Tensor:
    """The logits in what a classifier returns: a tensor, or Hugging Face's output object."""
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(found, Tensor):
        raise TypeError(f"a classifier returned {type(output).__name__}, expected logits")
    return found


@torch.inference_mode()
def evaluate(model: nn.Module, feed: Feed, *, batch_size: int = 512) -> Scores:
    """Score `model` in eval mode; it is left in the mode it was in."""
    was = model.training
    model.eval()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    batches: Iterable[tuple[Tensor, Tensor]] = feed.batches(chunked(torch.arange(len(feed)), batch_size))
    for images, labels in batches:
        logits_BC = logits_of(model(images))
        best = logits_BC.topk(min(5, logits_BC.shape[1]), dim=1).indices
        hits = best == labels[:, None]
        parts.append((best[:, 0], hits[:, 0], hits.any(dim=1)))
    model.train(was)
    predicted, correct, among_five = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    return Scores(predicted, correct, among_five)
