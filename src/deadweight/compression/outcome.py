"""What a model does with inputs, item by item, and how far another does the same. Labels are never used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deadweight.anatomy import anatomy
from deadweight.surgery.calibration import Inputs


@dataclass(frozen=True)
class Answer:
    """Of one batch: what the head reads (B, …), and the logits, None for a model without a head."""

    features: Tensor
    logits: Tensor | None


@dataclass
class Outcomes:
    """Values by measure, one per item, in the order of the items.

    ``cosine``      of the final feature with the original's (vision);
    ``agreement``   share of predictions that are the original's: the class, or the next token;
    ``loss``        nats per token on the text itself, and
    ``divergence``  Kullback-Leibler divergence from the original's distribution, nats per token (causal models).
    """

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **found: Tensor) -> None:
        for name, value in found.items():
            self.values.setdefault(name, []).extend(value.double().flatten().tolist())

    def extend(self, other: Outcomes) -> None:
        """Put the items of `other` after these."""
        for name, values in other.values.items():
            self.values.setdefault(name, []).extend(values)

    def mean(self, name: str) -> float:
        return sum(self.values[name]) / len(self.values[name])

    @property
    def divergence(self) -> float:
        """What a search minimises: the mean divergence, or 1 − the mean cosine."""
        return self.mean("divergence") if "divergence" in self.values else 1 - self.mean("cosine")


class Evaluator:
    """The original's answers to some inputs, to hold others' against."""

    def __init__(self, model: nn.Module, inputs: Sequence[Inputs]) -> None:
        self.model, self.inputs = model, list(inputs)
        self.causal = anatomy(model).kind == "causal_lm"
        self.answers: list[Answer] = []
        self.own = Outcomes()
        for batch in self.inputs:
            answer = answered(model, lambda batch=batch: batch.call(model))  # type: ignore[misc]
            if self.causal and answer.logits is not None:
                self.own.add(loss=_losses(answer.logits, batch))
            self.answers.append(self._kept(answer))

    def evaluate(self, model: nn.Module, run: Callable[[int], Any] | None = None) -> Outcomes:
        """How `model` does on the same inputs; `run(number)` answers a batch some other way than by calling it."""
        found = Outcomes()
        for number, batch in enumerate(self.inputs):
            answer = answered(model, (lambda: run(number)) if run else (lambda: batch.call(model)))  # noqa: B023
            self._compare(found, self.answers[number], answer, batch)
        return found

    def _kept(self, answer: Answer) -> Answer:
        """A vocabulary of logits is not kept where the head makes it again."""
        return Answer(answer.features, None) if self.causal and answer.logits is not None else answer

    def _compare(self, found: Outcomes, own: Answer, other: Answer, batch: Inputs) -> None:
        if not self.causal or other.logits is None:
            found.add(cosine=F.cosine_similarity(own.features.flatten(1).float(), other.features.flatten(1).float()))
            if own.logits is not None and other.logits is not None and own.logits.shape[-1] > 1:
                found.add(agreement=own.logits.argmax(-1) == other.logits.argmax(-1))
            return
        head: Any = anatomy(self.model).head
        mask = batch.mask
        for place in range(batch.items):  # an item at a time: a vocabulary wide
            seen = slice(None) if mask is None else mask[place].bool()
            before = F.log_softmax(head(own.features[place : place + 1])[0][seen].float(), dim=-1)
            after = F.log_softmax(head(other.features[place : place + 1])[0][seen].float(), dim=-1)
            found.add(
                divergence=F.kl_div(after, before, log_target=True, reduction="sum") / len(before),
                agreement=(before.argmax(-1) == after.argmax(-1)).double().mean(),
            )
        found.add(loss=_losses(other.logits, batch))


def answered(model: nn.Module, run: Callable[[], Any]) -> Answer:
    """What the head reads, and the logits, of whatever call `run` makes; gradients, where they are on, flow."""
    parts = anatomy(model)
    read: list[Tensor] = []
    handle = None
    if parts.head is not None:
        handle = parts.head.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    try:
        output = run()
    finally:
        if handle is not None:
            handle.remove()
    logits = _tensor(output)
    headless = parts.head is None or isinstance(parts.head, nn.Identity)
    return Answer(read[-1] if read else logits, None if headless else logits)


def _tensor(output: Any) -> Tensor:
    """The logits, or whatever comes first, in what a model returns."""
    for name in ("logits", "pooler_output", "last_hidden_state"):
        found = getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    while isinstance(output, (tuple, list)):
        output = output[0]
    assert isinstance(output, Tensor)
    return output


def _losses(logits: Tensor, batch: Inputs) -> Tensor:
    """(B,) mean nats per predicted token, padding left out."""
    tokens = batch.tokens_in
    losses = torch.stack(
        [F.cross_entropy(row[:-1].float(), ids[1:], reduction="none") for row, ids in zip(logits, tokens, strict=True)]
    )
    mask = torch.ones_like(losses) if batch.mask is None else batch.mask[:, 1:].to(losses)
    return (losses * mask).sum(1) / mask.sum(1).clamp_min(1)
