"""Linear attention (Katharopoulos et al. 2020): a kernel instead of the softmax, so that the past fits in a state."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deadweight.attention.base import Cache, Macs, Projected
from deadweight.errors import InputError

FAN = 64  # chunks summed by one triangular product


class State(NamedTuple):
    """What linear attention keeps of the past: Σ φ(k) vᵀ (B, H, D, D) and Σ φ(k) (B, H, D)."""

    kv: Tensor
    k: Tensor


def feature_map(x: Tensor) -> Tensor:
    """φ(x) = elu(x) + 1 (Katharopoulos et al. 2020, equation 7): exp(x) below zero, x + 1 above, always positive."""
    return x.clamp(max=0).exp() + x.relu()


def exclusive_prefix(x_BNM: Tensor) -> Tensor:
    """Sum of all rows before each, along the second-last dimension.

    By products with a triangle of ones, in groups of FAN and then over the groups' totals: a `cumsum` along a middle
    dimension is slower, and its gradient, taken as total minus prefix, would cancel.
    """
    rows = x_BNM.shape[-2]
    if rows <= FAN:
        return torch.ones(rows, rows, dtype=x_BNM.dtype, device=x_BNM.device).tril(-1) @ x_BNM
    groups = torch.unflatten(F.pad(x_BNM, (0, 0, 0, -rows % FAN)), -2, (-1, FAN))
    before = exclusive_prefix(groups.sum(-2))
    return (exclusive_prefix(groups) + before.unsqueeze(-2)).flatten(-3, -2)[..., :rows, :]


def chunked_linear_attention(
    q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, state: State | None, chunk: int
) -> tuple[Tensor, State]:
    """Causal linear attention of mapped queries and keys, and the state after the last token (ours).

    y_t = Σ_{s ≤ t} (q_t · k_s) v_s / Σ_{s ≤ t} q_t · k_s: inside a chunk by a masked product, over the chunks before
    through their summed states. Work T · (chunk + head_dim), no T × T matrix.
    """
    tokens, width = q_BHTD.shape[2:]
    chunk = min(chunk, tokens)
    tail = (0, 0, 0, -tokens % chunk)
    q, k, v = (torch.unflatten(F.pad(x, tail), 2, (-1, chunk)) for x in (q_BHTD, k_BHTD, v_BHTD))
    scores_BHNIJ = (q @ k.transpose(3, 4)).tril()
    kv_BHNDD, k_BHND = k.transpose(3, 4) @ v, k.sum(3)
    past_kv = torch.unflatten(exclusive_prefix(kv_BHNDD.flatten(3)), 3, (width, width))
    past_k = exclusive_prefix(k_BHND)
    if state is not None:
        past_kv, past_k = past_kv + state.kv.unsqueeze(2), past_k + state.k.unsqueeze(2)
    numerator = scores_BHNIJ @ v + q @ past_kv
    denominator = scores_BHNIJ.sum(4, keepdim=True) + q @ past_k.unsqueeze(4)
    last = State(past_kv[:, :, -1] + kv_BHNDD[:, :, -1], past_k[:, :, -1] + k_BHND[:, :, -1])
    return normalised(numerator, denominator).flatten(2, 3)[:, :, :tokens], last


def normalised(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient; a denominator that underflows gives zero, not NaN, and gradients without infinities."""
    return numerator / denominator.clamp(min=torch.finfo(denominator.dtype).tiny ** 0.5)


class Linear(Projected):
    """Kernel attention with φ = elu + 1 and causal prefix sums in chunks: T time, a state of constant size.

    Cache: `kv` (batch, heads, head_dim, head_dim) and `k` (batch, heads, head_dim), the same for any length.
    """

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
        q, k = feature_map(q_BHTD), feature_map(k_BGSD)
        if self.causal:
            self.kernel = "chunked"
            return chunked_linear_attention(q, k, v_BGSD, None, self.chunk)[0]
        self.kernel = "two products"
        return normalised(q @ (k.transpose(2, 3) @ v_BGSD), q @ k.sum(2).unsqueeze(3))

    def run(self, x_BTC: Tensor, cache: Cache | None) -> tuple[Tensor, Cache | None]:
        if cache is None:
            return super().run(x_BTC, None)
        q, k, v = self.project(x_BTC, cache.length)
        before = State(cache.tensors["kv"], cache.tensors["k"])
        self.kernel = "chunked"
        y, after = chunked_linear_attention(feature_map(q), feature_map(k), v, before, self.chunk)
        return self.merge(y), Cache({"kv": after.kv, "k": after.k}, cache.length + x_BTC.shape[1])

    def new_cache(self, batch: int) -> Cache:
        shape = (batch, self.heads, self.head_dim)
        return Cache({"kv": self.weight.new_zeros(*shape, self.head_dim), "k": self.weight.new_zeros(*shape)})

    def cache_bytes(self, tokens: int) -> int:
        """The same for any number of tokens."""
        return self.heads * self.head_dim * (self.head_dim + 1) * self.weight.element_size()

    def macs(self, batch: int, tokens: int) -> Macs:
        """Necessary is the recurrent form: each token adds to the state, and reads it and the normaliser."""
        width = self.head_dim
        necessary = tokens * (2 * width * width + width)
        if not self.causal:
            return Macs(batch * self.heads * necessary, batch * self.heads * necessary)
        chunk = min(self.chunk, tokens)
        count = -(-tokens // chunk)
        inside = 2 * chunk * chunk * width
        states = 2 * chunk * width * width + chunk * width
        summing = prefix_macs(count, width * width) + prefix_macs(count, width)
        return Macs(batch * self.heads * necessary, batch * self.heads * (count * (inside + states) + summing))


def prefix_macs(rows: int, columns: int) -> int:
    """MACs of :func:`exclusive_prefix`."""
    if rows <= FAN:
        return rows * rows * columns
    groups = -(-rows // FAN)
    return groups * FAN * FAN * columns + prefix_macs(groups, columns)
