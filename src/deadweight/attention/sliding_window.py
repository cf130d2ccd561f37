"""Each query sees the last `window` keys and itself is one of them; no T × T mask, no wasted rows of one."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from deadweight.attention import flex
from deadweight.attention.banded import BLOCK, PIECE, BandedAttention
from deadweight.attention.base import Macs
from deadweight.attention.sdpa import Sdpa, fused_attention
from deadweight.errors import InputError

LONG = 1024  # queries from which the scores are made piece by piece, and made again on the way back


def blocks_of(tokens: int, window: int, dtype: torch.dtype) -> tuple[int, int]:
    """(queries a block, blocks of keys before it that its first query may need)."""
    block = min(BLOCK * 2 if dtype.itemsize == 2 else BLOCK, tokens)
    return block, -(-(window - 1) // block)


def in_pieces(tokens: int, device: torch.device) -> bool:
    """Whether the work goes head by head in pieces of a processor's cache; a GPU wants all heads at once."""
    return tokens >= LONG and device.type in ("cpu", "meta")


def banded_attention(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, window: int, *, causal: bool) -> Tensor:
    """softmax(QKᵀ/√d) V over the keys at a distance below `window`, exactly (ours).

    The T queries belong to the last T of the S keys (S < T + window). Short sequences and two-sided attention keep
    their scores; long causal ones on a CPU go through :class:`~deadweight.attention.banded.BandedAttention`, which does
    not.
    """
    tokens = q_BHTD.shape[2]
    if causal and in_pieces(tokens, q_BHTD.device):
        block, _ = blocks_of(tokens, window, q_BHTD.dtype)
        y_BHTD: Tensor = BandedAttention.apply(q_BHTD, k_BHSD, v_BHSD, window, block, PIECE)
        return y_BHTD
    return short_banded_attention(q_BHTD, k_BHSD, v_BHSD, window, causal=causal)


def short_banded_attention(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, window: int, *, causal: bool) -> Tensor:
    """The same with all scores of the band in memory.

    Queries go in blocks; a block sees its own keys and the neighbouring blocks' that its window reaches, so that the
    work is T · (window + block), not T².
    """
    tokens, past = q_BHTD.shape[2], k_BHSD.shape[2] - q_BHTD.shape[2]
    block, before = blocks_of(tokens, window, q_BHTD.dtype)
    after = 0 if causal else before
    count = -(-tokens // block)
    tail = count * block - tokens
    q_BHNID = torch.unflatten(F.pad(q_BHTD, (0, 0, 0, tail)), 2, (count, block))
    k_BHNJD, v_BHNJD = (
        _neighbourhoods(F.pad(x, (0, 0, before * block - past, after * block + tail)), block, count, before + after)
        for x in (k_BHSD, v_BHSD)
    )
    scores_BHNIJ = (q_BHNID * q_BHTD.shape[-1] ** -0.5) @ k_BHNJD.transpose(3, 4)
    hidden = band_mask(tokens, past, block, before, after, window, q_BHTD.device).logical_not()
    # A padded query may see no key at all: a large finite value keeps its softmax, and so its gradient, finite.
    weights_BHNIJ = scores_BHNIJ.masked_fill(hidden, torch.finfo(scores_BHNIJ.dtype).min).softmax(-1)
    return torch.matmul(weights_BHNIJ, v_BHNJD).flatten(2, 3)[:, :, :tokens]


def band_mask(tokens: int, past: int, block: int, before: int, after: int, window: int, device: torch.device) -> Tensor:
    """True where a query may look, (blocks, block, keys of the neighbourhood): near enough, and a real key."""
    count = -(-tokens // block)
    query_NI1 = torch.arange(count * block, device=device).view(count, block, 1)
    first_N11 = query_NI1[:, :1] - before * block
    key_N1J = first_N11 + torch.arange((before + 1 + after) * block, device=device)
    distance_NIJ = query_NI1 - key_N1J
    near = (distance_NIJ < window) & (distance_NIJ > (-window if after else -1))
    return near & (key_N1J >= -past) & (key_N1J < tokens)


def _neighbourhoods(x_BHSD: Tensor, block: int, count: int, neighbours: int) -> Tensor:
    """(B, H, count, (neighbours + 1) · block, D): for each block the keys it may see, laid out side by side."""
    blocks = torch.unflatten(x_BHSD, 2, (count + neighbours, block))
    return torch.cat([blocks[:, :, n : n + count] for n in range(neighbours + 1)], 3)


class SlidingWindow(Sdpa):
    """Each query sees the last `window` keys, itself included: T · window time, a cache that stops growing.

    Without the causal mask it sees the keys at a distance below `window` on both sides.
    Cache: the last ``window - 1`` keys and values. Sequences no longer than the window take the fused kernel; training
    in 16 bits on a GPU takes PyTorch's `flex_attention`, compiled, where that works.
    """

    label: ClassVar[str] = "sliding-window attention"
    function: ClassVar[str] = ""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        window: int = 256,
        rope: float | None = None,
        causal: bool = True,
        bias: bool = True,
    ) -> None:
        if window < 1:
            raise InputError(f"window {window}", expected="window ≥ 1", cure="1 sees only the query itself")
        super().__init__(dim, heads, rope=rope, causal=causal, bias=bias)
        self.window = window

    def attend(self, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
        queries, keys = q_BHTD.shape[2], k_BGSD.shape[2]
        if keys <= self.window:
            y_BHTD, self.kernel = fused_attention(q_BHTD, k_BGSD, v_BGSD, causal=self.causal)
            return y_BHTD
        if flex.fits(q_BHTD, k_BGSD):
            self.kernel = flex.KERNEL
            return flex.flex_attention(q_BHTD, k_BGSD, v_BGSD, flex.band(self.window, self.causal))
        reach = min(keys, queries + self.window - 1)
        self.kernel = "banded"
        return banded_attention(
            q_BHTD, k_BGSD[:, :, keys - reach :], v_BGSD[:, :, keys - reach :], self.window, causal=self.causal
        )

    def kept(self, x_BGSD: Tensor) -> Tensor:
        kept = x_BGSD[:, :, x_BGSD.shape[2] - self.kept_tokens(x_BGSD.shape[2]) :]
        return kept if torch.is_grad_enabled() else kept.clone()  # a view would keep what it leaves out

    def kept_tokens(self, tokens: int) -> int:
        return min(tokens, self.window - 1)

    def pairs(self, tokens: int) -> int:
        reach = min(tokens, self.window)
        below = reach * (reach + 1) // 2 + (tokens - reach) * reach
        return below if self.causal else 2 * below - tokens

    def macs(self, batch: int, tokens: int) -> Macs:
        if tokens <= self.window:
            return super().macs(batch, tokens)
        if self.kernel == flex.KERNEL:
            pairs = self.pairs(tokens) * 2 * self.head_dim * self.heads * batch
            return Macs(pairs, pairs)
        block, before = blocks_of(tokens, self.window, self.weight.dtype)
        span = block * (1 + before if self.causal else 1 + 2 * before)
        a_pair = 2 * self.head_dim * self.heads * batch
        return Macs(self.pairs(tokens) * a_pair, -(-tokens // block) * block * span * a_pair)
