"""Causal linear attention through time in segments that fit a processor's cache, forward and backward by hand.

Autograd on the chunked form keeps every chunk's products and states. Here only queries, keys, values, the output and
its normaliser are kept, and a segment's products are made again on the way back. States are summed in float32 at
least, chunk after chunk, in both directions: a suffix taken as total minus prefix would cancel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SEGMENT = 8  # chunks worked on at once, in all heads


class State(NamedTuple):
    """What linear attention keeps of the past: Σ φ(k) vᵀ (B, H, D, D) and Σ φ(k) (B, H, D)."""

    kv: Tensor
    k: Tensor


def feature_map(x: Tensor) -> Tensor:
    """φ(x) = elu(x) + 1 (Katharopoulos et al. 2020, equation 7): exp(x) below zero, x + 1 above, always positive."""
    return x.clamp(max=0).exp() + x.relu()


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
    y_BHTD, kv, k = _Chunks.apply(q_BHTD, k_BHTD, v_BHTD, state.kv, state.k, chunk)
    return y_BHTD, State(kv, k)


class _Chunks(torch.autograd.Function):
    """Shapes inside: R = B · H rows, n chunks of C tokens a segment; (R n, C, D) tensors go through `bmm`."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, kv_start: Tensor, k_start: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, heads, tokens, width = q.shape
        rows, chunk = batch * heads, min(chunk, tokens)
        exact = summing(q.dtype)
        kv = kv_start.reshape(rows, width, width).to(exact, copy=True)
        k_sum = k_start.reshape(rows, width).to(exact, copy=True)
        y, normaliser = torch.empty_like(v), v.new_empty(batch, heads, tokens, 1, dtype=exact)
        starts = []
        for piece in _pieces(tokens, chunk):
            starts.append((kv.clone(), k_sum.clone()))
            fq, fk, own_v = (x.flatten(0, 1) for x in _mapped(q, k, v, piece, chunk))
            past_kv, past_k = _past(fk, own_v, kv, k_sum)
            scores = torch.bmm(fq, fk.transpose(1, 2)).tril_()
            numerator = torch.bmm(scores, own_v)
            torch.baddbmm(numerator, fq, past_kv, out=numerator)
            denominator = torch.bmm(fq, past_k.unsqueeze(2)).to(exact)
            denominator = denominator.add_(scores.sum(2, keepdim=True, dtype=exact)).clamp_(min=least(exact))
            length = piece.stop - piece.start
            y[:, :, piece] = (numerator / denominator).view(batch, heads, -1, width)[:, :, :length]
            normaliser[:, :, piece] = denominator.view(batch, heads, -1, 1)[:, :, :length]
        ctx.save_for_backward(q, k, v, y, normaliser)
        ctx.starts, ctx.chunk = starts, chunk
        states = (kv.view_as(kv_start).to(q.dtype), k_sum.view_as(k_start).to(q.dtype))
        return y, *states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dkv_end: Tensor, dk_end: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, normaliser = ctx.saved_tensors
        batch, heads, tokens, width = q.shape
        rows, exact, dtype = batch * heads, normaliser.dtype, q.dtype
        dkv = dkv_end.reshape(rows, width, width).to(exact, copy=True)
        dk_sum = dk_end.reshape(rows, width).to(exact, copy=True)
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        for piece, start in zip(reversed(_pieces(tokens, ctx.chunk)), reversed(ctx.starts), strict=True):
            fq, fk, own_v = (x.flatten(0, 1) for x in _mapped(q, k, v, piece, ctx.chunk))
            past_kv, past_k = _past(fk, own_v, start[0].clone(), start[1].clone())
            share = dy[:, :, piece] / normaliser[:, :, piece]
            lost = (share * y[:, :, piece]).sum(3, keepdim=True, dtype=exact).neg_()  # gradient of the normaliser
            d_num, d_den = (_chunks(x.to(dtype), ctx.chunk).flatten(0, 1) for x in (share, lost))
            scores = torch.bmm(fq, fk.transpose(1, 2)).tril_()
            d_scores = torch.bmm(d_num, own_v.transpose(1, 2)).add_(d_den).tril_()
            later_kv = running(_rows(torch.bmm(fq.transpose(1, 2), d_num), rows), dkv, back=True).to(dtype)
            later_k = running(_rows(torch.bmm(fq.transpose(1, 2), d_den), rows).squeeze(3), dk_sum, back=True)
            later_kv, later_k = later_kv.flatten(0, 1), later_k.flatten(0, 1).to(dtype)
            d_fq = torch.bmm(d_scores, fk).baddbmm_(d_num, past_kv.transpose(1, 2))
            d_fq.addcmul_(d_den, past_k.unsqueeze(1))
            d_fk = torch.bmm(d_scores.transpose(1, 2), fq).baddbmm_(own_v, later_kv.transpose(1, 2))
            d_fk.add_(later_k.unsqueeze(1))
            d_v = torch.bmm(scores.transpose(1, 2), d_num).baddbmm_(fk, later_kv)
            # φ' is exp(x) = φ below zero and 1 above, where φ > 1
            for whole, part in ((dq, d_fq.mul_(fq.clamp_(max=1))), (dk, d_fk.mul_(fk.clamp_(max=1))), (dv, d_v)):
                length = piece.stop - piece.start
                whole[:, :, piece] = part.view(batch, heads, -1, width)[:, :, :length]
        starts = (dkv.view_as(dkv_end).to(dtype), dk_sum.view_as(dk_end).to(dtype))
        return dq, dk, dv, *starts, None


def summing(dtype: torch.dtype) -> torch.dtype:
    """The type long sums are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _pieces(tokens: int, chunk: int) -> Sequence[slice]:
    step = SEGMENT * chunk
    return [slice(start, min(start + step, tokens)) for start in range(0, tokens, step)]


def _chunks(x_BHLD: Tensor, chunk: int) -> Tensor:
    """(B H, n, C, D), the last chunk filled up with zeros."""
    tail = -x_BHLD.shape[2] % chunk
    x = F.pad(x_BHLD, (0, 0, 0, tail)) if tail else x_BHLD
    return x.reshape(-1, x.shape[2] // chunk, chunk, x.shape[3])


def _mapped(q: Tensor, k: Tensor, v: Tensor, piece: slice, chunk: int) -> Iterator[Tensor]:
    for x in (q[:, :, piece], k[:, :, piece]):
        # into a tensor of its own, contiguous whatever the strides of the heads are
        features = torch.clamp(x, max=0, out=x.new_empty(x.shape)).exp_().add_(x.relu())
        yield _chunks(features, chunk)
    yield _chunks(v[:, :, piece], chunk)


def _past(fk: Tensor, v: Tensor, kv: Tensor, k_sum: Tensor) -> tuple[Tensor, Tensor]:
    """States before each chunk, (R n, D, D) and (R n, D); `kv` and `k_sum` move on to the end of the segment."""
    own_kv = _rows(torch.bmm(fk.transpose(1, 2), v), len(kv))
    own_k = _rows(fk, len(kv)).sum(2, dtype=k_sum.dtype)
    past = running(own_kv, kv).flatten(0, 1), running(own_k, k_sum).flatten(0, 1)
    return past[0].to(fk.dtype), past[1].to(fk.dtype)


def _rows(x: Tensor, rows: int) -> Tensor:
    return torch.unflatten(x, 0, (rows, -1))


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
