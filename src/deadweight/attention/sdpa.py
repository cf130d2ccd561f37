"""PyTorch's fused attention, whichever kernel it picks; which one that was is recorded."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend

from deadweight.attention.base import Macs, Projected
from deadweight.attention.eager import lower_right_mask

_NAMES = {
    SDPBackend.MATH: "sdpa:math",
    SDPBackend.FLASH_ATTENTION: "sdpa:flash",
    SDPBackend.EFFICIENT_ATTENTION: "sdpa:efficient",
    SDPBackend.CUDNN_ATTENTION: "sdpa:cudnn",
    SDPBackend.OVERRIDEABLE: "sdpa:overrideable",
}


def fused_attention(
    q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, *, causal: bool, scale: float | None = None
) -> tuple[Tensor, str]:
    """Attention through ``scaled_dot_product_attention`` and the name of the kernel that did it.

    ``is_causal`` aligns the mask top left, which is wrong when the queries are the last of the keys: then a single
    query needs no mask and several get one of their own.
    """
    queries, keys = q_BHTD.shape[-2], k_BGSD.shape[-2]
    aligned = causal and queries > 1 and queries == keys
    mask = None
    if causal and 1 < queries < keys:
        mask = lower_right_mask(queries, keys, q_BHTD.device)
    grouped = q_BHTD.shape[1] != k_BGSD.shape[1]
    y_BHTD = F.scaled_dot_product_attention(
        q_BHTD, k_BGSD, v_BGSD, mask, is_causal=aligned, scale=scale, enable_gqa=grouped
    )
    return y_BHTD, _picked(q_BHTD, k_BGSD, v_BGSD, mask, aligned, scale, grouped)


def _picked(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None, grouped: bool
) -> str:
    if q.device.type == "meta":
        return "sdpa:meta"
    # The choice `scaled_dot_product_attention` itself makes; PyTorch has no public way to ask for it.
    choice = torch._fused_sdp_choice(q, k, v, mask, 0.0, causal, scale=scale, enable_gqa=grouped)
    return _NAMES[SDPBackend(choice)]


class Sdpa(Projected):
    """PyTorch's fused softmax attention, whichever kernel it picks: T² time, T memory."""

    label: ClassVar[str] = "PyTorch's fused attention (SDPA)"
    function: ClassVar[str] = "softmax attention"
    keeps_parameters: ClassVar[bool] = True

    def attend(self, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
        y_BHTD, self.kernel = fused_attention(q_BHTD, k_BGSD, v_BGSD, causal=self.causal)
        return y_BHTD

    def macs(self, batch: int, tokens: int) -> Macs:
        """If the quadratic math kernel ran last, it is counted as such."""
        a_pair = 2 * self.head_dim * self.heads * batch
        executed = tokens * tokens if self.kernel == "sdpa:math" else self.pairs(tokens)
        return Macs(self.pairs(tokens) * a_pair, executed * a_pair)
