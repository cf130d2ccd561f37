"""Grouped-query attention (Ainslie et al. 2023) and, at one group, multi-query attention (Shazeer 2019)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from deadweight.attention.sdpa import Sdpa
from deadweight.errors import InputError

GROUPS = 4


def check_groups(heads: int, groups: int) -> None:
    """Refuse groups of keys and values that the heads cannot be dealt to evenly."""
    if groups < 1 or heads % groups:
        raise InputError(
            f"groups {groups} do not divide heads {heads}",
            expected="heads a multiple of groups",
            cure=f"try {', '.join(str(n) for n in range(1, heads + 1) if heads % n == 0)} groups",
        )


def pool_heads(weight: Tensor, heads: int, groups: int) -> Tensor:
    """Key or value weights (or biases) of `heads` heads averaged to `groups`: neighbours share (Ainslie et al., 2.1).

    First dimension ``heads · head_dim`` in, ``groups · head_dim`` out.
    """
    check_groups(heads, groups)
    apart = torch.unflatten(weight, 0, (groups, heads // groups, -1))
    return apart.mean(1).flatten(0, 1)


class GroupedQuery(Sdpa):
    """Query heads share `groups` heads of keys and values: T² time, a cache of groups/heads the size.

    Query head h reads group ``h // (heads // groups)``. `groups` is 4 by default, or the largest divisor of `heads`
    below.
    """

    label: ClassVar[str] = "grouped-query attention"
    function: ClassVar[str] = ""
    keeps_parameters: ClassVar[bool] = False

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        groups: int | None = None,
        rope: float | None = None,
        causal: bool = True,
        bias: bool = True,
    ) -> None:
        if groups is None:
            groups = max((n for n in range(1, GROUPS + 1) if heads % n == 0), default=1)
        check_groups(heads, groups)
        super().__init__(dim, heads, rope=rope, causal=causal, bias=bias, kv_heads=groups)


class MultiQuery(GroupedQuery):
    """All query heads share one head of keys and values: T² time, a cache of 1/heads the size."""

    label: ClassVar[str] = "multi-query attention"

    def __init__(
        self, dim: int, heads: int, *, rope: float | None = None, causal: bool = True, bias: bool = True
    ) -> None:
        super().__init__(dim, heads, groups=1, rope=rope, causal=causal, bias=bias)
