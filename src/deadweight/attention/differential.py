"""Differential attention (Ye et al. 2024, arXiv 2410.05258): one softmax minus another, what both see cancels."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deadweight.attention.base import Cache, Macs, Projected
from deadweight.attention.eager import lower_right_mask
from deadweight.attention.rotary import check_rotary, rotate
from deadweight.attention.sdpa import fused_attention
from deadweight.errors import InputError

EPSILON = 1e-5


class Differential(Projected):
    """One softmax map minus a share of another, so that what both see cancels: T² time, the cache of softmax attention.

    (softmax(Q₁K₁ᵀ/√w) − λ softmax(Q₂K₂ᵀ/√w)) V, each head's queries and keys cut in halves of w = head_dim / 2. What is
    learned is λ = exp(λq₁ · λk₁) − exp(λq₂ · λk₂) + `start`, the same for all heads; a head's output is RMS-normed and
    multiplied by 1 − `start` (equations 1 to 3). The paper lets `start` grow with depth, 0.8 − 0.6 exp(−0.3 · layer);
    0.8 is where that ends.
    Cache: `keys` (batch, 2 · heads, tokens, head_dim / 2), rotated, and `values` (batch, heads, tokens, head_dim).
    """

    label: ClassVar[str] = "differential attention"

    carries = False

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        start: float = 0.8,
        rope: float | None = None,
        causal: bool = True,
        bias: bool = True,
    ) -> None:
        if not 0 <= start < 1:
            raise InputError(f"start {start}", expected="0 ≤ start < 1", cure="0.8 is the default")
        super().__init__(dim, heads, causal=causal, bias=bias)
        if self.head_dim % 2:
            raise InputError(
                f"heads of width {self.head_dim}", expected="an even width, to be cut in halves", cure="other heads"
            )
        self.half_width = self.head_dim // 2
        if rope is not None:
            check_rotary(self.half_width, rope, "half a head's width")
        self.rope, self.start = rope, start
        self.lambdas = nn.Parameter(torch.randn(4, self.half_width) * 0.1)  # q1, k1, q2, k2
        self.norm = nn.RMSNorm(self.head_dim, eps=EPSILON)

    def project(self, x_BTC: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k = (p(x_BTC).unflatten(2, (-1, self.half_width)).transpose(1, 2) for p in (self.q_proj, self.k_proj))
        v = self.v_proj(x_BTC).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
        return (q, k, v) if self.rope is None else (rotate(q, start, self.rope), rotate(k, start, self.rope), v)

    def weight_of_second(self) -> Tensor:
        """λ."""
        q1, k1, q2, k2 = self.lambdas.double().unbind()
        return ((q1 @ k1).exp() - (q2 @ k2).exp() + self.start).to(self.lambdas.dtype)

    def attend(self, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
        """Queries and keys (B, 2 H, ·, head_dim / 2), values (B, H, S, head_dim)."""
        queries, keys = q_BHTD.shape[2], k_BGSD.shape[2]
        if queries == keys:  # keys as wide as the values, or PyTorch leaves its flash kernel
            q, k = (F.pad(x, (0, self.half_width)).contiguous() for x in (q_BHTD, k_BGSD))
            both, self.kernel = fused_attention(
                q, k, v_BGSD.repeat_interleave(2, 1), causal=self.causal, scale=self.half_width**-0.5
            )
            y = both[:, 0::2] - self.weight_of_second() * both[:, 1::2]
        else:
            self.kernel = "eager"
            scores = (q_BHTD * self.half_width**-0.5) @ k_BGSD.transpose(2, 3)
            if self.causal and queries > 1:
                hidden = lower_right_mask(queries, keys, q_BHTD.device).logical_not()
                scores = scores.masked_fill(hidden, float("-inf"))
            weights = scores.softmax(-1)
            y = (weights[:, 0::2] - self.weight_of_second() * weights[:, 1::2]) @ v_BGSD
        normed: Tensor = self.norm(y) * (1 - self.start)
        return normed

    def new_cache(self, batch: int) -> Cache:
        keys = self.weight.new_zeros(batch, 2 * self.heads, 0, self.half_width)
        return Cache({"keys": keys, "values": self.weight.new_zeros(batch, self.heads, 0, self.head_dim)})

    def macs(self, batch: int, tokens: int) -> Macs:
        """Necessary: two score maps of half the width, and their difference times the values."""
        a_pair = 2 * self.head_dim * self.heads * batch
        executed = tokens * tokens if self.kernel == "sdpa:math" else self.pairs(tokens)
        return Macs(self.pairs(tokens) * a_pair, 2 * executed * a_pair)
