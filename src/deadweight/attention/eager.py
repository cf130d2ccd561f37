"""Attention by the book: the scores stand in memory."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from deadweight.attention.base import Macs, Projected


def lower_right_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """True where query i, which is the key `keys - queries + i`, may look: at itself and everything before."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def eager_attention(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, *, causal: bool) -> Tensor:
    """softmax(QKᵀ/√d) V (Vaswani et al. 2017, section 3.2.1), every score computed and kept."""
    scores_BHTS = (q_BHTD * q_BHTD.shape[-1] ** -0.5) @ k_BHSD.transpose(2, 3)
    queries, keys = scores_BHTS.shape[-2:]
    if causal and queries > 1:
        scores_BHTS = scores_BHTS.masked_fill(
            lower_right_mask(queries, keys, q_BHTD.device).logical_not(), float("-inf")
        )
    return torch.matmul(scores_BHTS.softmax(-1), v_BHSD)


class Eager(Projected):
    """Softmax attention with all scores in memory, the baseline of the paper: T² time, T² memory."""

    label: ClassVar[str] = "eager attention"
    function: ClassVar[str] = "softmax attention"
    keeps_parameters: ClassVar[bool] = True

    def attend(self, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
        self.kernel = "eager"
        return eager_attention(q_BHTD, k_BGSD, v_BGSD, causal=self.causal)

    def macs(self, batch: int, tokens: int) -> Macs:
        a_pair = 2 * self.head_dim * self.heads * batch
        return Macs(self.pairs(tokens) * a_pair, tokens * tokens * a_pair)
