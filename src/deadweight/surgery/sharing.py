"""Blocks that share attention, or everything: the weights become one, the modules around them stay each block's own.

An attention module may know its place (transformers' ``layer_idx`` says where its keys and values are cached), and a
block its own drop-path; so what is shared are the layers that hold weights, not what holds the layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from deadweight.anatomy import Block
from deadweight.errors import InputError, SurgeryError
from deadweight.registry import did_you_mean

PARTS = ("mlp", "attention", "block")


def parts_of(parts: str | Sequence[str]) -> tuple[str, ...]:
    """The parts that are to be shared, checked; ``block`` is everything a block holds."""
    given = (parts,) if isinstance(parts, str) else tuple(parts)
    for part in given:
        if part not in PARTS:
            raise InputError(
                f"unknown part {part!r}", expected=f"among {', '.join(PARTS)}", cure=did_you_mean(part, list(PARTS))
            )
    if not given:
        raise InputError("no parts to share", expected=f"among {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in given)


def check_sharable(group: Sequence[Block], part: str) -> None:
    """Refuse blocks whose `part` differs in kind or shape, naming them."""
    first = group[0]
    for block in group:
        mine, other = _held(block, part), _held(first, part)
        if mine is None or other is None:
            raise SurgeryError(f"block {block.index} ({block.path}) has no {part} that could be shared")
        if _shapes(mine) != _shapes(other) or type(mine) is not type(other):
            raise SurgeryError(
                f"blocks {first.index} and {block.index} cannot share their {part}: {_difference(other, mine)}",
                expected="the same kind and shapes in every group",
                cure="give groups that are alike, for example pattern=[[0, 1], [2, 3]]",
            )


def share_weights(group: Sequence[Block], part: str, merge: str) -> None:
    """Let every block of `group` use the first one's weights in its `part` (``mean``: the average of all)."""
    held = [module for block in group if (module := _held(block, part)) is not None]
    if merge == "mean":
        _average(held)
    for module in held[1:]:
        _adopt(module, held[0])


def shares(one: Block, two: Block, part: str) -> bool:
    """Whether two blocks use the same weights in their `part`."""
    first, second = _held(one, part), _held(two, part)
    if first is None or second is None:
        return False
    mine = [id(p) for p in first.parameters()]
    return bool(mine) and mine == [id(p) for p in second.parameters()]


def _held(block: Block, part: str) -> nn.Module | None:
    return block.module if part == "block" else block.attention


def _adopt(module: nn.Module, source: nn.Module) -> None:
    """Every layer of `module` that holds weights is replaced by that of `source`; what holds nothing is left."""
    for name, own in list(module._parameters.items()):
        if own is not None:
            module._parameters[name] = source._parameters[name]
    for name, child in list(module.named_children()):
        theirs = getattr(source, name)
        if next(child.parameters(), None) is None:
            continue
        if next(child.children(), None) is None and not hasattr(child, "layer_idx"):
            setattr(module, name, theirs)
        else:
            _adopt(child, theirs)


@torch.no_grad()
def _average(modules: Sequence[nn.Module]) -> None:
    for parameters in zip(*(module.parameters() for module in modules), strict=True):
        distinct = {id(p): p for p in parameters}
        mean = torch.stack([p.double() for p in distinct.values()]).mean(0)
        parameters[0].copy_(mean)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.named_parameters(remove_duplicate=False)}


def _difference(one: nn.Module, two: nn.Module) -> str:
    if type(one) is not type(two):
        return f"{type(one).__name__} and {type(two).__name__}"
    first, second = _shapes(one), _shapes(two)
    name = next(n for n in [*first, *second] if first.get(n) != second.get(n))
    return f"{name} is {first.get(name)} and {second.get(name)}"
