"""Block-sparse attention, the fixed pattern of Child et al. 2019 (arXiv 1904.10509): the near past, some columns."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from deadweight.attention import flex
from deadweight.attention.base import Macs
from deadweight.attention.sdpa import Sdpa, fused_attention
from deadweight.errors import InputError


class BlockSparse(Sdpa):
    """A block of queries sees its own and the `local` − 1 blocks before, and every `stride`-th block: T²/stride time.

    Blocks are counted from the first token, so that decoding equals prefilling. Without the causal mask a block sees
    the blocks at a distance below `local` on both sides, and all columns. Only blocks that are seen are multiplied:
    one after another, or by PyTorch's compiled `flex_attention` where training in 16 bits on a GPU takes that.
    Cache: `keys` and `values` of all tokens, as in softmax attention, for a column may be any of them.
    """

    label: ClassVar[str] = "block-sparse attention"
    function: ClassVar[str] = ""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        block: int = 64,
        local: int = 4,
        stride: int = 4,
        rope: float | None = None,
        causal: bool = True,
        bias: bool = True,
    ) -> None:
        for name, value in (("block", block), ("local", local), ("stride", stride)):
            if value < 1:
                raise InputError(f"{name} {value}", expected=f"{name} ≥ 1", cure="see the defaults")
        super().__init__(dim, heads, rope=rope, causal=causal, bias=bias)
        self.block, self.local, self.stride = block, local, stride

    def seen(self, number: int, count: int) -> tuple[list[int], int, int]:
        """For block `number` of `count`: columns outside its neighbourhood, and the first and end of that."""
        first = max(0, number - self.local + 1)
        end = number + 1 if self.causal else min(count, number + self.local)
        columns = range(self.stride - 1, number if self.causal else count, self.stride)
        return [column for column in columns if not first <= column < end], first, end

    def attend(self, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
        queries, keys = q_BHTD.shape[2], k_BGSD.shape[2]
        if flex.fits(q_BHTD, k_BGSD):
            self.kernel = flex.KERNEL
            sees = flex.blocks(self.block, self.local, self.stride, self.causal)
            return flex.flex_attention(q_BHTD, k_BGSD, v_BGSD, sees)
        past, count, size = keys - queries, -(-keys // self.block), self.block
        found = []
        for number in range(past // size, count):
            columns, first, end = self.seen(number, count)
            rows = slice(max(number * size, past) - past, min((number + 1) * size, keys) - past)
            # the neighbourhood comes last, so that the queries are the last of the keys
            places = [slice(n * size, (n + 1) * size) for n in columns] + [slice(first * size, min(end * size, keys))]
            k, v = (torch.cat([x[:, :, place] for place in places], 2) for x in (k_BGSD, v_BGSD))
            y, kernel = fused_attention(q_BHTD[:, :, rows], k, v, causal=self.causal)
            found.append(y)
        self.kernel = f"blocks, {kernel}"
        return torch.cat(found, 2)

    def macs(self, batch: int, tokens: int) -> Macs:
        """The corner of a block above the diagonal is multiplied, unless the block sees nothing but itself."""
        size, count = self.block, -(-tokens // self.block)
        necessary = executed = 0
        for number in range(count):
            columns, first, end = self.seen(number, count)
            rows = min((number + 1) * size, tokens) - number * size
            keys = sum(min((n + 1) * size, tokens) - n * size for n in [*columns, *range(first, end)])
            above = rows * (rows - 1) // 2 if self.causal else 0
            necessary += rows * keys - above
            executed += rows * keys - (above if keys == rows else 0)
        a_pair = 2 * self.head_dim * self.heads * batch
        if self.kernel == flex.KERNEL:
            executed = necessary
        return Macs(necessary * a_pair, executed * a_pair)
