"""Exact causal attention by blocks of queries, for keys and values of different widths.

PyTorch's fused kernel wants them equally wide; padding the values costs a third of its work in latent attention, and on
a CPU its backward pass runs far below the speed of the matrix product. Here a block of queries meets all keys up to its
last; the scores of one block stand in memory at a time and are made again on the way back.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 256  # queries a block: the square on the diagonal is half waste, smaller products are slower


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


class BlockedAttention(torch.autograd.Function):
    """softmax(scale · QKᵀ) V, causal; q and k (B, H, T, D), v (B, H, T, E)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.scale, tokens = scale, q.shape[2]
        y = q.new_empty(*q.shape[:3], v.shape[3])
        room = q.new_empty(min(BLOCK, tokens) * tokens)
        for q_TD, k_TD, v_TE, y_TE in zip(*(x.flatten(0, 1).unbind() for x in (q, k, v, y)), strict=True):
            q_TD, k_TD, v_TE = q_TD * scale, k_TD.contiguous(), v_TE.contiguous()
            for start in range(0, tokens, BLOCK):
                end = min(start + BLOCK, tokens)
                weights = _weights(q_TD[start:end], k_TD[:end], room)
                torch.mm(weights, v_TE[:end], out=y_TE[start:end])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        tokens = q.shape[2]
        dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
        room = q.new_empty(min(BLOCK, tokens) * tokens)
        slopes = torch.empty_like(room)
        heads = (x.flatten(0, 1).unbind() for x in (q, k, v, dy, dq, dk, dv))
        for q_TD, k_TD, v_TE, dy_TE, dq_TD, dk_TD, dv_TE in zip(*heads, strict=True):
            q_TD, k_TD, v_TE, dy_TE = q_TD * ctx.scale, k_TD.contiguous(), v_TE.contiguous(), dy_TE.contiguous()
            dk_TD.zero_()
            dv_TE.zero_()
            for start in range(0, tokens, BLOCK):
                end = min(start + BLOCK, tokens)
                weights = _weights(q_TD[start:end], k_TD[:end], room)
                d_scores = torch.mm(dy_TE[start:end], v_TE[:end].T, out=slopes[: weights.numel()].view_as(weights))
                torch._softmax_backward_data(d_scores, weights, -1, q.dtype, grad_input=d_scores)
                dv_TE[:end].addmm_(weights.T, dy_TE[start:end])
                dk_TD[:end].addmm_(d_scores.T, q_TD[start:end])
                torch.mm(d_scores, k_TD[:end], out=dq_TD[start:end])
            dq_TD.mul_(ctx.scale)
        return dq, dk, dv, None
