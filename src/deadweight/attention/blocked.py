"""Latent attention's exact causal softmax by blocks of queries, for keys wider than values.

PyTorch's fused kernel wants them equally wide; padding the values costs a third of its work in latent attention, and on
a CPU its backward pass runs far below the speed of the matrix product. Here a block of queries meets all keys up to its
last; the scores of one block stand in memory at a time and are made again on the way back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deadweight.attention.rotary import turn

BLOCK = 128  # queries a block: the square on the diagonal is half waste, smaller products are slower


def blocked_pairs(tokens: int) -> int:
    """Query-key pairs one head multiplies, the waste on the diagonal included."""
    return sum(min(BLOCK, tokens - start) * min(start + BLOCK, tokens) for start in range(0, tokens, BLOCK))


def _weights(q_ID: Tensor, k_JD: Tensor, out: Tensor) -> Tensor:
    """Softmax of the scores of a block of scaled queries, the last of the keys, in a part of `out`."""
    scores = out[: len(q_ID) * len(k_JD)].view(len(q_ID), len(k_JD))
    torch.mm(q_ID, k_JD.T, out=scores)
    diagonal = scores[:, len(k_JD) - len(q_ID) :]
    above = torch.ones(diagonal.shape, dtype=torch.bool, device=out.device).triu_(1)
    diagonal.masked_fill_(above, -math.inf)
    return torch.softmax(scores, -1, out=scores)


class Heads:
    """One head's rotated and scaled queries, its keys beside the shared rotary ones, and its values, contiguous."""

    def __init__(self, q_BTHE: Tensor, kv_BTHF: Tensor, k_rope_BTR: Tensor, cos: Tensor, sin: Tensor) -> None:
        self.q, self.kv, self.k_rope, self.cos, self.sin = q_BTHE, kv_BTHF, k_rope_BTR, cos, sin
        _, self.tokens, _, self.wide = q_BTHE.shape
        self.width, self.scale = kv_BTHF.shape[3] // 2, self.wide**-0.5
        self.keys = q_BTHE.new_empty(self.tokens, self.wide)
        self.queries, self.values = torch.empty_like(self.keys), q_BTHE.new_empty(self.tokens, self.width)
        self.blocks = [(start, min(start + BLOCK, self.tokens)) for start in range(0, self.tokens, BLOCK)]
        self.room = q_BTHE.new_empty(min(BLOCK, self.tokens) * self.tokens)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Sequence and head, the three tensors filled for it."""
        for row in range(self.q.shape[0]):
            self.keys[:, self.width :] = self.k_rope[row]
            for head in range(self.q.shape[2]):
                q, kv = self.q[row, :, head], self.kv[row, :, head]
                torch.mul(q[:, : self.width], self.scale, out=self.queries[:, : self.width])
                self.queries[:, self.width :] = turn(q[:, self.width :], self.cos, self.sin).mul_(self.scale)
                self.keys[:, : self.width] = kv[:, : self.width]
                self.values.copy_(kv[:, self.width :])
                yield row, head


class BlockedAttention(torch.autograd.Function):
    """softmax(QKᵀ/√(D + R)) V, causal, as the projections of latent attention lie: nothing is spread or joined.

    q_BTHE (E = D + R, the last R before rotation), kv_BTHF (F = 2 D: keys, then values), k_rope_BTR rotated, shared by
    the heads; `cos` and `sin` (T, R / 2) of the positions. Output (B, T, H, D).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, kv: Tensor, k_rope: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(q, kv, k_rope, cos, sin)
        heads = Heads(q, kv, k_rope, cos, sin)
        y_BTHD = q.new_empty(*q.shape[:3], heads.width)
        found = torch.empty_like(heads.values)
        for row, head in heads:
            for start, end in heads.blocks:
                weights = _weights(heads.queries[start:end], heads.keys[:end], heads.room)
                torch.mm(weights, heads.values[:end], out=found[start:end])
            y_BTHD[row, :, head] = found
        return y_BTHD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, kv, k_rope, cos, sin = ctx.saved_tensors
        heads = Heads(q, kv, k_rope, cos, sin)
        width, queries, keys, values = heads.width, heads.queries, heads.keys, heads.values
        dq, dkv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, kv))
        dk_rope, slopes = torch.zeros_like(k_rope), torch.empty_like(heads.room)
        d_queries, d_keys, d_values, d_out = (torch.empty_like(x) for x in (queries, keys, values, values))
        for row, head in heads:
            d_out.copy_(dy[row, :, head])
            d_keys.zero_()
            d_values.zero_()
            for start, end in heads.blocks:
                weights = _weights(queries[start:end], keys[:end], heads.room)
                d_scores = torch.mm(d_out[start:end], values[:end].T, out=slopes[: weights.numel()].view_as(weights))
                torch._softmax_backward_data(d_scores, weights, -1, q.dtype, grad_input=d_scores)
                d_values[:end].addmm_(weights.T, d_out[start:end])
                d_keys[:end].addmm_(d_scores.T, queries[start:end])
                torch.mm(d_scores, keys[:end], out=d_queries[start:end])
            d_queries.mul_(heads.scale)
            dq[row, :, head, :width] = d_queries[:, :width]
            dq[row, :, head, width:] = turn(d_queries[:, width:], cos, -sin)
            dkv[row, :, head, :width] = d_keys[:, :width]
            dkv[row, :, head, width:] = d_values
            dk_rope[row] += d_keys[:, width:]
        return dq, dkv, dk_rope, None, None
