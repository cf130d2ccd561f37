"""The sorted side of hashed attention: tokens in order of (bucket, position), attended block by block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64  # sorted tokens a block
MOST_BUCKETS = 32_766  # their numbers are kept as int16
FAR = 2**30  # farther than any two places are apart where places are int32


@dataclass(frozen=True)
class Rounds:
    """How the tokens of each (batch, head, round) are sorted.

    order, inverse: flat row numbers over (B, H, R, T): sorted from original, and original from sorted.
    places:         (B, H, R, P, T), for the tokens in the order of round R their place in round P: sorted position
                    plus `window` a bucket, so that one comparison says both: 1 ≤ difference ≤ window exactly where
                    the other token is among the last `window` of the same bucket.
    window:         as asked for, but no longer than the sequence.
    """

    order: Tensor
    inverse: Tensor
    places: Tensor
    window: int


def sort_into_buckets(buckets_BHRT: Tensor, window: int) -> Rounds:
    """One stable sort a (batch, head, round): by bucket, then by position."""
    batch, heads, count, tokens = buckets_BHRT.shape
    order_BHRT = buckets_BHRT.sort(dim=-1, stable=True).indices
    window = min(window, tokens)
    position = torch.arange(tokens, device=order_BHRT.device).expand_as(order_BHRT)
    inverse_BHRT = torch.empty_like(order_BHRT).scatter_(3, order_BHRT, position)
    small = tokens + window * MOST_BUCKETS < FAR
    places = (inverse_BHRT + window * buckets_BHRT).to(torch.int32 if small else torch.int64)
    # places of all rounds P, read in the order of each round R
    wanted = order_BHRT.unsqueeze(3).expand(-1, -1, -1, count, -1)
    places_BHRPT = places.unsqueeze(2).expand(-1, -1, count, -1, -1).gather(4, wanted)
    rows = torch.arange(batch * heads * count, device=order_BHRT.device).view(batch, heads, count, 1) * tokens
    return Rounds((order_BHRT + rows).flatten(), (inverse_BHRT + rows).flatten(), places_BHRPT, window)


def block_shape(tokens: int, window: int) -> tuple[int, int]:
    """(tokens a block, blocks before it that its first token may need)."""
    block = min(BLOCK, tokens)
    return block, min(-(-window // block), -(-tokens // block) - 1)


def attend_sorted(q_BHRTD: Tensor, k_BHRTD: Tensor, v_BHRTD: Tensor, rounds: Rounds) -> tuple[Tensor, Tensor, Tensor]:
    """Of each token in sorted order: Σ exp(s − m) v, Σ exp(s − m) and m, over the keys this round is the first to meet.

    Queries come scaled. m is the largest score of the row (very low where there is no key) and carries no gradient.
    """
    tokens = q_BHRTD.shape[3]
    block, before = block_shape(tokens, rounds.window)
    tail = -tokens % block
    q = torch.unflatten(F.pad(q_BHRTD, (0, 0, 0, tail)), 3, (-1, block))
    k, v = (_with_blocks_before(F.pad(x, (0, 0, before * block, tail)), block, before) for x in (k_BHRTD, v_BHRTD))
    scores = (q @ k.transpose(4, 5)).masked_fill(_hidden(rounds, block, before), float("-inf"))
    peaks = scores.detach().amax(5, keepdim=True)
    # Finite, so that nothing becomes NaN, and so low that it never outweighs a round that has met a key.
    peaks = peaks.clamp(min=torch.finfo(peaks.dtype).min / 2)
    weights = (scores - peaks).exp()
    found = (weights @ v, weights.sum(5, keepdim=True), peaks)
    sums, totals, tops = (x.flatten(3, 4)[:, :, :, :tokens] for x in found)
    return sums, totals, tops


def _hidden(rounds: Rounds, block: int, before: int) -> Tensor:
    """True for the pairs (…, blocks, block, keys) a round must not count: not met, or met in a round before."""
    places_BHRPT = rounds.places
    tail = -places_BHRPT.shape[4] % block
    mine = torch.unflatten(F.pad(places_BHRPT, (0, tail), value=0), 4, (-1, block)).unsqueeze(6)
    others = F.pad(places_BHRPT, (before * block, tail), value=-FAR).unsqueeze(5)
    others = _with_blocks_before(others, block, before).squeeze(6).unsqueeze(5)
    hidden = []
    for number in range(places_BHRPT.shape[2]):
        difference = mine[:, :, number, : number + 1] - others[:, :, number, : number + 1]
        met = (difference >= 1) & (difference <= rounds.window)
        hidden.append(met[:, :, number].logical_not() | met[:, :, :number].any(2))
    return torch.stack(hidden, 2)


def _with_blocks_before(x: Tensor, block: int, before: int) -> Tensor:
    """(…, blocks, (before + 1) · block, D) from (…, before · block + T, D): each block with those before it."""
    blocks = torch.unflatten(x, -2, (-1, block))
    count = blocks.shape[-3] - before
    return torch.cat([blocks[..., n : n + count, :, :] for n in range(before + 1)], -2)
