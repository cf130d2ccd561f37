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
TOGETHER = 6  # heads a product: more of them leave a processor's cache, fewer leave its threads without work


def blocked_pairs(tokens: int) -> int:
    """Query-key pairs one head multiplies, the waste on the diagonal included."""
    return sum(min(BLOCK, tokens - start) * min(start + BLOCK, tokens) for start in range(0, tokens, BLOCK))


class Heads:
    """A few heads' rotated and scaled queries, their keys beside the shared rotary ones, and their values.

    G heads at a time; `queries` and `keys` (G, T, E), `values` (G, T, D), and `buffer` for the scores of one block.
    """

    def __init__(self, q_BTHE: Tensor, kv_BTHF: Tensor, k_rope_BTR: Tensor, cos: Tensor, sin: Tensor) -> None:
        self.q, self.kv, self.k_rope = q_BTHE, kv_BTHF, k_rope_BTR
        self.cos, self.sin = cos.unsqueeze(1), sin.unsqueeze(1)
        _, self.tokens, heads, wide = q_BTHE.shape
        self.width, self.scale, together = kv_BTHF.shape[3] // 2, wide**-0.5, min(TOGETHER, heads)
        self.keys = q_BTHE.new_empty(together, self.tokens, wide)
        self.queries, self.values = torch.empty_like(self.keys), self.keys.new_empty(together, self.tokens, self.width)
        self.blocks = [(start, min(start + BLOCK, self.tokens)) for start in range(0, self.tokens, BLOCK)]
        self.buffer = q_BTHE.new_empty(together * min(BLOCK, self.tokens) * self.tokens)
        self.above = torch.ones(min(BLOCK, self.tokens), BLOCK, dtype=torch.bool, device=q_BTHE.device).triu_(1)

    def __iter__(self) -> Iterator[tuple[int, slice, Tensor, Tensor, Tensor]]:
        """Sequence, heads, and their queries, keys and values."""
        for row in range(self.q.shape[0]):
            self.keys[..., self.width :] = self.k_rope[row]
            for head in range(0, self.q.shape[2], TOGETHER):
                q_TGE, kv_TGF = self.q[row, :, head : head + TOGETHER], self.kv[row, :, head : head + TOGETHER]
                queries, keys, values = (x[: q_TGE.shape[1]] for x in (self.queries, self.keys, self.values))
                plain, turned = q_TGE[..., : self.width], turn(q_TGE[..., self.width :], self.cos, self.sin)
                torch.mul(plain.transpose(0, 1), self.scale, out=queries[..., : self.width])
                torch.mul(turned.transpose(0, 1), self.scale, out=queries[..., self.width :])
                keys[..., : self.width] = kv_TGF[..., : self.width].transpose(0, 1)
                values.copy_(kv_TGF[..., self.width :].transpose(0, 1))
                yield row, slice(head, head + TOGETHER), queries, keys, values

    def weights(self, q_GID: Tensor, k_GJD: Tensor) -> Tensor:
        """Softmax of the scores of a block of scaled queries, the last of the keys; in `buffer`."""
        scores = part(self.buffer, q_GID, k_GJD)
        torch.bmm(q_GID, k_GJD.transpose(1, 2), out=scores)
        rows, columns = scores.shape[1:]
        scores[..., columns - rows :].masked_fill_(self.above[:rows, :rows], -math.inf)
        return torch.softmax(scores, -1, out=scores)


def part(buffer: Tensor, q_GID: Tensor, k_GJD: Tensor) -> Tensor:
    """(G, I, J) of a flat tensor, contiguous."""
    shape = len(q_GID), q_GID.shape[1], k_GJD.shape[1]
    return buffer[: math.prod(shape)].view(shape)


class BlockedAttention(torch.autograd.Function):
    """softmax(QKᵀ/√(D + R)) V, causal, as the projections of latent attention lie: nothing is spread or joined.

    q_BTHE (E = D + R, the last R before rotation), kv_BTHF (F = 2 D: keys, then values), k_rope_BTR rotated, shared by
    the heads; `cos` and `sin` (T, R / 2) of the positions. Output (B, T, H, D).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, kv: Tensor, k_rope: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(q, kv, k_rope, cos, sin)
        work = Heads(q, kv, k_rope, cos, sin)
        y_BTHD = q.new_empty(*q.shape[:3], work.width)
        for row, heads, queries, keys, values in work:
            for start, end in work.blocks:
                weights = work.weights(queries[:, start:end], keys[:, :end])
                y_BTHD[row, start:end, heads] = torch.bmm(weights, values[:, :end]).transpose(0, 1)
        return y_BTHD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, kv, k_rope, cos, sin = ctx.saved_tensors
        work = Heads(q, kv, k_rope, cos, sin)
        width, slopes = work.width, torch.empty_like(work.buffer)
        dq, dkv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, kv))
        dk_rope = torch.zeros_like(k_rope)
        for row, heads, queries, keys, values in work:
            d_out = dy[row, :, heads].transpose(0, 1).contiguous()
            d_queries, d_keys, d_values = (torch.zeros_like(x) for x in (queries, keys, values))
            for start, end in work.blocks:
                block, d_block = queries[:, start:end], d_out[:, start:end]
                weights = work.weights(block, keys[:, :end])
                d_scores = torch.bmm(d_block, values[:, :end].transpose(1, 2), out=part(slopes, block, keys[:, :end]))
                torch._softmax_backward_data(d_scores, weights, -1, q.dtype, grad_input=d_scores)
                d_values[:, :end] += torch.bmm(weights.transpose(1, 2), d_block)
                d_keys[:, :end] += torch.bmm(d_scores.transpose(1, 2), block)
                d_queries[:, start:end] = torch.bmm(d_scores, keys[:, :end])
            d_q = d_queries.mul_(work.scale).transpose(0, 1)
            dq[row, :, heads, :width] = d_q[..., :width]
            dq[row, :, heads, width:] = turn(d_q[..., width:], work.cos, -work.sin)
            dkv[row, :, heads, :width] = d_keys[..., :width].transpose(0, 1)
            dkv[row, :, heads, width:] = d_values.transpose(0, 1)
            dk_rope[row] += d_keys[..., width:].sum(0)
        return dq, dkv, dk_rope, None, None
