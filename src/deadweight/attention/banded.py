"""Causal sliding-window attention of long sequences: one head after another, in pieces that stay in the cache.

Only queries, keys and values are kept for the way back; the scores are made again there. A piece's neighbourhoods of
keys overlap, so they are views with overlapping strides, never copies; and because every (before + 1)-th block has a
neighbourhood of its own, the gradients of keys and values are added up in place, one residue class after another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE = 64  # blocks worked on at once
BLOCK = 64  # queries a block; twice as many in 16 bits, whose products run best at that size


@dataclass(frozen=True)
class Band:
    """Where the blocks lie: `tokens` queries, the last of `tokens + past` keys, each seeing `window` of them."""

    tokens: int
    past: int
    window: int
    block: int

    @property
    def before(self) -> int:
        """Blocks before its own that a block's first query may need."""
        return -(-(self.window - 1) // self.block)

    @property
    def lead(self) -> int:
        """Places before the first block."""
        return self.before * self.block

    @property
    def span(self) -> int:
        return self.lead + self.block

    @property
    def count(self) -> int:
        return -(-self.tokens // self.block)

    def bias(self, like: Tensor) -> Tensor:
        """(block, span): 0 where a query may look, −∞ elsewhere, the same for every block."""
        query = torch.arange(self.lead, self.span, device=like.device).unsqueeze(1)
        distance = query - torch.arange(self.span, device=like.device)
        hidden = (distance < 0) | (distance >= self.window)
        return like.new_zeros(self.block, self.span).masked_fill_(hidden, -math.inf)

    def keys(self, x_SD: Tensor) -> Tensor:
        """(lead + count · block, D): the keys or values in their places, zeros around them."""
        placed = x_SD.new_zeros(self.lead + self.count * self.block, x_SD.shape[1])
        placed[self.lead - self.past : self.lead + self.tokens] = x_SD
        return placed

    def queries(self, x_TD: Tensor, scale: float = 1.0) -> Tensor:
        """(count, block, D), zeros after the last."""
        placed = x_TD.new_zeros(self.count * self.block, x_TD.shape[1])
        torch.mul(x_TD, scale, out=placed[: self.tokens])
        return placed.view(self.count, self.block, -1)

    def neighbourhoods(self, placed: Tensor, first: int, count: int) -> Tensor:
        """(count, span, D), overlapping views: what blocks `first` … may see."""
        width = placed.shape[1]
        return placed.as_strided((count, self.span, width), (self.block * width, width, 1), first * self.block * width)


def _weights(band: Band, q_NID: Tensor, k_NJD: Tensor, bias_IJ: Tensor, first: int, out: Tensor) -> Tensor:
    """Softmax over each block's neighbourhood, in `out`."""
    torch.bmm(q_NID, k_NJD.transpose(1, 2), out=out)
    low = max(0, band.block + band.lead - band.window)  # only the edges of the band are ever hidden
    out[..., :low].add_(bias_IJ[:, :low])
    out[..., -band.block :].add_(bias_IJ[:, -band.block :])
    for number in range(first, min(first + len(out), band.before)):
        out[number - first, :, : max(0, band.lead - band.past - number * band.block)] = -math.inf
    return torch.softmax(out, -1, out=out)


class BandedAttention(torch.autograd.Function):
    """softmax(QKᵀ/√d) V over the last `window` keys; q (B, H, T, D), k and v (B, H, S, D), T ≤ S < T + window."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, window: int, block: int, piece: int) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.piece = piece
        ctx.band = band = Band(q.shape[2], k.shape[2] - q.shape[2], window, block)
        bias, scale = band.bias(q), q.shape[3] ** -0.5
        y = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        scores = q.new_empty(min(piece, band.count), block, band.span)
        found = q.new_empty(band.count, block, q.shape[3])
        for q_TD, k_SD, v_SD, y_TD in zip(*(x.flatten(0, 1).unbind() for x in (q, k, v, y)), strict=True):
            queries, keys, values = band.queries(q_TD, scale), band.keys(k_SD), band.keys(v_SD)
            for first in range(0, band.count, piece):
                part = queries[first : first + piece]
                near_k, near_v = (band.neighbourhoods(x, first, len(part)) for x in (keys, values))
                weights = _weights(band, part, near_k, bias, first, scores[: len(part)])
                torch.bmm(weights, near_v, out=found[first : first + piece])
            y_TD.copy_(found.view(-1, q.shape[3])[: band.tokens])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        band, piece = ctx.band, ctx.piece
        bias, scale, width = band.bias(q), q.shape[3] ** -0.5, q.shape[3]
        dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
        scores = q.new_empty(min(piece, band.count), band.block, band.span)
        slopes, found = torch.empty_like(scores), q.new_empty(band.count, band.block, width)
        heads = (x.flatten(0, 1).unbind() for x in (q, k, v, dy, dq, dk, dv))
        for q_TD, k_SD, v_SD, dy_TD, dq_TD, dk_SD, dv_SD in zip(*heads, strict=True):
            queries, keys, values = band.queries(q_TD, scale), band.keys(k_SD), band.keys(v_SD)
            d_out, d_keys, d_values = band.queries(dy_TD), torch.zeros_like(keys), torch.zeros_like(values)
            for first in range(0, band.count, piece):
                part, d_part = queries[first : first + piece], d_out[first : first + piece]
                near_k, near_v = (band.neighbourhoods(x, first, len(part)) for x in (keys, values))
                weights = _weights(band, part, near_k, bias, first, scores[: len(part)])
                d_scores = torch.bmm(d_part, near_v.transpose(1, 2), out=slopes[: len(part)])
                torch._softmax_backward_data(d_scores, weights, -1, q.dtype, grad_input=d_scores)
                torch.bmm(d_scores, near_k, out=found[first : first + piece])
                _add_up(band, d_values, weights, d_part, first)
                _add_up(band, d_keys, d_scores, part, first)
            torch.mul(found.view(-1, width)[: band.tokens], scale, out=dq_TD)
            real = slice(band.lead - band.past, band.lead + band.tokens)
            dk_SD.copy_(d_keys[real])
            dv_SD.copy_(d_values[real])
        return dq, dk, dv, None, None, None


def _add_up(band: Band, whole: Tensor, weights_NIJ: Tensor, x_NID: Tensor, first: int) -> None:
    """Add weightsᵀ x of every block to its neighbourhood's place in `whole`; those of one residue do not overlap."""
    apart = band.before + 1
    for residue in range(min(apart, len(x_NID))):
        ours, x = weights_NIJ[residue::apart], x_NID[residue::apart]
        start = (first + residue) * band.block
        place = whole[start : start + len(x) * band.span].view(len(x), band.span, -1)
        place.baddbmm_(ours.transpose(1, 2), x)
