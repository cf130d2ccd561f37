"""What a vision model answers on labelled images, and how a record keeps which answers were right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from deadweight.data import ImageSet
from deadweight.data.classes import HeadNames, outputs_of
from deadweight.evaluation.outputs import logits_of
from deadweight.models.head_names import head_names
from deadweight.statistics import rate

Batch = tuple[Tensor, list[int]]


def batches(images: ImageSet, size: int) -> Iterator[Batch]:
    """(images, labels) in the order of the set."""
    for start in range(0, len(images), size):
        pairs = [images[index] for index in range(start, min(start + size, len(images)))]
        yield torch.stack([image for image, _ in pairs]), [label for _, label in pairs]


def predictions(model: nn.Module, images: ImageSet, size: int) -> tuple[Tensor, list[int]]:
    """(N, classes) float32 logits on the CPU, and the labels."""
    weight = next(model.parameters())
    logits, labels = [], []
    with torch.inference_mode():
        for inputs, truth in batches(images, size):
            logits.append(logits_of(model(inputs.to(weight.device, weight.dtype))).float().cpu())
            labels += truth
    return torch.cat(logits), labels


@dataclass(frozen=True)
class ReferencePredictions:
    """What a model's answers are held against before and after something is removed from it.

    measure: ``accuracy``, against the labels, or ``agreement``, against the intact model's own predictions, where its
             images are said to have other classes than its head tells apart.
    truth:   (N,) the answers that count as right.
    right:   (N,) whether the intact model gives them.
    works:   whether it gives them more often than naming the commonest class would; where it does not, nothing it
             loses can be seen, and there are no verdicts.
    notes:   what a reader must be told about that.
    """

    measure: str
    truth: Tensor
    right: Tensor
    works: bool
    notes: tuple[str, ...]


def reference_predictions(
    model: nn.Module, images: ImageSet, classes: Sequence[str], size: int
) -> ReferencePredictions:
    """Answer `images`, `size` at a time, with the intact model, and say what counts as right."""
    logits, labels = predictions(model, images, size)
    answers = logits.argmax(1)
    matched = label_places(model, classes, logits.shape[1])
    if matched is None:
        note = (
            f"the head tells {logits.shape[1]} classes apart and the images come in {len(classes)} others: "
            "what is judged is how many of the intact model's predictions change"
        )
        return ReferencePredictions("agreement", answers, torch.ones_like(answers, dtype=torch.bool), True, (note,))
    places, matching = matched
    truth = torch.tensor([places[label] for label in labels])
    right = answers == truth
    works = beats(int(right.sum()), int(torch.bincount(truth).max()), len(labels))
    note = (
        "the intact model is right no more often than the commonest class alone would be, so nothing it loses can be "
        "seen: there are no verdicts"
    )
    notes = tuple(text for text in (matching, "" if works else note) if text)
    return ReferencePredictions("accuracy", truth, right, works, notes)


def beats(right: int, commonest: int, items: int) -> bool:
    """Whether `right` of `items` is more than always naming the commonest class would give, doubt allowed for."""
    found = rate([1] * right + [0] * (items - right))
    return found.low is not None and found.low > commonest / items


def label_places(model: nn.Module, classes: Sequence[str], outputs: int) -> tuple[list[int], str] | None:
    """Which output stands for each class, and what a reader must know of how they were matched.

    None for classes that are said not to be the head's (``?classes=none``); raises :class:`InputError` for others that
    are not (`deadweight.data.classes.outputs_of`).
    """
    if getattr(classes, "order", "") == "other":
        return None
    return outputs_of(classes, HeadNames(*(head_names(model, outputs) or (((),) * outputs, False))))


def stratified_subset(images: ImageSet, count: int, seed: int, *, leave_out: Sequence[int] = ()) -> list[int]:
    """Positions of `count` images, drawn by `seed` from all classes in turn; fewer where there are no more.

    Labels are read from the set where it keeps them, so that no picture has to be opened for its class; a set that
    keeps none is drawn from as a whole.

    leave_out: positions that are not to be drawn, such as those another subset has.
    """
    order = [int(at) for at in np.random.default_rng(seed).permutation(len(images))]
    taken = set(leave_out)
    labels = labels_of(images)
    seen: dict[int, int] = {}
    turns: list[tuple[int, int]] = []
    for at in order:
        if at not in taken:
            label = 0 if labels is None else labels[at]
            turns.append((seen.setdefault(label, 0), at))
            seen[label] += 1
    return [at for _, at in sorted(turns, key=lambda turn: turn[0])[:count]]


def labels_of(images: ImageSet) -> list[int] | None:
    """The label of each image where the set keeps them apart from the pictures; None where it does not."""
    labels, indices = getattr(images, "labels", None), getattr(images, "indices", None)
    if labels is None or indices is None:
        return None
    return [int(labels[at]) for at in indices]


def to_bits(right: Tensor) -> str:
    """One character an item, in the order of the set: a record stays small and can be read."""
    return "".join("1" if value else "0" for value in right.tolist())


def from_bits(text: str) -> list[int]:
    """1 for every item answered right, 0 for the others: what :func:`to_bits` wrote."""
    return [int(bit) for bit in text]
