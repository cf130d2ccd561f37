"""Calibration inputs: what a refit or a choice of units looks at. Labels are never used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.data.batches import check_loader, inputs_and_labels
from deadweight.errors import InputError


@dataclass(frozen=True)
class Inputs:
    """One batch as the model is called with it: positional tensors, or keywords."""

    args: tuple[Tensor, ...]
    kwargs: Mapping[str, Any]

    @property
    def items(self) -> int:
        """Images or sequences in the batch."""
        return int(self._tensors()[0].shape[0])

    @property
    def tokens(self) -> int:
        """Tokens in a batch of sequences; for images their pixels' squares of 16, which is near enough to budget by."""
        example = self._tensors()[0]
        return example.numel() if example.dim() == 2 else example[:, 0].numel() // 256

    @property
    def tokens_in(self) -> Tensor:
        """(B, T) the token ids of a batch of sequences."""
        found = self.kwargs.get("input_ids", self.args[0] if self.args else None)
        assert isinstance(found, Tensor)
        return found

    @property
    def mask(self) -> Tensor | None:
        """(B, T) which tokens count, where the inputs say so."""
        found = self.kwargs.get("attention_mask")
        return found if isinstance(found, Tensor) and found.dim() == 2 else None

    def first(self) -> Inputs:
        """The first item alone."""
        return self.take(slice(1))

    def take(self, which: slice | Sequence[int]) -> Inputs:
        """Some of the items."""
        size = self.items
        kwargs = {
            name: value[which] if isinstance(value, Tensor) and value.dim() and value.shape[0] == size else value
            for name, value in self.kwargs.items()
        }
        return Inputs(tuple(value[which] for value in self.args), kwargs)

    def joins(self, other: Inputs) -> bool:
        """Whether the items of `other` can be put beside these in one batch."""
        if self.kwargs.keys() != other.kwargs.keys() or len(self.args) != len(other.args):
            return False
        mine = [*self.args, *self.kwargs.values()]
        return all(
            one.shape[1:] == two.shape[1:] if isinstance(one, Tensor) and isinstance(two, Tensor) else one is two
            for one, two in zip(mine, [*other.args, *other.kwargs.values()], strict=True)
        )

    def joined(self, others: Sequence[Inputs]) -> Inputs:
        """One batch of these items and those of `others`."""
        if not others:
            return self
        size = self.items
        args = tuple(torch.cat(list(column)) for column in zip(self.args, *(o.args for o in others), strict=True))
        kwargs = {
            name: torch.cat([value, *(other.kwargs[name] for other in others)])
            if isinstance(value, Tensor) and value.dim() and value.shape[0] == size
            else value
            for name, value in self.kwargs.items()
        }
        return Inputs(args, kwargs)

    def call(self, model: nn.Module) -> Any:
        """Run `model` on the batch."""
        return model(*self.args, **self.kwargs)

    def _tensors(self) -> list[Tensor]:
        return [*self.args, *(value for value in self.kwargs.values() if isinstance(value, Tensor) and value.dim())]


def calibration(model: nn.Module, batches: Iterable[Any] | None, what: str) -> list[Inputs]:
    """`batches` ready to be run through `model`, as often as need be.

    Parameters
    ----------
    batches:
        Each a tensor, a dict of keyword inputs, or a tuple or list that starts with one of those; what follows
        (labels) is dropped.
    what:
        Who asks, for the error.

    Raises
    ------
    InputError
        No batches, a batch that holds no tensor, or a model on the meta device.
    """
    require_numbers(model, what)
    if batches is None:
        raise InputError(
            f"{what} without batches",
            expected="calibration inputs: batches=[images, …], no labels needed",
            cure="a few dozen images, or sequences with several times as many tokens as an MLP has units",
        )
    check_loader(batches, whole=True)
    if isinstance(batches, Tensor):
        batches = [batches]
    ready = [_ready(model, batch, number) for number, batch in enumerate(batches)]
    if not ready:
        raise InputError(f"{what} with no calibration inputs: batches is empty", expected="at least one batch")
    return ready


def require_numbers(model: nn.Module, what: str) -> None:
    """Refuse a model on the meta device, which has shapes and no weights to look at."""
    if any(parameter.is_meta for parameter in model.parameters()):
        raise InputError(
            f"{what} for a {type(model).__name__} on the meta device, which holds no numbers",
            expected="a model with its weights",
            cure="build it on the CPU; by='first' and merge='first' or 'mean' without a refit need shapes only",
        )


def _ready(model: nn.Module, batch: Any, number: int) -> Inputs:
    if isinstance(batch, Inputs):
        return batch
    given: Any = batch
    while isinstance(given, (tuple, list)) and given:
        given = given[0]
    if isinstance(given, Mapping):
        given, _ = inputs_and_labels(given)
    weight = next(model.parameters(), torch.empty(0))

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(weight.device, weight.dtype) if value.is_floating_point() else value.to(weight.device)

    extra = {"use_cache": False} if hasattr(getattr(model, "config", None), "use_cache") else {}
    if isinstance(given, Tensor):
        found = Inputs((moved(given),), extra)
    elif isinstance(given, Mapping):
        named = {str(name): moved(value) for name, value in given.items()}
        found = Inputs((), {**extra, **named})
    else:
        found = Inputs((), {})
    if not found._tensors() or not found.items:
        raise InputError(
            f"batch {number} is a {type(batch).__name__} without inputs",
            expected="a tensor, a dict of keyword inputs, or a tuple that starts with one",
        )
    return found


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """`models` in eval mode and without gradients; each module is left in the mode it was in."""
    training = [module for model in models for module in model.modules() if module.training]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
