"""How a classifier does on held-out images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.evaluation import logits_of
from deadweight.training.feed import Feed, chunked


@dataclass(frozen=True)
class Scores:
    """Per held-out image, in the data's order: the class predicted, its rightness, the label among five, −log p."""

    predicted: Tensor
    correct: Tensor
    among_five: Tensor
    losses: Tensor

    @property
    def top1(self) -> float:
        return float(self.correct.double().mean())

    @property
    def top5(self) -> float:
        return float(self.among_five.double().mean())

    @property
    def loss(self) -> float:
        """Cross-entropy in nats per image."""
        return float(self.losses.double().mean())


@torch.inference_mode()
def evaluate(model: nn.Module, feed: Feed, *, batch_size: int = 512, accelerator: Any = None) -> Scores:
    """Score `model` in eval mode; it is left in the mode it was in.

    With an ``Accelerator`` of several processes each scores its share, and all get the scores of all images.
    """
    was = model.training
    model.eval()
    processes, rank = (1, 0) if accelerator is None else (accelerator.num_processes, accelerator.process_index)
    each = -(-len(feed) // processes)
    mine = torch.arange(rank * each, (rank + 1) * each).clamp(max=len(feed) - 1)  # the last one's share may be padded
    parts: list[tuple[Tensor, ...]] = []
    batches: Iterable[tuple[Tensor, Tensor]] = feed.batches(chunked(mine, batch_size))
    for images, labels in batches:
        logits_BC = logits_of(model(images)).float()
        best = logits_BC.topk(min(5, logits_BC.shape[1]), dim=1).indices
        hits = best == labels[:, None]
        losses = nn.functional.cross_entropy(logits_BC, labels, reduction="none")
        parts.append((best[:, 0], hits[:, 0], hits.any(dim=1), losses))
    model.train(was)
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    if processes > 1:
        columns = [accelerator.gather(column) for column in columns]
    predicted, correct, among_five, losses = (column[: len(feed)].cpu() for column in columns)
    return Scores(predicted, correct, among_five, losses)
