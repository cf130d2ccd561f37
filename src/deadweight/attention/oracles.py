"""The mechanisms once more, so plainly that one sees they are right: who sees whom as a table, then one softmax.

Each takes the split heads that the mechanism's own projections made, (B, H, T, D) in float64, and returns the same
shape. They are differentiable, so that gradients can be compared too. T × T in memory, Python loops: for tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def table(tokens: int, sees: Callable[[int, int], bool]) -> Tensor:
    """(T, T): 1 where the query of the row sees the key of the column."""
    return torch.tensor([[float(sees(t, s)) for s in range(tokens)] for t in range(tokens)], dtype=torch.float64)


def softmax_over(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTE: Tensor, seen_TT: Tensor, scale: float) -> Tensor:
    """Σ exp(q·k) v / Σ exp(q·k) over the keys each query sees."""
    scores = torch.einsum("bhtd,bhsd->bhts", q_BHTD, k_BHTD) * scale
    peak = scores.detach().masked_fill(seen_TT == 0, -math.inf).amax(-1, keepdim=True)
    shares = torch.where(seen_TT == 0, 0.0, (torch.where(seen_TT == 0, peak, scores) - peak).exp())
    return torch.einsum("bhts,bhse->bhte", shares / shares.sum(-1, keepdim=True), v_BHTE)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, causal: bool = True) -> Tensor:
    """eager, sdpa, flash, sliding_window (`window`), gqa and mqa (fewer heads in `k` and `v`)."""
    share = q.shape[1] // k.shape[1]
    k, v = (torch.stack([x[:, h // share] for h in range(q.shape[1])], 1) for x in (k, v))
    seen = table(q.shape[2], lambda t, s: (s <= t or not causal) and (window is None or abs(t - s) < window))
    return softmax_over(q, k, v, seen, 1 / math.sqrt(q.shape[-1]))


def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True) -> Tensor:
    """φ(q)·φ(k) in place of exp(q·k), with φ(x) = elu(x) + 1 by its two cases."""

    def phi(x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, x.clamp(max=0).exp())

    seen = table(q.shape[2], lambda t, s: s <= t or not causal)
    weights = torch.einsum("bhtd,bhsd->bhts", phi(q), phi(k)) * seen
    return torch.einsum("bhts,bhse->bhte", weights / weights.sum(-1, keepdim=True), v)


def bucket_attention(q: Tensor, v: Tensor, buckets: Tensor, window: int) -> Tensor:
    """lsh, given the bucket (B, H, R, T) of every token in every round."""
    seen = torch.stack([torch.stack([_met(head, window) for head in heads]) for heads in buckets.tolist()])
    alone = seen.sum(-1, keepdim=True) == 0
    keys = q / q.norm(dim=-1, keepdim=True)
    others = softmax_over(q, keys, v, torch.where(alone, 1.0, seen), 1 / math.sqrt(q.shape[-1]))
    return torch.where(alone, v, others)


def _met(rounds: list[list[int]], window: int) -> Tensor:
    """Who is, in any round, among the last `window` tokens before the query in its bucket."""
    tokens = len(rounds[0])
    met = [
        set().union(*([s for s in range(t) if ring[s] == ring[t]][-window:] for ring in rounds)) for t in range(tokens)
    ]
    return table(tokens, lambda t, s: s in met[t])


def latent_attention(q: Tensor, q_rope: Tensor, latents: Tensor, k_rope: Tensor, kv_up: Tensor) -> Tensor:
    """mla: `latents` (B, T, L), rotated shared keys (B, T, R), `kv_up` (H, 2 D, L) with W_UK over W_UV."""
    width = q.shape[-1]
    expanded = torch.einsum("btl,hel->bhte", latents, kv_up)
    keys = torch.cat([expanded[..., :width], torch.stack([k_rope] * q.shape[1], 1)], -1)
    seen = table(q.shape[2], lambda t, s: s <= t)
    scale = 1 / math.sqrt(width + q_rope.shape[-1])
    return softmax_over(torch.cat([q, q_rope], -1), keys, expanded[..., width:], seen, scale)


def block_attention(q: Tensor, k: Tensor, v: Tensor, block: int, local: int, stride: int, causal: bool) -> Tensor:
    """block_sparse: near blocks, and those whose number is the last of each `stride`."""

    def sees(t: int, s: int) -> bool:
        mine, other = t // block, s // block
        return (s <= t or not causal) and (abs(mine - other) < local or other % stride == stride - 1)

    return softmax_over(q, k, v, table(q.shape[2], sees), 1 / math.sqrt(q.shape[-1]))


def differential_attention(q: Tensor, k: Tensor, v: Tensor, second: Tensor, causal: bool) -> Tensor:
    """differential, before its norm: q and k (B, H, T, D) with both halves side by side; `second` is λ."""
    half = q.shape[-1] // 2
    seen = table(q.shape[2], lambda t, s: s <= t or not causal)
    one, two = (
        softmax_over(q[..., part], k[..., part], v, seen, 1 / math.sqrt(half))
        for part in (slice(0, half), slice(half, None))
    )
    return one - second * two


def retention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """retention, before its norm: every score times γ^distance, γ = 1 − 2^(−5 − h) of head h."""
    gammas = [1 - 2.0 ** (-5 - h) for h in range(q.shape[1])]
    rows = range(q.shape[2])
    fades = torch.tensor(
        [[[g ** (t - s) if s <= t else 0.0 for s in rows] for t in rows] for g in gammas], dtype=q.dtype
    )
    return torch.einsum("bhtd,bhsd,hts,bhse->bhte", q / math.sqrt(q.shape[-1]), k, fades, v)


def delta_rule(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, write: Tensor) -> Tensor:
    """gated_delta, a token after the other: `keep` α and `write` β (B, H, T)."""
    q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    state, found = torch.zeros(*q.shape[:2], q.shape[3], v.shape[3], dtype=q.dtype), []
    for t in range(q.shape[2]):
        key, strength = k[:, :, t], write[:, :, t, None, None]
        held = torch.einsum("bhde,bhd->bhe", state, key)
        state = keep[:, :, t, None, None] * (state - strength * key.unsqueeze(3) * held.unsqueeze(2))
        state = state + strength * key.unsqueeze(3) * v[:, :, t].unsqueeze(2)
        found.append(torch.einsum("bhde,bhd->bhe", state, q[:, :, t] / math.sqrt(q.shape[-1])))
    return torch.stack(found, 2)


def rotary(x: Tensor, start: int, base: float) -> Tensor:
    """Each pair (i, i + D/2) as a complex number, turned."""
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half].double(), x[..., half:].double())
    angle = torch.tensor(
        [[(start + t) / base ** (2 * i / x.shape[-1]) for i in range(half)] for t in range(x.shape[-2])],
        dtype=torch.float64,
    )
    turned = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)
