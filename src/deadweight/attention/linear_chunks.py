"""Causal linear attention through time in pieces that fit a processor's cache, forward and backward by hand.

Autograd on the chunked form keeps every chunk's products. Here only queries, keys, values, the output, its normaliser
and the state before each chunk are kept, and the products are made again on the way back. One head at a time, or
several where the text is short, so that a piece is a view of the tensors as they lie and nothing is copied. States are
summed in float32 at least, chunk after chunk, in both directions: a suffix taken as total minus prefix would cancel.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE = 32  # chunks worked on at once
MOST = 256  # chunks of a head that are summed at once on a GPU: the products that do it grow with their square
WIDER = 2  # times as long chunks, and so many more of them at once, in 16 bits: products run best at that size
LOG2_E = math.log2(math.e)


class State(NamedTuple):
    """What linear attention keeps of the past: Σ φ(k) vᵀ (B, H, D, D) and Σ φ(k) (B, H, D)."""

    kv: Tensor
    k: Tensor


def feature_map(x: Tensor) -> Tensor:
    """φ(x) = elu(x) + 1 (Katharopoulos et al. 2020, equation 7): exp(x) below zero, x + 1 above, always positive."""
    return x.clamp(max=0).exp() + x.relu()


def in_pieces(device: torch.device) -> bool:
    """Whether the work goes in pieces of a processor's cache; a GPU wants all heads and sequences at once."""
    return device.type in ("cpu", "meta")


def blocking(chunk: int, tokens: int, dtype: torch.dtype, device: torch.device, heads: int = 1) -> tuple[int, int]:
    """(tokens a chunk, chunks worked on at once) for the `chunk` asked for; the result does not depend on them.

    heads: of all sequences together.
    """
    wider = WIDER if dtype.itemsize == 2 else 1
    size = min(chunk * wider, tokens)
    if in_pieces(device):
        return size, PIECE * wider
    count = -(-tokens // size)
    return size, count * heads if count <= MOST else MOST


def least(dtype: torch.dtype) -> float:
    """What a denominator that underflows is taken as: the quotient is then zero, not NaN, and gradients finite."""
    return float(torch.finfo(dtype).tiny ** 0.5)


def chunked_linear_attention(
    q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, state: State | None, chunk: int
) -> tuple[Tensor, State]:
    """Causal linear attention of queries and keys before their map φ, and the state after the last token (ours).

    y_t = Σ_{s ≤ t} (φ(q_t) · φ(k_s)) v_s / Σ_{s ≤ t} φ(q_t) · φ(k_s): inside a chunk by a masked product, over the
    chunks before through their summed states. Work T · (chunk + head_dim), no T × T matrix.
    """
    batch, heads, _, width = q_BHTD.shape
    if state is None:
        zeros = q_BHTD.new_zeros(batch, heads, width, width)
        state = State(zeros, zeros[..., 0])
    given = q_BHTD, k_BHTD, v_BHTD, *state
    if in_pieces(q_BHTD.device) or batch == 1:
        y_BHTD, kv, k = _Chunks.apply(*given, chunk)
        return y_BHTD, State(kv, k)
    joined = _Chunks.apply(*(x.flatten(0, 1).unsqueeze(0) for x in given), chunk)  # all sequences' heads side by side
    y_BHTD, kv, k = (torch.unflatten(x[0], 0, (batch, heads)) for x in joined)
    return y_BHTD, State(kv, k)


class _Chunks(torch.autograd.Function):
    """Shapes inside: G heads and n chunks of C tokens a piece; (G n, C, D) tensors go through `bmm`."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, kv_start: Tensor, k_start: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, heads, tokens, width = q.shape
        exact, (chunk, at_once) = summing(q.dtype), blocking(chunk, tokens, q.dtype, q.device, batch * heads)
        kv, k_sum = (x.to(exact, copy=True) for x in (kv_start, k_start))
        y, normaliser = torch.empty_like(v), v.new_empty(batch, heads, tokens, 1, dtype=exact)
        count = -(-tokens // chunk) if any(ctx.needs_input_grad) else 0
        before = q.new_empty(batch, heads, count, width, width), q.new_empty(batch, heads, count, width)
        for at in _groups(batch, heads, -(-tokens // chunk), at_once):
            for piece in _pieces(tokens, chunk * at_once):
                fq, fk = (_features(x[at][:, piece], chunk)[0] for x in (q, k))
                own_v = _chunks(v[at][:, piece], chunk)
                past_kv, past_k = _past(fk, own_v, kv[at], k_sum[at])
                if count:
                    for kept, state in zip(before, (past_kv, past_k), strict=True):
                        kept[at][:, _numbers(piece, chunk)] = _heads(state, kv[at])
                scores = torch.bmm(fq, fk.transpose(1, 2)).tril_()
                numerator = torch.bmm(scores, own_v)
                torch.baddbmm(numerator, fq, past_kv, out=numerator)
                denominator = (fq * past_k.unsqueeze(1)).sum(2, keepdim=True, dtype=exact)
                denominator.add_(scores.sum(2, keepdim=True, dtype=exact)).clamp_(min=least(exact))
                own = normaliser[at][:, piece]
                own.copy_(_tokens(denominator, own))
                torch.div(_tokens(numerator, own), own, out=y[at][:, piece])
        ctx.save_for_backward(q, k, v, y, normaliser, *before)
        ctx.blocking = chunk, at_once
        return y, kv.to(q.dtype), k_sum.to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dkv_end: Tensor, dk_end: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, normaliser, *before = ctx.saved_tensors
        batch, heads, tokens, _ = q.shape
        exact, dtype, (chunk, at_once) = normaliser.dtype, q.dtype, ctx.blocking
        dkv, dk_sum = (x.to(exact, copy=True) for x in (dkv_end, dk_end))
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        for at in _groups(batch, heads, -(-tokens // chunk), at_once):
            for piece in reversed(_pieces(tokens, chunk * at_once)):
                (fq, slope_q), (fk, slope_k) = (_features(x[at][:, piece], chunk) for x in (q, k))
                own_v = _chunks(v[at][:, piece], chunk)
                past_kv, past_k = (kept[at][:, _numbers(piece, chunk)].flatten(0, 1) for kept in before)
                share = (dy[at][:, piece] / normaliser[at][:, piece]).to(dtype)
                lost = (share * y[at][:, piece]).sum(2, keepdim=True, dtype=exact).neg_()  # of the normaliser
                d_num, d_den = _chunks(share, chunk), _chunks(lost.to(dtype), chunk)
                scores = torch.bmm(fq, fk.transpose(1, 2)).tril_()
                d_scores = torch.bmm(d_num, own_v.transpose(1, 2)).add_(d_den).tril_()
                later_kv, later_k = _later(fq, d_num, d_den, dkv[at], dk_sum[at])
                d_fq = torch.bmm(d_scores, fk).baddbmm_(d_num, past_kv.transpose(1, 2))
                d_fq.addcmul_(d_den, past_k.unsqueeze(1))
                d_fk = torch.bmm(d_scores.transpose(1, 2), fq).baddbmm_(own_v, later_kv.transpose(1, 2))
                d_fk.add_(later_k.unsqueeze(1))
                d_v = torch.bmm(scores.transpose(1, 2), d_num).baddbmm_(fk, later_kv)
                for whole, part, slope in ((dq, d_fq, slope_q), (dk, d_fk, slope_k)):
                    own = whole[at][:, piece]
                    torch.mul(_tokens(part, own), slope, out=own)
                own = dv[at][:, piece]
                own.copy_(_tokens(d_v, own))
        return dq, dk, dv, dkv.to(dtype), dk_sum.to(dtype), None


def summing(dtype: torch.dtype) -> torch.dtype:
    """The type long sums are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _groups(batch: int, heads: int, count: int, at_once: int) -> list[tuple[int, slice]]:
    """Which heads, of `count` chunks each, of which sequence are worked on at once."""
    step = max(1, at_once // count)
    return [(row, slice(head, min(head + step, heads))) for row in range(batch) for head in range(0, heads, step)]


def _pieces(tokens: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, tokens)) for start in range(0, tokens, step)]


def _numbers(piece: slice, chunk: int) -> slice:
    """Of the chunks of a piece."""
    return slice(piece.start // chunk, -(-piece.stop // chunk))


def _chunks(x_GLD: Tensor, chunk: int) -> Tensor:
    """(G n, C, D), the last chunk filled up with zeros."""
    tail = -x_GLD.shape[1] % chunk
    x = F.pad(x_GLD, (0, 0, 0, tail)) if tail else x_GLD
    return x.reshape(-1, chunk, x.shape[2])


def _tokens(x: Tensor, like_GLD: Tensor) -> Tensor:
    """Back from (G n, C, D) to (G, L, D)."""
    return x.view(len(like_GLD), -1, x.shape[2])[:, : like_GLD.shape[1]]


def _features(x_GLD: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """φ(x) in chunks, and φ'(x) = exp(min(x, 0)) as x lies; `exp2` takes a third of the time of `exp` on a CPU."""
    slope = torch.mul(x_GLD, LOG2_E, out=x_GLD.new_empty(x_GLD.shape)).clamp_(max=0).exp2_()
    return _chunks(slope + x_GLD.relu(), chunk), slope


def _past(fk: Tensor, v: Tensor, kv_GDD: Tensor, k_GD: Tensor) -> tuple[Tensor, Tensor]:
    """States before each chunk, (G n, D, D) and (G n, D); those given move on to the end of the piece."""
    own_kv = _heads(torch.bmm(fk.transpose(1, 2), v), kv_GDD)
    own_k = _heads(fk.sum(1, dtype=k_GD.dtype), k_GD)
    past = running(own_kv, kv_GDD).flatten(0, 1), running(own_k, k_GD).flatten(0, 1)
    return past[0].to(fk.dtype), past[1].to(fk.dtype)


def _later(fq: Tensor, d_num: Tensor, d_den: Tensor, d_kv_GDD: Tensor, d_k_GD: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients that come back to each chunk's state from the chunks after; those given move on to its beginning."""
    own_kv = _heads(torch.bmm(fq.transpose(1, 2), d_num), d_kv_GDD)
    own_k = _heads((fq * d_den).sum(1, dtype=d_k_GD.dtype), d_k_GD)
    later = running(own_kv, d_kv_GDD, back=True).flatten(0, 1), running(own_k, d_k_GD, back=True).flatten(0, 1)
    return later[0].to(fq.dtype), later[1].to(fq.dtype)


def _heads(x: Tensor, like: Tensor) -> Tensor:
    return torch.unflatten(x, 0, (len(like), -1))


def running(x_RNM: Tensor, total_RM: Tensor, *, back: bool = False) -> Tensor:
    """`total` plus the sum of all chunks before each (after each, with `back`); `total` takes them in.

    By one product with a triangle of ones: a `cumsum` along a middle dimension is slower, and so is a loop.
    """
    x, count = x_RNM.to(total_RM.dtype).flatten(2), x_RNM.shape[1]
    ones = torch.ones(count, count, dtype=x.dtype, device=x.device)
    triangle = (ones.triu(1) if back else ones.tril(-1)).expand(len(x), count, count)
    sums = torch.baddbmm(total_RM.flatten(1).unsqueeze(1), triangle, x)
    end = 0 if back else -1
    total_RM.copy_((sums[:, end] + x[:, end]).view_as(total_RM))
    return sums.view(x_RNM.shape)
