"""The sorted side of hashed attention: tokens in order of (bucket, position), attended block by block.

Only queries and values are kept for the way back; the rest is made again there. One head and one round at a time, in
pieces that stay in a processor's cache. Keys have length one, so |q|/√d bounds the scores: unless that bound is large,
exponentials of all rounds add up as they are, and no pass over the rounds looks for a maximum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 64  # sorted tokens per block
PIECE = 64  # blocks worked on at once
MOST_BUCKETS = 32_766  # their numbers are kept as int16
FAR = 1e9  # farther than any two places are apart
EXACT_IN_FLOAT32 = 2**24  # up to here it holds every whole number
LOG2_E = math.log2(math.e)  # in the scale of the queries: exp2 takes a third of the time of exp on a CPU
BOUND = 29.0  # of scores, so that sums of their exponentials neither overflow nor vanish: a third of log(float32 max)


@dataclass(frozen=True)
class Rounds:
    """How the tokens of each head are sorted in each round.

    order, inverse: (B·H, R, T): sorted from original, and original from sorted.
    places:         (B·H, R, T) in the original order, doubled: sorted position plus `window` a bucket, so that one
                    comparison says both: 1 ≤ difference ≤ window exactly where the other token is among the last
                    `window` of the same bucket. Floating, for that runs several times faster here than booleans.
    window:         as asked for, but no longer than the sequence.
    """

    order: Tensor
    inverse: Tensor
    places: Tensor
    window: int


def sort_into_buckets(buckets_BHRT: Tensor, window: int) -> Rounds:
    """By bucket, then by position: one stable sort of integers for all heads and rounds."""
    batch, heads, count, tokens = buckets_BHRT.shape
    rows, window = batch * heads * count, min(window, tokens)
    buckets = buckets_BHRT.reshape(rows, tokens)
    most = int(buckets.max()) + 1
    number = torch.arange(rows, device=buckets.device).unsqueeze(1)
    small = rows * most < 2**31
    keys = (number * most + buckets).to(torch.int32 if small else torch.int64)
    order = keys.flatten().sort(stable=True).indices.view(rows, tokens) - number * tokens
    position = torch.arange(tokens, device=order.device).expand_as(order)
    inverse = torch.empty_like(order).scatter_(1, order, position)
    exact = torch.float32 if 2 * (tokens + window * most) < EXACT_IN_FLOAT32 else torch.float64
    places = (2 * (inverse + window * buckets)).to(exact)
    apart = (batch * heads, count, tokens)
    return Rounds(order.view(apart), inverse.view(apart), places.view(apart), window)


def block_shape(tokens: int, window: int) -> tuple[int, int]:
    """(tokens per block, blocks before it that its first token may need)."""
    block = min(BLOCK, tokens)
    return block, min(-(-window // block), -(-tokens // block) - 1)


class Sorted:
    """The buffers of one pass, and the tokens of one head and round in them, in sorted order.

    Blocks of queries and the neighbourhoods of keys they may see are views: neighbourhoods overlap, nothing is copied.
    """

    def __init__(self, like: Tensor, rounds: Rounds) -> None:
        tokens, self.width = like.shape[-2:]
        self.rounds, self.like, self.tokens = rounds, like, tokens
        self.block, self.before = block_shape(tokens, rounds.window)
        self.count, self.lead = -(-tokens // self.block), self.before * self.block
        self.span, self.piece = self.lead + self.block, min(PIECE, self.count)
        self.real = slice(self.lead, self.lead + tokens)
        shape = (self.piece, self.block, self.span)
        self.scores, self.slopes = like.new_empty(shape), like.new_empty(shape)
        self.buffers = [rounds.places.new_empty(shape) for _ in range(3)]
        self.places = [self.buffer(width=1, places=True) for _ in range(rounds.order.shape[1])]
        self.tops = self.buffer(width=1)

    def in_order(
        self, head: int, originals: tuple[Tensor, ...], buffers: list[Tensor], peaks: Tensor | None
    ) -> Iterator[tuple[int, list[Tensor], Tensor | None]]:
        """A round's number, the places of the rounds up to it and the peaks; `originals` are sorted in `buffers`."""
        for number, order in enumerate(self.rounds.order[head].unbind()):
            for buffer, x in zip(buffers, originals, strict=True):
                torch.index_select(x, 0, order, out=buffer[self.real])
            for earlier, buffer in enumerate(self.places[: number + 1]):
                torch.index_select(self.rounds.places[head, earlier], 0, order, out=buffer[self.real, 0])
            if peaks is not None:
                torch.index_select(peaks[head], 0, order, out=self.tops[self.real])
            yield number, self.places[: number + 1], None if peaks is None else self.tops

    def buffer(self, *, width: int | None = None, places: bool = False) -> Tensor:
        """(lead + count · block, width), zeros (far away, for `places`) before and after the tokens."""
        shape = (self.lead + self.count * self.block, self.width if width is None else width)
        return self.rounds.places.new_full(shape, FAR) if places else self.like.new_zeros(shape)

    def blocks(self, buffer: Tensor, first: int) -> Tensor:
        """(n, block, width): the tokens of the blocks of a piece."""
        end = min(first + self.piece, self.count) * self.block
        return buffer[self.lead + first * self.block : self.lead + end].view(-1, self.block, buffer.shape[1])

    def neighbourhoods(self, buffer: Tensor, first: int) -> Tensor:
        """(n, span, width): what the blocks of a piece may see."""
        width, count = buffer.shape[1], min(self.piece, self.count - first)
        return buffer.as_strided((count, self.span, width), (self.block * width, width, 1), first * self.block * width)

    def back(self, buffer: Tensor, head: int, number: int) -> Tensor:
        """The tokens in `buffer`, back in their original order."""
        return buffer[self.real].index_select(0, self.rounds.inverse[head, number])

    def pieces(self) -> range:
        return range(0, self.count, self.piece)

    def weights(self, q: Tensor, k: Tensor, places: list[Tensor], first: int, peaks: Tensor | None) -> Tensor:
        """exp(s − peak), both held times log₂ e, of each pair this round is the first to meet, else 0; in `scores`."""
        scores = self.products(q, k, first)
        if peaks is not None:
            scores.sub_(self.blocks(peaks, first)).clamp_(max=0)  # above 0 are only pairs that do not count
        return scores.exp2_().mul_(self.counted(places, first).to(scores.dtype))

    def products(self, q: Tensor, k: Tensor, first: int) -> Tensor:
        """Scores of a piece; in `scores`."""
        queries = self.blocks(q, first)
        return torch.bmm(queries, self.neighbourhoods(k, first).transpose(1, 2), out=self.scores[: len(queries)])

    def counted(self, places: list[Tensor], first: int) -> Tensor:
        """1 for the pairs of a piece that the last of `places` has met and no other of them, else 0.

        A pair is met where |2 · difference − (window + 1)| < window. It is either at least 1 less or at least 1 more.
        """
        count, window = min(self.piece, self.count - first), self.rounds.window
        near, far, one = (x[:count] for x in self.buffers)
        for number, buffer in enumerate(places[:-1]):
            self._distance(buffer, first, one if number else far)
            if number:
                torch.minimum(far, one, out=far)
        self._distance(places[-1], first, near).neg_().add_(window)
        if len(places) > 1:
            torch.minimum(near, far.sub_(window), out=near)
        return near.clamp_(min=0, max=1)

    def _distance(self, buffer: Tensor, first: int, out: Tensor) -> Tensor:
        """|2 · difference of places − (window + 1)|; the places are doubled."""
        mine = self.blocks(buffer, first) - (self.rounds.window + 1)
        torch.sub(mine, self.neighbourhoods(buffer, first).transpose(1, 2), out=out)
        return out.abs_()


class HashedAttention(torch.autograd.Function):
    """Softmax over the union of what the rounds met: q and v (B, H, T, D), keys unit queries; see `lsh_attention`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, v: Tensor, rounds: Rounds) -> Tensor:
        exact, work = _summing(q.dtype), Sorted(q, rounds)
        peaks = _peaks(work, q) if _too_large(q) else None
        y = torch.empty(v.shape, dtype=v.dtype, device=v.device)
        total = q.new_zeros(q.shape[0] * q.shape[1], q.shape[2], 1, dtype=exact)
        buffers = queries, keys, values = [work.buffer() for _ in range(3)]
        found, weights = work.buffer(), work.buffer(width=1)
        heads = (x.flatten(0, 1).unbind() for x in (q, v, y))
        for head, (q_TD, v_TD, y_TD) in enumerate(zip(*heads, strict=True)):
            numerator = torch.zeros(q_TD.shape, dtype=exact, device=q.device)
            originals = (q_TD * (work.width**-0.5 * LOG2_E), unit(q_TD), v_TD.contiguous())
            for number, places, tops in work.in_order(head, originals, buffers, peaks):
                for first in work.pieces():
                    shares = work.weights(queries, keys, places, first, tops)
                    torch.bmm(shares, work.neighbourhoods(values, first), out=work.blocks(found, first))
                    torch.sum(shares, 2, keepdim=True, out=work.blocks(weights, first))
                numerator += work.back(found, head, number)
                total[head] += work.back(weights, head, number)
            alone = total[head] == 0
            y_TD.copy_(torch.where(alone, v_TD, numerator.div_(total[head] + alone)))
        ctx.save_for_backward(q, v, y, total, *(() if peaks is None else (peaks,)))
        ctx.rounds = rounds
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, v, y, total, *kept = ctx.saved_tensors
        peaks, scale = kept[0] if kept else None, q.shape[-1] ** -0.5
        work = Sorted(q, ctx.rounds)
        dq, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, v))
        ordered = [*(work.buffer() for _ in range(4)), work.buffer(width=1)]
        found = [work.buffer() for _ in range(3)]
        heads = (x.flatten(0, 1).unbind() for x in (q, v, y, dy, dq, dv))
        for head, (q_TD, v_TD, y_TD, dy_TD, dq_TD, dv_TD) in enumerate(zip(*heads, strict=True)):
            alone, keys = total[head] == 0, unit(q_TD)
            share = (dy_TD / (total[head] + alone)).masked_fill_(alone, 0)  # gradient of the numerator
            lost = (share * y_TD).sum(1, keepdim=True).neg_()  # of the total
            sums = d_q, d_k, d_v = [torch.zeros_like(share) for _ in found]
            originals = (q_TD * (scale * LOG2_E), keys, v_TD.contiguous(), share.to(q.dtype), lost.to(q.dtype))
            for number, places, tops in work.in_order(head, originals, ordered, peaks):
                _one_round_back(work, ordered, places, tops, found)
                for whole, part in zip(sums, found, strict=True):
                    whole += work.back(part, head, number)
            dq_TD.copy_(d_q.mul_(scale).add_(_unit_backward(d_k.div_(LOG2_E), q_TD, keys)))
            dv_TD.copy_(d_v.add_(torch.where(alone, dy_TD, 0)))
        return dq, dv, None


def _one_round_back(
    work: Sorted, ordered: list[Tensor], places: list[Tensor], tops: Tensor | None, found: list[Tensor]
) -> None:
    """Gradients of queries (before their scale), keys (times log₂ e) and values of one round, sorted, into `found`."""
    queries, keys, values, share, lost = ordered
    d_queries, d_keys, d_values = found
    d_keys.zero_()
    d_values.zero_()
    for first in work.pieces():
        weights = work.weights(queries, keys, places, first, tops)
        d_part = work.blocks(share, first)
        slopes = work.slopes[: len(weights)]
        torch.bmm(d_part, work.neighbourhoods(values, first).transpose(1, 2), out=slopes)
        slopes.add_(work.blocks(lost, first)).mul_(weights)
        torch.bmm(slopes, work.neighbourhoods(keys, first), out=work.blocks(d_queries, first))
        _add_up(work, d_values, weights, d_part, first)
        _add_up(work, d_keys, slopes, work.blocks(queries, first), first)


def _add_up(work: Sorted, whole: Tensor, weights_NIJ: Tensor, x_NID: Tensor, first: int) -> None:
    """Add weightsᵀ x of every block to its neighbourhood's place in `whole`; those of one residue do not overlap."""
    apart = work.before + 1
    for residue in range(min(apart, len(x_NID))):
        ours, x = weights_NIJ[residue::apart], x_NID[residue::apart]
        start = (first + residue) * work.block
        place = whole[start : start + len(x) * work.span].view(len(x), work.span, -1)
        place.baddbmm_(ours.transpose(1, 2), x)


def unit(x: Tensor) -> Tensor:
    """Rows of length one; the zero row stays zero."""
    unit_rows: Tensor = x / _length(x)
    return unit_rows


def _length(x: Tensor) -> Tensor:
    length: Tensor = x.norm(dim=-1, keepdim=True)
    return length.clamp(min=torch.finfo(x.dtype).tiny ** 0.5)


def _unit_backward(grad: Tensor, x: Tensor, unit_rows: Tensor) -> Tensor:
    """Through `unit`: what lies along the row is lost."""
    along = (grad * unit_rows).sum(1, keepdim=True)
    return grad.addcmul(along, unit_rows.to(grad.dtype), value=-1).div_(_length(x))


def _summing(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _too_large(q: Tensor) -> bool:
    """Whether the scores, |q|/√d at most, are too large for exponentials without a shift."""
    if q.dtype == torch.float16 or not q.numel():
        return True
    return not float(torch.linalg.vector_norm(q, dim=-1).max()) * q.shape[-1] ** -0.5 <= BOUND


def _peaks(work: Sorted, q: Tensor) -> Tensor:
    """(B·H, T, 1): the largest score, times log₂ e, a query meets in any round; 0 where it meets none."""
    top = q.new_full((q.shape[0] * q.shape[1], q.shape[2], 1), -math.inf)
    buffers, found = [work.buffer(), work.buffer()], work.buffer(width=1)
    for head, q_TD in enumerate(q.flatten(0, 1).unbind()):
        originals = (q_TD * (work.width**-0.5 * LOG2_E), unit(q_TD))
        for number, places, _ in work.in_order(head, originals, buffers, None):
            for first in work.pieces():
                scores = work.products(buffers[0], buffers[1], first)
                scores.masked_fill_(work.counted(places, first) == 0, -math.inf)
                torch.amax(scores, 2, keepdim=True, out=work.blocks(found, first))
            torch.maximum(top[head], work.back(found, head, number), out=top[head])
    return top.masked_fill_(top == -math.inf, 0)
