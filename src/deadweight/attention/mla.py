"""Multi-head latent attention (DeepSeek-V2, section 2.1): keys and values from one small latent a token."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deadweight.attention.base import Cache, Macs, Mechanism
from deadweight.attention.blocked import BlockedAttention, blocked_pairs
from deadweight.attention.eager import lower_right_mask
from deadweight.attention.rotary import check_rotary, turn, turns
from deadweight.attention.sdpa import fused_attention
from deadweight.errors import InputError

BASE = 10_000.0
PART = 1024  # latents a product, when few rows meet many: MKL and oneDNN then take half the time, or less
LONG = 512  # tokens from which blocks beat the fused kernel on padded values


def expanded_attention(
    q_BHTD: Tensor, q_rope_BHTR: Tensor, latent_BSL: Tensor, k_rope_BSR: Tensor, kv_up_HEL: Tensor
) -> tuple[Tensor, str]:
    """Every head's keys and values made from the latents, then exact attention; and the kernel that ran.

    `kv_up_HEL` holds, a head, W_UK (its first D rows) over W_UV. Values are padded to the width of the keys and the
    padding is cut off again: with unequal widths PyTorch leaves its flash kernel for the quadratic one.
    """
    width, rope = q_BHTD.shape[-1], q_rope_BHTR.shape[-1]
    kv_BSF = F.linear(latent_BSL, kv_up_HEL.flatten(0, 1))
    kv_BHSE = torch.unflatten(kv_BSF, 2, (-1, 2 * width)).transpose(1, 2)
    k_BHSD, v_BHSD = kv_BHSE[..., :width], kv_BHSE[..., width:]
    shared = k_rope_BSR.unsqueeze(1).expand(-1, k_BHSD.shape[1], -1, -1)
    q_BHTE, k_BHSE = torch.cat([q_BHTD, q_rope_BHTR], 3), torch.cat([k_BHSD, shared], 3)
    y, kernel = fused_attention(q_BHTE, k_BHSE, F.pad(v_BHSD, (0, rope)), causal=True, scale=(width + rope) ** -0.5)
    return y[..., :width], kernel


def in_blocks(tokens: int, device: torch.device) -> bool:
    """Whether attention goes by blocks of queries."""
    return tokens >= LONG and device.type in ("cpu", "meta")


def absorbed_attention(
    q_BHTD: Tensor, q_rope_BHTR: Tensor, latent_BSL: Tensor, k_rope_BSR: Tensor, kv_up_HEL: Tensor
) -> Tensor:
    """The same without ever making keys or values: W_UK is applied to the queries before the scores, W_UV after.

    For decoding: a step reads the latents once for all heads instead of re-expanding them.
    """
    width, rope = q_BHTD.shape[-1], q_rope_BHTR.shape[-1]
    queries, keys = q_BHTD.shape[2], latent_BSL.shape[1]
    up_keys_HDL, up_values_HDL = kv_up_HEL[:, :width], kv_up_HEL[:, width:]
    # All heads read the same latents, so heads and queries are the rows of one product: nothing is spread over heads.
    scale = (width + rope) ** -0.5
    q_latent, q_rope = ((x * scale).flatten(1, 2) for x in (q_BHTD @ up_keys_HDL, q_rope_BHTR))
    scores = rows_on_columns(q_latent, latent_BSL) + rows_on_columns(q_rope, k_rope_BSR)
    scores = torch.unflatten(scores, 1, (-1, queries))
    if queries > 1:
        scores = scores.masked_fill(lower_right_mask(queries, keys, q_BHTD.device).logical_not(), float("-inf"))
    found_BHTL = torch.unflatten(rows_of_sums(scores.softmax(-1).flatten(1, 2), latent_BSL), 1, (-1, queries))
    return torch.matmul(found_BHTL, up_values_HDL.transpose(1, 2))


def rows_on_columns(few_BRL: Tensor, many_BSL: Tensor) -> Tensor:
    """few · manyᵀ, (B, R, S), in products of :data:`PART` columns on a CPU."""
    if few_BRL.device.type != "cpu":
        return torch.bmm(few_BRL, many_BSL.transpose(1, 2))
    found = []
    for few_RL, many_SL in zip(few_BRL, many_BSL, strict=True):
        parts_NPL, rest_QL = _parts(many_SL)
        by_part = torch.bmm(few_RL.expand(len(parts_NPL), -1, -1), parts_NPL.transpose(1, 2))
        found.append(torch.cat([by_part.transpose(0, 1).flatten(1), few_RL @ rest_QL.T], 1))
    return torch.stack(found)


def rows_of_sums(weights_BRS: Tensor, many_BSL: Tensor) -> Tensor:
    """weights · many, (B, R, L), in products over :data:`PART` of the sum on a CPU."""
    if weights_BRS.device.type != "cpu":
        return torch.bmm(weights_BRS, many_BSL)
    found = []
    for weights_RS, many_SL in zip(weights_BRS, many_BSL, strict=True):
        parts_NPL, rest_QL = _parts(many_SL)
        whole = len(many_SL) - len(rest_QL)
        apart_RNP = torch.unflatten(weights_RS[:, :whole], 1, (len(parts_NPL), PART))
        by_part = torch.bmm(apart_RNP.transpose(0, 1), parts_NPL)
        found.append(by_part.sum(0) + weights_RS[:, whole:] @ rest_QL)
    return torch.stack(found)


def _parts(many_SL: Tensor) -> tuple[Tensor, Tensor]:
    """(N, PART, L), and what remains."""
    whole = len(many_SL) // PART * PART
    return torch.unflatten(many_SL[:whole], 0, (whole // PART, PART)), many_SL[whole:]


class Mla(Mechanism):
    """Keys and values from one low-rank latent a token, a shared rotary key beside it: T² time, a tiny cache.

    Queries go through a low rank too. Both latents are RMS-normed; no biases. `rope` is the base of the decoupled
    rotary part, always there; the scale is 1/√(head_dim + rope_dim). Defaults: ranks ``dim // 2``, rope_dim 32.
    Cache: `latents` (batch, tokens, kv_rank), normed, and `keys` (batch, tokens, rope_dim), rotated.
    """

    label: ClassVar[str] = "latent attention (MLA, which brings rotary positions)"
    causal_only: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_rank: int | None = None,
        q_rank: int | None = None,
        rope_dim: int = 32,
        rope: float | None = None,
    ) -> None:
        super().__init__(dim, heads)
        self.kv_rank = max(1, dim // 2) if kv_rank is None else kv_rank
        self.q_rank = max(1, dim // 2) if q_rank is None else q_rank
        for name, rank in (("kv_rank", self.kv_rank), ("q_rank", self.q_rank)):
            if rank < 1:
                raise InputError(f"{name} {rank}", expected=f"{name} ≥ 1", cure="dim // 2 is the default")
        self.rope_dim, self.rope = rope_dim, BASE if rope is None else rope
        check_rotary(rope_dim, self.rope, "rope_dim")
        self.q_down = nn.Linear(dim, self.q_rank, bias=False)
        self.q_norm = nn.RMSNorm(self.q_rank, eps=1e-6)
        self.q_up = nn.Linear(self.q_rank, heads * (self.head_dim + rope_dim), bias=False)
        self.kv_down = nn.Linear(dim, self.kv_rank + rope_dim, bias=False)
        self.kv_norm = nn.RMSNorm(self.kv_rank, eps=1e-6)
        self.kv_up = nn.Linear(self.kv_rank, heads * 2 * self.head_dim, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def run(self, x_BTC: Tensor, cache: Cache | None) -> tuple[Tensor, Cache | None]:
        start, tokens = 0 if cache is None else cache.length, x_BTC.shape[1]
        q_BTHE = torch.unflatten(self.q_up(self.q_norm(self.q_down(x_BTC))), 2, (self.heads, -1))
        latent_BTL, k_rope_BTR = self.kv_down(x_BTC).split([self.kv_rank, self.rope_dim], 2)
        cos, sin = turns(start, tokens, self.rope_dim, self.rope, x_BTC)
        latent_BTL, k_rope_BTR = self.kv_norm(latent_BTL), turn(k_rope_BTR, cos, sin)
        grown = None
        if cache is not None:
            whole, buffers = cache.grown({"latents": latent_BTL, "keys": k_rope_BTR}, 1)
            latent_BTL, k_rope_BTR = whole["latents"], whole["keys"]
            grown = Cache(whole, start + tokens, buffers)
        if not start and in_blocks(tokens, x_BTC.device):
            self.kernel = "blocked"
            kv_BTHF = torch.unflatten(self.kv_up(latent_BTL), 2, (self.heads, -1))
            y_BTHD = BlockedAttention.apply(q_BTHE, kv_BTHF, k_rope_BTR, cos, sin)
        else:
            y_BTHD = self._beside_latents(q_BTHE, latent_BTL, k_rope_BTR, cos, sin).transpose(1, 2)
        y: Tensor = self.o_proj(y_BTHD.flatten(2))
        return y, grown

    def _beside_latents(
        self, q_BTHE: Tensor, latent_BSL: Tensor, k_rope_BSR: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        q_BHTE, up_HEL = q_BTHE.transpose(1, 2), torch.unflatten(self.kv_up.weight, 0, (self.heads, -1))
        parts = q_BHTE[..., : self.head_dim], turn(q_BHTE[..., self.head_dim :], cos, sin), latent_BSL, k_rope_BSR
        if latent_BSL.shape[1] > q_BTHE.shape[1] and self.absorbing(q_BTHE.shape[1]):
            self.kernel = "absorbed"
            return absorbed_attention(*parts, up_HEL)
        y_BHTD, self.kernel = expanded_attention(*parts, up_HEL)
        return y_BHTD

    def absorbing(self, tokens: int) -> bool:
        """Whether scores against the latents are less work, for so many new tokens, than making keys and values."""
        return tokens * (self.kv_rank - self.head_dim) < self.kv_rank * self.head_dim

    def new_cache(self, batch: int) -> Cache:
        latents, keys = (self.weight.new_zeros(batch, 0, width) for width in (self.kv_rank, self.rope_dim))
        return Cache({"latents": latents, "keys": keys})

    def cache_bytes(self, tokens: int) -> int:
        return tokens * (self.kv_rank + self.rope_dim) * self.weight.element_size()

    def macs(self, batch: int, tokens: int) -> Macs:
        """Of the expanded form; making keys and values from the latents is a projection and not in it."""
        keys, heads = self.head_dim + self.rope_dim, batch * self.heads
        necessary = self.pairs(tokens) * heads * (keys + self.head_dim)
        if in_blocks(tokens, self.weight.device):
            return Macs(necessary, blocked_pairs(tokens) * heads * (keys + self.head_dim))
        executed = tokens * tokens if self.kernel == "sdpa:math" else self.pairs(tokens)
        return Macs(necessary, executed * heads * 2 * keys)
