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

from deadweight.meters.operations import (
    CONVOLUTIONS,
    FUSED,
    MATRICES,
    RECURRENT,
    convolution,
    multiplies_nothing,
    operation_name,
    quantised,
    recurrent,
    substitution,
)

aten = torch.ops.aten
# An additive mask this low leaves exp() nothing in any floating type.
MASKED = -1e4
# What a tensor that no input had a part in is made of: fixed numbers alone (a mask, the rotations of a hash), weights
# (parameters, and buffers in types that weights are packed in), or a product of such, which is a weight to a linear
# layer (W + BA) and a query to attention (learned queries).
_FIXED, _LEARNED, _MADE = 0, 1, 2
_PACKED = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.float8_e4m3fn, torch.float8_e5m2)
_LOOKUPS = {"aten::index", "aten::index_select"}
_MASKING = {aten.add.Tensor, aten.add_.Tensor, aten.masked_fill.Scalar, aten.masked_fill_.Scalar,
            aten.masked_fill.Tensor, aten.where.self, aten.where.ScalarOther}  # fmt: skip


class Unknown(RuntimeError):
    """A mask whose values are not there, so that its unmasked pairs cannot be counted."""


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
    """Counts while active.

    linear:    MACs of products with weights: parameters, buffers of packed numbers, and whatever is made of these and
               no input (a weight under a mask, a low-rank sum, the matrices of the experts a token is sent to).
    necessary: MACs of products of activations, over unmasked pairs.
    executed:  the same over the pairs that are multiplied.
    uncounted: names of operations that were run and of which nothing is known.

    With `meta`, the pass carries no floating numbers: whatever meets a meta tensor becomes one. What is computed
    from whole numbers alone (positions, masks) stays real, so that masks can be counted.
    """

    def __init__(self, parameters: Iterable[Tensor], buffers: Iterable[Tensor] = (), *, meta: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.meta = meta
        self.linear = self.necessary = self.executed = 0
        self.uncounted: set[str] = set()
        self._own: dict[int, tuple[int, Any]] = {}
        self._seen: set[int] = set()
        self._inside_fused = False
        self._scores: tuple[int, int, float] | None = None  # numel, MACs and kept share of the last scores
        for buffer in buffers:
            self._keep(buffer, _LEARNED if buffer.dtype in _PACKED else _FIXED)
        for parameter in parameters:
            for part in _parts(parameter):
                self._keep(part, _LEARNED)

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
        if not self._inside_fused:
            self._observe(func, args, kwargs)
        kind = self._kind_of_result(func, args, tensors)
        out = self._call(func, args, kwargs, tensors)
        for result in tree_leaves(out):
            if isinstance(result, Tensor) and kind is not None:
                self._keep(result, kind)
            elif isinstance(result, Tensor) and func._schema.is_mutable:  # an input was written into a buffer
                self._own.pop(_storage(result), None)
        return out

    def _kind_of_result(self, func: Any, args: tuple[Any, ...], tensors: list[Tensor]) -> int | None:
        """What the result is made of; None where an input has a part in it."""
        kinds = [self._kind(t) for t in tensors]
        if kinds and all(kind is not None for kind in kinds):
            return _MADE if operation_name(func) in MATRICES else max(kind for kind in kinds if kind is not None)
        if operation_name(func) in _LOOKUPS and isinstance(args[0], Tensor) and args[0].dim() == 3:
            return self._kind(args[0])  # whole matrices, taken from a bank by number
        return None

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
        if not self.meta:
            return func(*args, **kwargs)
        if any(t.is_meta for t in tensors):
            args, kwargs = tree_map_only(Tensor, lambda t: t if t.is_meta else t.to("meta"), (args, kwargs))
        elif torch.device(kwargs.get("device") or "cpu").type == "meta":
            kwargs["device"] = torch.device("cpu")  # positions and masks asked for beside activations: keep them real
        return func(*args, **kwargs)

    def _observe(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        name = operation_name(func)
        if name in MATRICES:
            first, second, macs = MATRICES[name]
            self._product(args[first], args[second], macs(args[first], args[second]))
        elif name in CONVOLUTIONS:
            self.linear += convolution(args)
        elif name in FUSED:
            query, key, value = args[:3]
            causal = next((a for a in args[3:] if isinstance(a, bool)), kwargs.get("is_causal", False))
            self._pairs(query, key, value, kwargs.get("attn_mask"), bool(causal))
        elif name == "aten::linalg_solve_triangular":
            self.executed += substitution(args)
            self.necessary += substitution(args)
        elif name in RECURRENT:
            self.linear += recurrent(args)
        elif (macs_of_packed := quantised(func, args)) is not None:
            self.linear += macs_of_packed
        elif not multiplies_nothing(func):
            self._unknown(name)
        elif func in _MASKING and self._scores is not None:
            self._masking(func, args)

    def _unknown(self, name: str) -> None:
        self.uncounted.add(name)

    def _product(self, left: Tensor, right: Tensor, macs: int) -> None:
        matrices = left.dim() <= 2 and right.dim() <= 2
        kinds = (self._kind(left), self._kind(right))
        if _LEARNED in kinds or (_MADE in kinds and matrices):
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
            if self._kind(mask) in (_LEARNED, _MADE):
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

    def _kind(self, tensor: Tensor) -> int | None:
        return self._own[storage][0] if (storage := _storage(tensor)) in self._own else None

    def _keep(self, tensor: Tensor, kind: int) -> None:
        storage = tensor.untyped_storage()
        # Held, so that no other tensor is given its address. A view keeps what its storage is.
        self._own.setdefault(storage._cdata, (kind, storage))


def _parts(tensor: Tensor) -> list[Tensor]:
    """The tensor, and the ones it is put together from: the rounded weight and the scales of a quantised one."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [tensor, *(part for name in names for part in _parts(getattr(tensor, name)))]


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _kept(mask: Tensor) -> float:
    """The share of pairs a boolean (True: attend) or additive mask leaves."""
    if mask.is_meta:
        raise Unknown("the values of an attention mask are not known")
    kept = mask if mask.dtype == torch.bool else mask > MASKED
    return float(kept.sum()) / mask.numel()
