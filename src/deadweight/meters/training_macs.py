"""Products of a training step as it really runs: forward and backward, recomputation inside fused kernels included."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.meters.products import Products

aten = torch.ops.aten
_FUSED_BACKWARD = {
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
    aten._scaled_dot_product_flash_attention_backward.default,
    aten._scaled_dot_product_efficient_attention_backward.default,
    aten._scaled_dot_product_cudnn_attention_backward.default,
}


def training_macs(network: nn.Module, step: Callable[[], object]) -> int:
    """Multiply-accumulates that one call of `step` executes, in the products of its forward and backward pass.

    A backward pass is not simply two forward ones: fused attention multiplies queries by keys again, mechanisms that
    save only their inputs do all of it again, and products whose inputs need no gradient have one backward product.
    So it is counted: every matrix product and convolution as it runs. A fused attention kernel does five products
    over its query-key pairs on the way back (scores, and one each for the gradients of values, weights, queries and
    keys) for two on the way forward (Dao 2023, section 3.1).

    Parameters
    ----------
    network:
        Whose parameters take part.
    step:
        Runs forward and backward, on numbers; its results and gradients are left as it leaves them.

    Examples
    --------
    >>> layer, x = nn.Linear(8, 4, bias=False), torch.randn(10, 8, requires_grad=True)
    >>> training_macs(layer, lambda: layer(x).sum().backward()) == 3 * 10 * 8 * 4
    True
    """
    products = _StepProducts(list(network.parameters()))
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.enable_grad(), products:
            step()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return products.linear + products.executed


class _StepProducts(Products):  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
    """Counts the backward pass as well."""

    def __init__(self, parameters: list[Tensor]) -> None:
        super().__init__(parameters, meta=False)

    def _unknown(self, name: str) -> None:
        """No remark: a backward pass has elementwise operations of its own for each of the forward pass."""

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _FUSED_BACKWARD:
            query, key, value = args[1:4]
            causal = next((a for a in args if isinstance(a, bool)), (kwargs or {}).get("is_causal", False))
            before = self.executed
            self._pairs(query, key, value, None, bool(causal))
            self.executed = before + (self.executed - before) * 5 // 2
        elif func is aten.convolution_backward.default:
            gradient, _, weight = args[:3]
            asked = args[10] if len(args) > 10 else (True, True)
            macs = int(gradient.numel() * weight[0].numel())
            self.linear += macs * sum(bool(one) for one in asked[:2])
        return super().__torch_dispatch__(func, types, args, kwargs)


__all__ = ["training_macs"]
