"""Attention with linear biases (Press, Smith and Lewis 2022, arXiv 2108.12409): a penalty that grows with distance."""

import torch
from torch import Tensor

from deadweight.attention.base import Macs, Projected


def slopes(heads: int) -> Tensor:
    """One slope a head: 2^(−8/heads), 2^(−16/heads), … (the paper's section 3, for a power of two)."""
    return 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1))


class Alibi(Projected):
    """Softmax attention with −slope · distance added to every score: T² time, T² memory, no positions needed."""

    def attend(self, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
        self.kernel = "alibi"
        queries, keys = q_BHTD.shape[2], k_BGSD.shape[2]
        key = torch.arange(keys, device=q_BHTD.device)
        distance_TS = (key[keys - queries :, None] - key[None]).to(q_BHTD.dtype)
        scores = (q_BHTD * self.head_dim**-0.5) @ k_BGSD.transpose(2, 3)
        scores = scores - slopes(self.heads).to(scores)[:, None, None] * distance_TS.abs()
        if self.causal:
            scores = scores.masked_fill(distance_TS < 0, float("-inf"))
        return scores.softmax(-1) @ v_BGSD

    def macs(self, batch: int, tokens: int) -> Macs:
        a_pair = 2 * self.head_dim * self.heads * batch
        return Macs(self.pairs(tokens) * a_pair, tokens * tokens * a_pair)
