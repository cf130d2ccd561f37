"""Ordinary forward passes: what every causal model takes, and the judge of what is done faster.

Sequences of one length share a pass, without padding, so that a model reads nothing that is not its own: no mask, no
positions, no state of a longer neighbour.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from deadweight.prompting.encoding import Query

LARGEST_BATCH = 64
Answer = tuple[int, Sequence[int]]  # where a prediction is read first, and the tokens that should follow


def batched_log_probs(
    model: Any, queries: Sequence[Query], row_bytes: int, budget: int, best: list[Tensor] | None = None
) -> list[Tensor]:
    """The log-probabilities of each query's answer, float32 on the CPU; each distinct sequence is computed once.

    Parameters
    ----------
    row_bytes, budget:
        What one token of a pass takes, and what a pass may.
    best:
        Where given, a list that is filled with bool tensors: whether each token is the likeliest one.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, query in enumerate(queries):
        groups.setdefault(query.tokens[:-1], []).append(number)
    scores = [torch.empty(0)] * len(queries)
    marks = [torch.empty(0, dtype=torch.bool)] * len(queries)
    # Shortest first: rotary frequencies that grow with the longest call so far are then those of each length.
    for sequences in _batches(sorted(groups, key=len), row_bytes, budget):
        answers = [
            [(queries[one].start - 1, queries[one].tokens[queries[one].start :]) for one in groups[tokens]]
            for tokens in sequences
        ]
        for tokens, found in zip(sequences, plain_log_probs(model, sequences, answers), strict=True):
            for one, (score, mark) in zip(groups[tokens], found, strict=True):
                scores[one], marks[one] = score, mark
    if best is not None:
        best.extend(marks)
    return scores


def _batches(ordered: Sequence[tuple[int, ...]], row_bytes: int, budget: int) -> Iterator[list[tuple[int, ...]]]:
    for length, group in groupby(ordered, key=len):
        same = list(group)
        rows = max(1, min(LARGEST_BATCH, budget // max(1, row_bytes * length)))
        for first in range(0, len(same), rows):
            yield same[first : first + rows]


def plain_log_probs(
    model: Any, sequences: Sequence[Sequence[int]], answers: Sequence[Sequence[Answer]]
) -> list[list[tuple[Tensor, Tensor]]]:
    """One ordinary pass over sequences of one length.

    For each (start, targets) of a sequence's answers: the log-probabilities of the targets after positions start,
    start + 1, …, and whether each is the likeliest token of all.
    """
    taken = inspect.signature(model.forward).parameters
    first = min(start for asked in answers for start, _ in asked)
    length = len(sequences[0])
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in taken else {}
    if "logits_to_keep" in taken:
        options["logits_to_keep"] = length - first
    ids = torch.tensor([list(one) for one in sequences], device=device_of(model))
    logits_BTV = model(input_ids=ids, **options).logits[:, first - length :].float()
    found = []
    for logits_TV, asked in zip(logits_BTV, answers, strict=True):
        log_probs_TV = torch.log_softmax(logits_TV, dim=-1)
        row = []
        for start, targets in asked:
            rows = torch.arange(start - first, start - first + len(targets), device=logits_TV.device)
            wanted = torch.tensor(list(targets), device=logits_TV.device)
            row.append((log_probs_TV[rows, wanted].cpu(), (logits_TV[rows].argmax(dim=-1) == wanted).cpu()))
        found.append(row)
    return found


def begin_anew(model: Any) -> None:
    """One token alone: what a model remembers of the longest call so far is forgotten in a short one."""
    model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device_of(model)))


def device_of(model: Any) -> torch.device:
    """Where tokens go in."""
    return input_weight(model).device


def input_weight(model: Any) -> Tensor:
    """The embeddings of a model's tokens, or its first parameter where it keeps them in no usual place."""
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):
        weight = next(model.parameters())
    assert isinstance(weight, Tensor)
    return weight
