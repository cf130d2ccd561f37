"""Attention by locality-sensitive hashing (Reformer, Kitaev et al. 2020), made strictly causal (ours).

Reformer cuts its sorted tokens into chunks, so that a later token can move a border and change an earlier output.
Here a query attends the `window` entries before it in its own bucket, which later tokens cannot touch.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from deadweight.attention.base import Cache, Macs, Mechanism
from deadweight.attention.lsh_blocks import MOST_BUCKETS, HashedAttention, block_shape, sort_into_buckets, unit
from deadweight.attention.rotary import check_rotary, rotate
from deadweight.errors import InputError


def hash_buckets(q_BHTD: Tensor, rotations_RDK: Tensor) -> Tensor:
    """Bucket of each query in each round, (B, H, R, T): argmax of [xR; −xR] (Andoni et al. 2015; Reformer, section 2).

    In float32 whatever the dtype of the queries, and without gradient.
    """
    x_BHTD, half = q_BHTD.detach().float(), rotations_RDK.shape[2]
    ids = []
    for rotation_DK in rotations_RDK:
        turned_BHTK = x_BHTD @ rotation_DK
        largest = turned_BHTK.abs().argmax(-1, keepdim=True)
        ids.append(largest + half * (turned_BHTK.gather(-1, largest) < 0))
    return torch.cat(ids, -1).transpose(2, 3)


def lsh_attention(q_BHTD: Tensor, v_BHTD: Tensor, buckets_BHRT: Tensor, window: int) -> Tensor:
    """Softmax over the union, over rounds, of the `window` tokens before the query in its bucket.

    Keys are unit queries. A key met in several rounds counts once; a query that meets none returns its own value
    (Reformer's "self last").
    """
    y_BHTD: Tensor = HashedAttention.apply(q_BHTD, v_BHTD, sort_into_buckets(buckets_BHRT, window))
    return y_BHTD


def lsh_steps(q_BHTD: Tensor, q_BHSD: Tensor, v_BHSD: Tensor, buckets_BHRS: Tensor, window: int) -> Tensor:
    """The same for the last T of S tokens, over all S: for decoding, where T is small."""
    tokens, past = q_BHTD.shape[2], q_BHSD.shape[2] - q_BHTD.shape[2]
    same = buckets_BHRS[..., past:, None] == buckets_BHRS[..., None, :]
    earlier = torch.ones(tokens, same.shape[-1], dtype=torch.bool, device=same.device).tril(past - 1)
    same = same & earlier
    newest_first = same.flip(-1).cumsum(-1).flip(-1)
    seen_BHTS = (same & (newest_first <= window)).any(2)
    scores = (q_BHTD * q_BHTD.shape[-1] ** -0.5) @ unit(q_BHSD).transpose(2, 3)
    alone = seen_BHTS.any(-1, keepdim=True).logical_not()
    weights = scores.masked_fill(seen_BHTS.logical_not() & alone.logical_not(), float("-inf")).softmax(-1)
    return torch.where(alone, v_BHSD[:, :, past:], weights @ v_BHSD)


class Lsh(Mechanism):
    """Each query attends its hash bucket's last `window` entries, in several rounds: T log T time, strictly causal.

    Queries and keys share one projection; a token attends itself only if it meets no other. The number of `buckets`
    (even) is fixed, so that decoding equals prefilling; the hash's rotations are buffers drawn from `seed`.
    Cache: `queries` and `values` (batch, heads, tokens, head_dim), `buckets` (batch, heads, rounds, tokens) int16.
    """

    label: ClassVar[str] = "LSH attention"
    causal_only: ClassVar[bool] = True

    rotations: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        buckets: int = 64,
        rounds: int = 4,
        window: int = 64,
        seed: int = 0,
        rope: float | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__(dim, heads)
        if buckets < 2 or buckets % 2 or buckets > MOST_BUCKETS:
            raise InputError(
                f"buckets {buckets}", expected=f"an even number, 2 … {MOST_BUCKETS}", cure="64 is the default"
            )
        for name, value in (("rounds", rounds), ("window", window)):
            if value < 1:
                raise InputError(f"{name} {value}", expected=f"{name} ≥ 1", cure="see the defaults")
        if rope is not None:
            check_rotary(self.head_dim, rope)
        self.buckets, self.rounds, self.window, self.rope = buckets, rounds, window, rope
        self.qk_proj = nn.Linear(dim, dim, bias=bias)
        self.v_proj = nn.Linear(dim, dim, bias=bias)
        self.o_proj = nn.Linear(dim, dim, bias=bias)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("rotations", torch.randn(rounds, self.head_dim, buckets // 2, generator=generator))

    def run(self, x_BTC: Tensor, cache: Cache | None) -> tuple[Tensor, Cache | None]:
        start = 0 if cache is None else cache.length
        q, v = (p(x_BTC).unflatten(2, (self.heads, -1)).transpose(1, 2) for p in (self.qk_proj, self.v_proj))
        if self.rope is not None:
            q = rotate(q, start, self.rope)
        ids, grown = hash_buckets(q, self.rotations.float()), None
        if cache is not None:
            whole, buffers = cache.grown({"queries": q, "values": v}, 2)
            whole["buckets"], buffer = cache.extended("buckets", ids.to(torch.int16), 3)
            grown = Cache(whole, start + x_BTC.shape[1], buffers if buffer is None else {**buffers, "buckets": buffer})
        if start == 0 or grown is None:
            self.kernel = "sorted buckets"
            y = lsh_attention(q, v, ids, self.window)
        else:
            self.kernel = "masked buckets"
            seen = grown.tensors
            y = lsh_steps(q, seen["queries"], seen["values"], seen["buckets"], self.window)
        merged: Tensor = self.o_proj(y.transpose(1, 2).flatten(2))
        return merged, grown

    def new_cache(self, batch: int) -> Cache:
        empty = self.weight.new_zeros(batch, self.heads, 0, self.head_dim)
        buckets = torch.zeros(batch, self.heads, self.rounds, 0, dtype=torch.int16, device=empty.device)
        return Cache({"queries": empty, "values": empty, "buckets": buckets})

    def cache_bytes(self, tokens: int) -> int:
        return tokens * self.heads * (2 * self.head_dim * self.weight.element_size() + 2 * self.rounds)

    def macs(self, batch: int, tokens: int) -> Macs:
        """Hashing and attending. Necessary is an upper bound: as if every query met `window` new keys a round."""
        width = self.head_dim
        heads = batch * self.heads
        reach = min(tokens - 1, self.window)
        met = min(self.rounds * (reach * (reach + 1) // 2 + (tokens - 1 - reach) * reach), tokens * (tokens - 1) // 2)
        block, before = block_shape(tokens, self.window)
        multiplied = self.rounds * -(-tokens // block) * block * block * (before + 1)
        hashing = self.macs_without_gradient(batch, tokens)
        return Macs(hashing + heads * 2 * width * met, hashing + heads * 2 * width * multiplied)

    def macs_without_gradient(self, batch: int, tokens: int) -> int:
        """Of the rotations that give the buckets."""
        return batch * self.heads * tokens * self.head_dim * self.rounds * (self.buckets // 2)
