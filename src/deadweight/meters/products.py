"""Watches one forward pass and counts its products: with parameters, and of activations with each other."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
# An additive mask this low leaves exp() nothing in any floating type.
MASKED = -1e4
_PRODUCTS: dict[Any, tuple[int, int]] = {  # operation -> positions of its two operands
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.baddbmm.default: (1, 2),
    aten.mm.out: (0, 1),
    aten.bmm.out: (0, 1),
    aten.baddbmm.out: (1, 2),
    aten.baddbmm_.default: (1, 2),
    aten.mv.default: (0, 1),
    aten.addmv.default: (1, 2),
}
_FUSED = {
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
}
_MASKING = {aten.add.Tensor, aten.add_.Tensor, aten.masked_fill.Scalar, aten.masked_fill_.Scalar,
            aten.masked_fill.Tensor, aten.where.self, aten.where.ScalarOther}  # fmt: skip


class Unknown(RuntimeError):
    """A mask whose values are not there, so that its unmasked pairs cannot be counted."""


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
    """Counts while active.

    linear:    MACs of products with a parameter, or with what casts and views make of one.
    necessary: MACs of products of activations, over unmasked pairs.
    executed:  the same over the pairs that are multiplied.

    With `meta`, the pass carries no floating numbers: whatever meets a meta tensor becomes one. What is computed
    from whole numbers alone (positions, masks) stays real, so that masks can be counted.
    """

    def __init__(self, parameters: list[Tensor], *, meta: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.meta = meta
        self.linear = self.necessary = self.executed = 0
        self._storages: dict[int, Any] = {}
        self._seen: set[int] = set()
        self._inside_fused = False
        self._scores: tuple[int, int, float] | None = None  # numel, MACs and kept share of the last scores
        for parameter in parameters:
            self._keep(parameter)

    def touched(self, parameter: Tensor) -> bool:
        """Whether any operation read the parameter."""
        return _storage(parameter) in self._seen

    def __enter__(self) -> Products:
        self._sdpa = F.scaled_dot_product_attention
        # Replaced rather than observed below: there it is already split into the products of some kernel.
        F.scaled_dot_product_attention = self._attention  # type: ignore[assignment]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        F.scaled_dot_product_attention = self._sdpa
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        self._seen.update(_storage(t) for t in tensors)
        from_parameters = bool(tensors) and all(self._from_parameter(t) for t in tensors)
        if not self._inside_fused:
            self._observe(func, args, kwargs)
        out = self._call(func, args, kwargs, tensors)
        if from_parameters and func not in _PRODUCTS:
            for result in tree_leaves(out):
                if isinstance(result, Tensor):
                    self._keep(result)
        return out

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
        if not self.meta:
            return func(*args, **kwargs)
        if any(t.is_meta for t in tensors):
            args, kwargs = tree_map_only(Tensor, lambda t: t if t.is_meta else t.to("meta"), (args, kwargs))
        elif torch.device(kwargs.get("device") or "cpu").type == "meta":
            kwargs["device"] = torch.device("cpu")  # positions and masks asked for beside activations: keep them real
        return func(*args, **kwargs)

    def _observe(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if func in _PRODUCTS:
            left, right = (args[i] for i in _PRODUCTS[func])
            self._product(left, right)
        elif func is aten.convolution.default:
            self.linear += _convolution(args)
        elif func in _FUSED:
            query, key, value = args[:3]
            causal = next((a for a in args[3:] if isinstance(a, bool)), kwargs.get("is_causal", False))
            self._pairs(query, key, value, kwargs.get("attn_mask"), bool(causal))
        elif func in _MASKING and self._scores is not None:
            self._masking(func, args)

    def _product(self, left: Tensor, right: Tensor) -> None:
        macs = left.numel() * (right.shape[-1] if right.dim() > 1 else 1)
        if self._from_parameter(left) or self._from_parameter(right):
            self.linear += macs
            return
        self.executed += macs
        share = 1.0
        if self._scores is not None and self._scores[0] == left.numel():  # attention weights times values
            share, self._scores = self._scores[2], None
        else:
            self._scores = (macs // left.shape[-1], macs, 1.0)
        self.necessary += round(macs * share)

    def _masking(self, func: Any, args: tuple[Any, ...]) -> None:
        """A mask laid over the last scores: they and the product after them need the kept share only."""
        assert self._scores is not None
        numel, macs, kept = self._scores
        tensors = [a for a in args if isinstance(a, Tensor) and a.dim() >= 2]
        if len(tensors) < 2 or max(t.numel() for t in tensors) != numel:
            return
        if func is aten.add.Tensor or func is aten.add_.Tensor:
            mask = min(tensors, key=Tensor.numel)
            if mask.numel() == numel and self.meta and all(t.is_meta for t in tensors):
                return  # two activations of the same shape: a residual, not a mask
            if self._from_parameter(mask):
                return  # a learned bias
            share = _kept(mask)
        elif func in (aten.where.self, aten.where.ScalarOther):
            share = _kept(args[0])
        else:
            share = 1 - _kept(args[1])
        self.necessary += round(macs * share) - round(macs * kept)
        self._scores = (numel, macs, share)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **options: Any,
    ) -> Tensor:
        self._pairs(query, key, value, attn_mask, is_causal)
        if self.meta:
            return torch.empty(*query.shape[:-1], value.shape[-1], dtype=query.dtype, device=query.device)
        self._inside_fused = True
        try:
            return self._sdpa(query, key, value, attn_mask, dropout_p, is_causal, **options)
        finally:
            self._inside_fused = False

    def _pairs(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> None:
        queries, keys = query.shape[-2], key.shape[-2]
        pairs = math.prod(query.shape[:-2]) * queries * keys
        width = query.shape[-1] + value.shape[-1]
        if causal:  # aligned top left, as PyTorch defines it
            kept = math.prod(query.shape[:-2]) * sum(min(row + 1, keys) for row in range(queries))
            self.executed += kept * width
        else:
            kept = pairs if mask is None else round(pairs * _kept(mask))
            self.executed += pairs * width
        self.necessary += kept * width

    def _from_parameter(self, tensor: Tensor) -> bool:
        return _storage(tensor) in self._storages

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = storage  # held, so that no other tensor is given its address


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _kept(mask: Tensor) -> float:
    """The share of pairs a boolean (True: attend) or additive mask leaves."""
    if mask.is_meta:
        raise Unknown("the values of an attention mask are not known")
    kept = mask if mask.dtype == torch.bool else mask > MASKED
    return float(kept.sum()) / mask.numel()


def _convolution(args: tuple[Any, ...]) -> int:
    """MACs of ``aten.convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)``."""
    x, weight, _, stride, padding, dilation, transposed = args[:7]
    if transposed:
        return int(x.numel() * weight[0].numel())
    extents = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    places = math.prod((size + 2 * pad - wide * (kern - 1) - 1) // step + 1 for size, kern, step, pad, wide in extents)
    return int(x.shape[0] * places * weight.numel())
