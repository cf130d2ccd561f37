"""Retention (Sun et al. 2023, arXiv 2307.08621): no softmax, and a past that fades at a fixed rate."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deadweight.attention.base import Cache, Macs, Projected
from deadweight.attention.linear_chunks import summing
from deadweight.errors import InputError

EPSILON = 1e-6


def decays(heads: int, device: torch.device | None = None) -> Tensor:
    """What a head keeps of the past at each step: γ = 1 − 2^(−5 − h) (section 2.2), in float64."""
    return 1 - 2.0 ** (-5 - torch.arange(heads, dtype=torch.float64, device=device))


def retain(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, state_BHDD: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """y_t = Σ_{s ≤ t} γ^(t−s) (q_t · k_s) v_s and the state after the last token, Σ γ^(T−s) k_s v_sᵀ, chunk by chunk.

    `state_BHDD` is what the tokens before have left, in float32 at least (equation 7; a chunk's state is decayed once).
    """
    dtype, gamma_H11 = q_BHTD.dtype, decays(q_BHTD.shape[1], q_BHTD.device)[:, None, None]
    place = torch.arange(chunk, device=q_BHTD.device, dtype=torch.float64)
    within_HCC = (gamma_H11 ** (place[:, None] - place).clamp(min=0)).tril().to(dtype)
    since_HC1, until_HC1 = gamma_H11 ** (place[:, None] + 1), gamma_H11 ** (chunk - 1 - place[:, None])
    found = []
    for q, k, v in zip(*(torch.split(x, chunk, 2) for x in (q_BHTD, k_BHTD, v_BHTD)), strict=True):
        count = q.shape[2]
        scores = (q @ k.transpose(2, 3)) * within_HCC[:, :count, :count]
        past = (q * since_HC1[:, :count].to(dtype)) @ state_BHDD.to(dtype)
        found.append(scores @ v + past)
        left = (k * until_HC1[:, chunk - count :].to(dtype)).transpose(2, 3) @ v
        state_BHDD = state_BHDD * (gamma_H11**count).to(state_BHDD.dtype) + left
    return torch.cat(found, 2), state_BHDD


class Retention(Projected):
    """Scores without a softmax, faded by γ^distance with a rate a head: T time, a state of constant size.

    Outputs of a head are normed to a root mean square of one, gated with silu(W x), then projected (section 2.2).
    Cache: `kv` (batch, heads, head_dim, head_dim), the same for any length.
    """

    label: ClassVar[str] = "retention"
    causal_only: ClassVar[bool] = True

    carries = False

    def __init__(self, dim: int, heads: int, *, chunk: int = 64, rope: float | None = None, bias: bool = True) -> None:
        if chunk < 1:
            raise InputError(f"chunk {chunk}", expected="chunk ≥ 1", cure="64 is a good size")
        super().__init__(dim, heads, rope=rope, bias=bias)
        self.chunk = chunk
        self.gate_proj = nn.Linear(dim, dim, bias=bias)

    def attend(self, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
        empty = q_BHTD.new_zeros(*q_BHTD.shape[:2], self.head_dim, self.head_dim, dtype=summing(q_BHTD.dtype))
        return self._retained(q_BHTD, k_BGSD, v_BGSD, empty)[0]

    def _retained(self, q: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.kernel = "chunked"
        y, state = retain(q * self.head_dim**-0.5, k, v, state, min(self.chunk, q.shape[2]))
        return y * (y.pow(2).mean(-1, keepdim=True) + EPSILON).rsqrt(), state

    def run(self, x_BTC: Tensor, cache: Cache | None) -> tuple[Tensor, Cache | None]:
        q, k, v = self.project(x_BTC, 0 if cache is None else cache.length)
        gate = torch.unflatten(F.silu(self.gate_proj(x_BTC)), 2, (self.heads, -1)).transpose(1, 2)
        if cache is None:
            return self.merge(self.attend(q, k, v) * gate), None
        y, state = self._retained(q, k, v, cache.tensors["kv"].to(summing(q.dtype)))
        return self.merge(y * gate), Cache({"kv": state.to(q.dtype)}, cache.length + x_BTC.shape[1])

    def new_cache(self, batch: int) -> Cache:
        return Cache({"kv": self.weight.new_zeros(batch, self.heads, self.head_dim, self.head_dim)})

    def cache_bytes(self, tokens: int) -> int:
        """The same for any number of tokens."""
        return self.heads * self.head_dim**2 * self.weight.element_size()

    def macs(self, batch: int, tokens: int) -> Macs:
        """Necessary is the recurrent form: each token adds to the state and reads it."""
        width, chunk = self.head_dim, min(self.chunk, tokens)
        whole, rest = divmod(tokens, chunk)
        inside = 2 * width * (whole * chunk**2 + rest**2)
        states = 2 * tokens * width**2
        return Macs(batch * self.heads * states, batch * self.heads * (inside + states))
