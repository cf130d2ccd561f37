"""Attention maps without turning fused attention off: q and k are seen where the model hands them to the kernel.

The map is then computed from them a few images at a time, heads averaged, and let go before the next block runs.
Attention written out as a product and a softmax is seen at its softmax instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from deadweight.probes.products import scores

_SOFTMAX = (functional.softmax, torch.softmax, Tensor.softmax)
_CHUNK = 2**19  # scores held at a time: they stay in a core's cache


@dataclass(frozen=True, eq=False)
class Scores:
    """What an attention map follows from.

    query: (B, H, N, d); key: (B, H or fewer, N, d); scale of their products.
    bias:  what is added to the products, or a boolean mask of pairs to keep; None for neither.
    """

    query: Tensor
    key: Tensor
    scale: float
    bias: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, H, N, keys)"""
        return (*self.query.shape[:-1], self.key.shape[-2])

    def head_mean(self) -> Tensor:
        """(B, N, N) attention rows, heads averaged; float32, or float64 of float64."""
        heads, tokens = self.query.shape[1:3]
        kept = torch.float64 if self.query.dtype == torch.float64 else torch.float32
        rows_BNN = torch.empty(len(self.query), tokens, self.key.shape[-2], dtype=kept, device=self.query.device)
        groups = heads // self.key.shape[1]
        bias = None if self.bias is None else self.bias.expand(self.shape)
        step = max(1, _CHUNK // (heads * tokens * self.key.shape[-2]))
        for start in range(0, len(rows_BNN), step):
            few = slice(start, start + step)
            key = self.key[few].repeat_interleave(groups, 1) if groups > 1 else self.key[few]
            products_NBHN = scores(self.query[few].to(kept) * self.scale, key.to(kept))
            if bias is not None:
                products_NBHN = _biased(products_NBHN, bias[few].permute(2, 0, 1, 3))
            torch.mean(products_NBHN.softmax(-1), 2, out=rows_BNN[few].transpose(0, 1))
        return rows_BNN


@dataclass(frozen=True, eq=False)
class Weights:
    """(B, H, N, N) attention weights as the model computed them."""

    weights: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.weights.shape)

    def head_mean(self) -> Tensor:
        kept = torch.float64 if self.weights.dtype == torch.float64 else torch.float32
        return self.weights.mean(1, dtype=kept)


class AttentionWatch(TorchFunctionMode):
    """Keeps what the attention of one block is made of, between :meth:`open` and :meth:`close`."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[Scores | Weights] | None = None

    def open(self) -> None:
        """A block begins. Outside of blocks nothing passes through here, and costs nothing."""
        self.close()
        self._seen = []
        self.__enter__()  # type: ignore[no-untyped-call]

    def close(self) -> list[Scores | Weights]:
        """The block is done: what was seen in it, in order."""
        if self._seen is None:
            return []
        seen, self._seen = self._seen, None
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        return seen

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if self._seen is None:
            return output
        if func is functional.scaled_dot_product_attention:
            self._seen.append(_fused(*args, **kwargs))
        elif func is functional.multi_head_attention_forward:
            found = _multi_head(*args, **kwargs)
            if found is not None:
                self._seen.append(found)
        elif func in _SOFTMAX and output.dim() == 4 and output.shape[-1] == output.shape[-2]:
            self._seen.append(Weights(output))
        return output


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Scores:
    """The arguments of torch's scaled_dot_product_attention."""
    if is_causal:
        pairs = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device)
        attn_mask = pairs.tril()
    return Scores(query, key, 1 / math.sqrt(query.shape[-1]) if scale is None else scale, attn_mask)


def _multi_head(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    *_: Any,
    attn_mask: Tensor | None = None,
    **__: Any,
) -> Scores | None:
    """q and k of an nn.MultiheadAttention, whose kernel runs out of sight: its two projections are done once more.

    None for anything but plain self-attention.
    """
    if query is not key or in_proj_weight is None or attn_mask is not None or query.dim() != 3:
        return None
    width = query.shape[-1]
    bias = None if in_proj_bias is None else in_proj_bias[: 2 * width]
    both_NBD = functional.linear(query, in_proj_weight[: 2 * width], bias)  # tokens first, as the function wants them
    count, items, _width = both_NBD.shape
    parts = both_NBD.view(count, items, 2, num_heads, width // num_heads).permute(2, 1, 3, 0, 4)
    return Scores(parts[0], parts[1], (width // num_heads) ** -0.5)


def _biased(products: Tensor, bias: Tensor) -> Tensor:
    if bias.dtype == torch.bool:
        return products.masked_fill(~bias, float("-inf"))
    return products + bias
