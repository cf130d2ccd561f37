"""The gated delta rule (Yang et al. 2024, arXiv 2412.06464): a state that forgets, and overwrites what a key held."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deadweight.attention.base import Cache, Macs, Projected
from deadweight.attention.linear_chunks import summing
from deadweight.attention.lsh_blocks import unit
from deadweight.errors import InputError

REMEMBER = 4.0  # bias of the gate: at first it keeps sigmoid(4) = 98 % a step


def unit_lower_inverse(below_NCC: Tensor) -> Tensor:
    """(I + A)⁻¹ of strictly lower triangular A, C a power of two, by halves (ours; exact as substitution is).

    [[P, 0], [R, Q]]⁻¹ = [[P⁻¹, 0], [−Q⁻¹ R P⁻¹, Q⁻¹]], from blocks of one up.
    """
    size, count = below_NCC.shape[1], len(below_NCC)
    inverse = torch.ones(count, size, 1, 1, dtype=below_NCC.dtype, device=below_NCC.device)
    half = 1
    while half < size:
        pairs = size // (2 * half)
        corners = below_NCC.view(count, pairs, 2 * half, pairs, 2 * half).diagonal(dim1=1, dim2=3)
        corner = corners.permute(0, 3, 1, 2)[:, :, half:, :half]
        first, second = inverse[:, 0::2], inverse[:, 1::2]
        mixed = -(second @ corner @ first)
        above = torch.cat([first, torch.zeros_like(first)], 3)
        inverse = torch.cat([above, torch.cat([mixed, second], 3)], 2)
        half *= 2
    return inverse[:, 0]


def gated_delta(
    q: Tensor, k: Tensor, v: Tensor, log_keep: Tensor, write: Tensor, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """S_t = α_t (I − β_t k_t k_tᵀ) S_{t−1} + β_t k_t v_tᵀ and y_t = S_tᵀ q_t (equation 10), chunk by chunk.

    q, k, v (B, H, T, D); `log_keep` log α and `write` β (B, H, T); `state` S (B, H, D, D). A chunk's writes u obey
    (I + A) U = β (V − g K S), with g the product of α since its start and A_ts = β_t (g_t/g_s) (k_t · k_s) for s < t
    (section 3.3).
    """
    tokens = q.shape[2]
    tail, exact, dtype = -tokens % chunk, state.dtype, q.dtype
    q, k, v = (torch.unflatten(F.pad(x, (0, 0, 0, tail)), 2, (-1, chunk)) for x in (q, k, v))
    log_keep, write = (torch.unflatten(F.pad(x.to(exact), (0, tail)), 2, (-1, chunk)) for x in (log_keep, write))
    kept = log_keep.cumsum(3)
    ratio = (kept.unsqueeze(4) - kept.unsqueeze(3)).tril().exp().tril()
    write = write.unsqueeze(4)
    overlap = (k @ k.transpose(3, 4)).to(exact) * ratio * write
    solved = unit_lower_inverse(overlap.tril(-1).flatten(0, 2)).view(overlap.shape).to(dtype)
    since, until = kept.exp().unsqueeze(4), (kept[..., -1:] - kept).exp().unsqueeze(4)
    erased, written = solved @ (k * (write * since).to(dtype)), solved @ (v * write.to(dtype))
    scores, reading = (q @ k.transpose(3, 4)) * ratio.to(dtype), q * since.to(dtype)
    left = k * until.to(dtype)
    found = []
    for n in range(q.shape[2]):
        rough = state.to(dtype)
        new = written[:, :, n] - erased[:, :, n] @ rough
        found.append(reading[:, :, n] @ rough + scores[:, :, n] @ new)
        state = state * since[:, :, n, -1:] + left[:, :, n].transpose(2, 3) @ new
    return torch.cat(found, 2)[:, :, :tokens], state


class GatedDelta(Projected):
    """A state that fades by a gate and overwrites what a key held before: T time, a state of constant size.

    Queries and keys have length one (queries then scaled by 1/√d); the gate α = sigmoid(`keep_proj` x + `keep_bias`)
    and the writing strength β = sigmoid(`write_proj` x) are a number a head and token. The paper's short convolutions
    and output gate are left out: this is the rule alone, under the same four projections as the other mechanisms.
    Cache: `kv` (batch, heads, head_dim, head_dim), the same for any length.
    """

    label: ClassVar[str] = "gated delta attention"
    causal_only: ClassVar[bool] = True

    carries = False

    def __init__(self, dim: int, heads: int, *, chunk: int = 64, rope: float | None = None, bias: bool = True) -> None:
        if chunk < 1 or chunk & (chunk - 1):
            raise InputError(f"chunk {chunk}", expected="a power of two", cure="64 is a good size")
        super().__init__(dim, heads, rope=rope, bias=bias)
        self.chunk = chunk
        self.keep_proj, self.write_proj = nn.Linear(dim, heads, bias=False), nn.Linear(dim, heads)
        # apart from its projection, whose bias a model that hosts it may set to zero
        self.keep_bias = nn.Parameter(torch.full((heads,), REMEMBER))

    def attend(self, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
        raise InputError(
            "the gated delta rule without its gates", expected="the whole mechanism", cure="call it on the stream"
        )

    def run(self, x_BTC: Tensor, cache: Cache | None) -> tuple[Tensor, Cache | None]:
        q, k, v = self.project(x_BTC, 0 if cache is None else cache.length)
        log_keep, write = F.logsigmoid(self.keep_proj(x_BTC) + self.keep_bias), self.write_proj(x_BTC).sigmoid()
        state = q.new_zeros(*q.shape[:2], self.head_dim, self.head_dim) if cache is None else cache.tensors["kv"]
        self.kernel = "chunked"
        y, state = gated_delta(
            unit(q) * self.head_dim**-0.5, unit(k), v, log_keep.transpose(1, 2), write.transpose(1, 2),
            state.to(summing(q.dtype)), self._chunk(x_BTC.shape[1]),
        )  # fmt: skip
        return self.merge(y), None if cache is None else Cache({"kv": state.to(q.dtype)}, cache.length + q.shape[2])

    def _chunk(self, tokens: int) -> int:
        return min(self.chunk, 1 << (tokens - 1).bit_length())

    def new_cache(self, batch: int) -> Cache:
        return Cache({"kv": self.weight.new_zeros(batch, self.heads, self.head_dim, self.head_dim)})

    def cache_bytes(self, tokens: int) -> int:
        """The same for any number of tokens."""
        return self.heads * self.head_dim**2 * self.weight.element_size()

    def macs(self, batch: int, tokens: int) -> Macs:
        """Necessary is the recurrent form: a token reads the state for its key, writes, and reads it for its query."""
        width, chunk = self.head_dim, self._chunk(tokens)
        solving = sum(chunk // (2 * half) * 2 * half**3 for half in (1 << n for n in range(chunk.bit_length() - 1)))
        a_chunk = 5 * chunk * chunk * width + 3 * chunk * width * width + solving
        heads = batch * self.heads
        return Macs(heads * tokens * 3 * width * width, heads * -(-tokens // chunk) * a_chunk)
