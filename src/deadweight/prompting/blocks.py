"""The attention of a pack, a block of queries at a time, each with the keys it sees and no others.

Most of a pack's mask is hidden: an item sees the demonstrations and itself, never its neighbours. A single call with
the whole mask computes what it then hides; blocks leave it out. transformers lets an attention function be named in
the configuration, so the model's own code runs and asks ours for the one operation that differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deadweight.prompting.plain import device_of
from deadweight.prompting.trie import Ints, Trie

NAME = "deadweight_blocks"
# Shorter blocks see fewer foreign keys and feed the matrix units worse.
BLOCK = 128


@dataclass(frozen=True)
class Block:
    """Queries ``first:stop`` of a pack.

    keys:   where in the pack's keys those lie that any of the queries sees: a slice, or positions [keys].
    mask:   additive, [queries, keys].
    """

    first: int
    stop: int
    keys: slice | Tensor
    mask: Tensor


def blocks_of(trie: Trie, queries: Ints, keys: Ints, window: int | None, dtype: torch.dtype) -> list[Block]:
    """Cut a pack into blocks: `queries` are consecutive nodes, `keys` the kept path and the queries, ascending."""
    made = []
    for first in range(0, len(queries), BLOCK):
        part = queries[first : first + BLOCK]
        near = np.flatnonzero((keys <= part[-1]) & (trie.end[keys] > part[0]))
        seen = trie.visible(part, keys[near], window)
        used = seen.any(axis=0)
        hidden = torch.from_numpy(~seen[:, used])
        mask_QK = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, torch.finfo(dtype).min)
        made.append(Block(first, first + len(part), _where(near[used]), mask_QK))
    return made


def _where(positions: Ints) -> slice | Tensor:
    """A slice, which copies nothing, wherever the positions are a run."""
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first + 1 == len(positions) else torch.from_numpy(positions)


# The blocks of the pass under way, by the address of the mask that stands for them.
_Plans = dict[int, tuple[Tensor, list[Block]]]
_under_way: ContextVar[_Plans | None] = ContextVar("blocks under way", default=None)


def stand_in(blocks: Sequence[Block], queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """A mask [1, 1, queries, keys] that takes one number of memory; :func:`attend` finds `blocks` by it."""
    mask = torch.zeros(1, dtype=dtype)
    plans = _under_way.get()
    assert plans is not None, "only inside attending()"
    plans[mask.data_ptr()] = (mask, list(blocks))  # held, so that no other tensor gets its address
    return mask.expand(1, 1, queries, keys)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention over the blocks that `attention_mask` stands for, as transformers calls it.

    query [1, heads, Q, d], key and value [1, KV heads, K, d] -> [1, Q, heads, d].

    Raises :class:`RuntimeError` where it cannot do what the layer asks: the scorer then uses the whole mask.
    """
    plans = _under_way.get()
    plan = plans.get(attention_mask.data_ptr()) if plans and attention_mask is not None else None
    asked = [name for name in ("position_bias", "softcap", "s_aux") if kwargs.get(name) is not None]
    if plan is None or asked or dropout:
        raise RuntimeError(
            f"{type(module).__name__} does not pass the mask on, or wants {asked or 'another attention'}"
        )
    grouped = query.shape[1] != key.shape[1]
    out_QHD = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for block in plan[1]:
        if isinstance(block.keys, slice):
            own_key, own_value = key[:, :, block.keys], value[:, :, block.keys]
        else:
            own_key, own_value = key.index_select(2, block.keys), value.index_select(2, block.keys)
        found = F.scaled_dot_product_attention(
            query[:, :, block.first : block.stop], own_key, own_value, attn_mask=block.mask[None, None],
            scale=scaling, enable_gqa=grouped,
        )  # fmt: skip
        out_QHD[:, block.first : block.stop] = found.transpose(1, 2)
    return out_QHD, None


def can_attend(model: Any) -> bool:
    """Whether the model uses PyTorch's attention on a CPU, where blocks pay; other kernels keep the whole mask."""
    on_cpu = device_of(model).type == "cpu"
    return on_cpu and getattr(model.config, "_attn_implementation", None) == "sdpa"


def forget() -> None:
    """Let go of the blocks of a pass that is over."""
    (_under_way.get() or {}).clear()


@contextmanager
def attending(model: Any) -> Iterator[None]:
    """Let `model` attend in blocks, and put back what it used before."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    was = model.config._attn_implementation
    token = _under_way.set({})
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = was
        _under_way.reset(token)
