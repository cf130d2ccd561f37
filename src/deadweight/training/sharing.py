"""Blocks that share weights, as the units FSDP2 must gather together."""

from __future__ import annotations

from torch import nn

from deadweight.anatomy import anatomy


def sharing_groups(model: nn.Module) -> list[list[nn.Module]]:
    """The blocks of `model` in groups: two are in one group when they share a parameter, directly or through others.

    Every block is in exactly one group, in the order they run. A group is what ``fully_shard`` takes as one unit:
    with each block its own unit, FSDP2 fails on a tensor that two units would both own.

    >>> from torch.distributed.fsdp import fully_shard  # doctest: +SKIP
    >>> for group in sharing_groups(model):             # doctest: +SKIP
    ...     fully_shard(group)
    >>> fully_shard(model)                              # doctest: +SKIP
    """
    blocks = [block.module for block in anatomy(model).blocks]
    group_of = list(range(len(blocks)))
    owner: dict[int, int] = {}
    for index, block in enumerate(blocks):
        for weight in block.parameters():
            first, mine = group_of[owner.setdefault(id(weight), index)], group_of[index]
            if first != mine:
                group_of = [min(first, mine) if group in (first, mine) else group for group in group_of]
    return [
        [block for block, group in zip(blocks, group_of, strict=True) if group == number]
        for number in sorted(set(group_of))
    ]
