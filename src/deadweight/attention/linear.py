"""Linear attention (Katharopoulos et al. 2020): a kernel instead of the softmax, so that the past fits in a state."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from deadweight.attention.base import Cache, Macs, Projected
from deadweight.attention.linear_chunks import State, blocking, chunked_linear_attention, feature_map, least
from deadweight.errors import InputError


class Linear(Projected):
    """Kernel attention with φ = elu + 1 and causal prefix sums in chunks: T time, a state of constant size.

    `chunk` is a matter of speed alone, in tokens; 16-bit types take twice as many.
    Cache: `kv` (batch, heads, head_dim, head_dim) and `k` (batch, heads, head_dim), the same for any length.
    """

    label: ClassVar[str] = "linear attention"
    keeps_parameters: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        chunk: int = 64,
        rope: float | None = None,
        causal: bool = True,
        bias: bool = True,
    ) -> None:
        if chunk < 1:
            raise InputError(f"chunk {chunk}", expected="chunk ≥ 1", cure="64 is a good size")
        super().__init__(dim, heads, rope=rope, causal=causal, bias=bias)
        self.chunk = chunk

    def attend(self, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
        if self.causal:
            self.kernel = "chunked"
            past = k_BGSD.shape[2] - q_BHTD.shape[2]
            state = None
            if past:  # a host that keeps keys and values where ours keeps a state
                seen_k, seen_v = feature_map(k_BGSD[:, :, :past]), v_BGSD[:, :, :past]
                state = State(seen_k.transpose(2, 3) @ seen_v, seen_k.sum(2))
            return chunked_linear_attention(q_BHTD, k_BGSD[:, :, past:], v_BGSD[:, :, past:], state, self.chunk)[0]
        self.kernel = "two products"
        q, k = feature_map(q_BHTD), feature_map(k_BGSD)
        denominator = q @ k.sum(2).unsqueeze(3)
        return torch.matmul(q, k.transpose(2, 3) @ v_BGSD) / denominator.clamp(min=least(denominator.dtype))

    def run(self, x_BTC: Tensor, cache: Cache | None) -> tuple[Tensor, Cache | None]:
        if cache is None:
            return super().run(x_BTC, None)
        q, k, v = self.project(x_BTC, cache.length)
        before = State(cache.tensors["kv"], cache.tensors["k"])
        self.kernel = "chunked"
        y, after = chunked_linear_attention(q, k, v, before, self.chunk)
        return self.merge(y), Cache({"kv": after.kv, "k": after.k}, cache.length + x_BTC.shape[1])

    def new_cache(self, batch: int) -> Cache:
        shape = (batch, self.heads, self.head_dim)
        return Cache({"kv": self.weight.new_zeros(*shape, self.head_dim), "k": self.weight.new_zeros(*shape)})

    def cache_bytes(self, tokens: int) -> int:
        """The same for any number of tokens."""
        return self.heads * self.head_dim * (self.head_dim + 1) * self.weight.element_size()

    def macs(self, batch: int, tokens: int) -> Macs:
        """Necessary is the recurrent form: each token adds to the state, and reads it and the normaliser.

        Executed are matrix products alone; the normaliser is read by an elementwise sum.
        """
        width = self.head_dim
        necessary = tokens * (2 * width * width + width)
        if not self.causal:
            return Macs(batch * self.heads * necessary, batch * self.heads * necessary)
        chunk, at_once = blocking(self.chunk, tokens, self.weight.dtype, self.weight.device, batch * self.heads)
        count = -(-tokens // chunk)
        inside = 2 * chunk * chunk * width
        states = 2 * chunk * width * width
        whole, rest = divmod(count, at_once)
        summing = (whole * at_once**2 + rest**2) * (width * width + width)
        return Macs(batch * self.heads * necessary, batch * self.heads * (count * (inside + states) + summing))
