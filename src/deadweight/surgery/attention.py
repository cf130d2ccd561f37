"""Putting another attention mechanism into every block of a model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from deadweight.anatomy import Block, anatomy
from deadweight.attention import MECHANISMS, Mechanism, mechanism, pool_heads
from deadweight.attention.base import Projected
from deadweight.errors import InputError, SurgeryError
from deadweight.models.unwrap import unwrapped
from deadweight.surgery import hosted_attention as hosted
from deadweight.surgery.log import copy_unless_inplace, record

Module = TypeVar("Module", bound=nn.Module)


def _two_sided() -> list[str]:
    return [name for name in MECHANISMS.names() if not getattr(MECHANISMS.get(name), "causal_only", False)]


class FreshWeights(UserWarning):
    """The new mechanism could not take over the old one's weights."""


@dataclass(frozen=True)
class Projections:
    """An attention's weights, apart: (out, in) matrices and biases; keys and values of `kv_heads` heads."""

    weights: Mapping[str, Tensor]
    kv_heads: int


class Swapped(nn.Module):
    """A mechanism in the place of timm's attention, called as that one is."""

    def __init__(self, inner: Mechanism, proj_drop: nn.Module) -> None:
        super().__init__()
        self.inner, self.proj_drop = inner, proj_drop
        self.num_heads, self.head_dim = inner.heads, inner.head_dim

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if attn_mask is not None or is_causal:
            raise InputError("an attention mask", expected="none: a swapped attention sees all patches")
        y: Tensor = self.proj_drop(self.inner(x))
        return y


def swap_attention(model: Module, name: str, *, inplace: bool = False, **options: Any) -> Module:
    """Replace the attention of every block by the mechanism `name`.

    eager, sdpa, flash, sliding_window, block_sparse, linear, gqa and mqa take over the weights (for gqa and mqa the
    keys and values of neighbouring heads are averaged); the others start fresh, with a warning. Works on our GPT-2, on
    timm's ViTs, which are not causal (lsh, mla, gated_delta and retention are not defined there), and on causal
    language models and ViTs of transformers, which keep their projections, rotary positions and cache and run what
    needs no weights of its own.

    Parameters
    ----------
    name:
        One of ``MECHANISMS.names()``.
    options:
        The mechanism's own: ``window``, ``groups``, ``buckets`` …

    Raises
    ------
    SurgeryError
        A host whose attention is not understood, naming the block.

    Examples
    --------
    >>> import deadweight as dw, torch
    >>> model = dw.swap_attention(dw.load("embedded:digits-vit"), "linear")
    >>> model(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    build = MECHANISMS.get(name)
    model = unwrapped(model)
    parts = anatomy(model)
    causal = parts.kind == "causal_lm"
    if parts.family in hosted.FAMILIES:
        return hosted.swap(copy_unless_inplace(model, inplace), name, parts, options)
    if parts.family not in ("gpt2", "timm"):
        raise SurgeryError(
            f"the attention of a {type(model).__name__} ({parts.family}) cannot be swapped",
            expected="our GPT-2, a ViT of timm, or a language model or ViT of transformers",
        )
    if not causal and getattr(build, "causal_only", False):
        raise SurgeryError(
            f"{name} is defined for causal attention only, and a {type(model).__name__} is not causal",
            expected=f"one of {', '.join(_two_sided())}",
        )
    chosen = dict(options) if causal else {**options, "causal": False}
    with torch.device("meta"):  # the options are checked before anything is copied
        mechanism(name, parts.width, _heads(parts.blocks[0], parts.heads), **chosen)
    for block in parts.blocks:
        _projections(block)
    model = copy_unless_inplace(model, inplace)
    carried = True
    for block in anatomy(model).blocks:
        carried &= _swap(model, block, name, _heads(block, parts.heads), parts.width, chosen, causal)
    if not carried:
        warnings.warn(
            f"{name} starts with fresh random weights: it cannot take over the old attention's. Train it before use.",
            FreshWeights,
            stacklevel=2,
        )
    record(model, "swap_attention", name=name, **options)
    return model


def _swap(
    model: nn.Module, block: Block, name: str, heads: int, width: int, options: dict[str, Any], causal: bool
) -> bool:
    """Swap one block's attention; whether its weights were carried over."""
    old = block.attention
    assert old is not None  # checked by _projections
    assert block.attention_path is not None
    found = _projections(block)
    example = next(old.parameters())
    new = mechanism(name, width, heads, **options).to(device=example.device, dtype=example.dtype)
    carried = False
    if found is not None and isinstance(new, Projected) and new.carries:
        carried = True
        _carry(found, new, heads)
    owner, _, leaf = block.attention_path.rpartition(".")
    drop = getattr(old, "proj_drop", nn.Identity())
    setattr(model.get_submodule(owner), leaf, new if causal else Swapped(new, drop))
    new.train(old.training)
    return carried


@torch.no_grad()
def _carry(found: Projections, new: Projected, heads: int) -> None:
    own = dict(new.named_parameters())
    for name, value in found.weights.items():
        if name.startswith(("k_proj", "v_proj")) and found.kv_heads != new.kv_heads:
            apart = torch.unflatten(value, 0, (found.kv_heads, -1))
            spread = apart.repeat_interleave(heads // found.kv_heads, dim=0)
            value = pool_heads(spread.flatten(0, 1), heads, new.kv_heads)
        if name in own:
            own[name].copy_(value)
    for name, weight in own.items():
        if name.endswith("bias") and name not in found.weights:
            weight.zero_()


_TIMM = {(module, "Attention") for module in ("timm.layers.attention", "timm.models.vision_transformer")}


def _projections(block: Block) -> Projections | None:
    """The weights of a block's attention; None when it holds none that another mechanism could use."""
    attention: Any = block.attention
    if isinstance(attention, Swapped):
        attention = attention.inner
    if isinstance(attention, Mechanism):
        if not isinstance(attention, Projected) or not attention.carries:
            return None
        names = ("q_proj", "k_proj", "v_proj", "o_proj")
        weights = {name: value for name, value in attention.named_parameters() if name.partition(".")[0] in names}
        return Projections(weights, attention.kv_heads)
    kind = type(attention)
    ours = kind.__module__ == "deadweight.models.gpt2" and kind.__name__ == "CausalAttention"
    timms = (kind.__module__, kind.__name__) in _TIMM  # other families of timm have an Attention that is not plain
    if not (ours or timms) or (timms and not _plain(attention)):
        raise SurgeryError(
            f"block {block.index} ({block.path}): a {kind.__name__} cannot be swapped",
            expected="plain multi-head attention: one qkv projection, no norms, gates or biases between positions",
        )
    weights = {}
    for part in ("weight", "bias"):
        packed, out = getattr(attention.qkv, part), getattr(attention.proj, part)
        if packed is not None:
            weights |= dict(zip((f"q_proj.{part}", f"k_proj.{part}", f"v_proj.{part}"), packed.chunk(3), strict=True))
        if out is not None:
            weights[f"o_proj.{part}"] = out
    return Projections(weights, _heads(block, 0))


def _plain(attention: Any) -> bool:
    extras = (attention.q_norm, attention.k_norm, getattr(attention, "norm", nn.Identity()))
    return (
        all(isinstance(extra, nn.Identity) for extra in extras)
        and getattr(attention, "gate", None) is None
        and attention.qkv.out_features == 3 * attention.qkv.in_features == 3 * attention.proj.out_features
        and attention.attn_drop.p == 0
    )


def _heads(block: Block, otherwise: int) -> int:
    for name in ("num_heads", "heads"):
        found = getattr(block.attention, name, None)
        if isinstance(found, int):
            return found
    return otherwise
