"""Swapping the attention of models of transformers: the function is ours, the projections and the cache stay theirs."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from deadweight.anatomy import Anatomy, Block
from deadweight.attention import mechanism, pool_heads
from deadweight.attention.gqa import GROUPS, check_groups
from deadweight.attention.huggingface import OPTIONS, hosted_names, register, registered_name
from deadweight.errors import SurgeryError
from deadweight.surgery.log import record

Module = TypeVar("Module", bound=nn.Module)
FAMILIES = ("hf_language", "hf_vision")
POOLED = ("gqa", "mqa")
EXPECTED = "a model that goes through transformers' AttentionInterface"


def swap(model: Module, name: str, parts: Anatomy, options: dict[str, Any]) -> Module:
    """Run `model` with the mechanism `name`; `model` is changed."""
    known = (*hosted_names(), *POOLED)
    if name not in known:
        raise SurgeryError(
            f"{name} in a {type(model).__name__}: it has projections of its own, which the host would not cache",
            expected=f"one of {', '.join(known)}",
            cure="train it in deadweight's own GPT-2",
        )
    host: Any = model
    if not getattr(host, "_can_set_attn_implementation", lambda: True)():  # asked to, it would only log a warning
        raise SurgeryError(
            f"a {type(model).__name__} computes its attention itself", expected=EXPECTED, cure="use another host"
        )
    if name in POOLED:
        _pool(host, name, parts, options)
        chosen: dict[str, Any] = {}
    else:
        width = int(getattr(host.config, "head_dim", None) or parts.width // parts.heads)
        with torch.device("meta"):  # refuses options out of range before anything is changed
            mechanism(name, width * parts.heads, parts.heads, causal=parts.kind == "causal_lm", **options)
        chosen = dict(options)
    register()
    try:
        host.set_attn_implementation(registered_name("sdpa" if name in POOLED else name))
    except (ValueError, AttributeError) as problem:
        raise SurgeryError(
            f"{type(model).__name__} does not take another attention function: {problem}",
            expected=EXPECTED,
        ) from problem
    setattr(host.config, OPTIONS, chosen)
    record(model, "swap_attention", name=name, **options)
    return model


def _pool(host: Any, name: str, parts: Anatomy, options: dict[str, Any]) -> None:
    """Fewer heads of keys and values, each the mean of its neighbours, in every block."""
    before = int(getattr(host.config, "num_key_value_heads", None) or parts.heads)
    default = max(n for n in range(1, GROUPS + 1) if before % n == 0)
    groups = 1 if name == "mqa" else int(options.get("groups") or default)
    check_groups(parts.heads, groups)
    if before % groups:
        raise SurgeryError(
            f"{before} heads of keys and values cannot be averaged to {groups}", expected=f"a divisor of {before}"
        )
    for block in parts.blocks:
        _two_projections(block)
    # `host` may be a copy of the model `parts` describes, so its blocks are looked up by path
    for block in parts.blocks:
        attention: Any = host.get_submodule(str(block.attention_path))
        for part in ("k_proj", "v_proj"):
            old: nn.Linear = getattr(attention, part)
            new = nn.Linear(
                old.in_features, old.out_features // before * groups, bias=old.bias is not None,
                device=old.weight.device, dtype=old.weight.dtype,
            )  # fmt: skip
            with torch.no_grad():
                new.weight.copy_(pool_heads(old.weight, before, groups))
                if old.bias is not None:
                    new.bias.copy_(pool_heads(old.bias, before, groups))
            setattr(attention, part, new)
        attention.num_key_value_groups = parts.heads // groups
        if hasattr(attention, "num_key_value_heads"):
            attention.num_key_value_heads = groups
    host.config.num_key_value_heads = groups


def _two_projections(block: Block) -> None:
    attention: Any = block.attention
    if not all(type(getattr(attention, part, None)) is nn.Linear for part in ("k_proj", "v_proj")):
        raise SurgeryError(
            f"block {block.index} ({block.path}): a {type(attention).__name__} has no k_proj and v_proj to average",
            expected="an attention with a projection each, as Llama's",
            cure="use another mechanism",
        )
