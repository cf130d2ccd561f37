"""Hugging Face causal language models: Llama types (Llama, Mistral, Qwen, Gemma …) and GPT-2 types."""

from __future__ import annotations

from typing import Any

from torch import nn

from deadweight.anatomy.describe import Names, child, children_paths, describe_block
from deadweight.anatomy.parts import Anatomy

_BLOCKS = ("layers", "h", "decoder.layers", "blocks")
_PARTS: Names = {
    "attention": ("self_attn", "attn", "attention"),
    "mlp": ("mlp", "feed_forward"),
    "norms": (
        "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
        "post_feedforward_layernorm", "ln_1", "ln_2",
    ),
}  # fmt: skip


def describe(model: nn.Module) -> Anatomy | None:
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(config, "vocab_size") or not hasattr(model, "get_input_embeddings"):
        return None
    if hasattr(config, "image_size"):  # BEiT's configuration has a vocabulary too
        return None
    if not hasattr(config, "num_attention_heads"):  # Mamba and other models without attention
        return None
    prefix_name = getattr(model, "base_model_prefix", "")
    base: Any = getattr(model, prefix_name, model) if prefix_name else model
    root = f"{prefix_name}." if base is not model else ""
    inside = next((name for name in _BLOCKS if child(base, name) is not None), None)
    if inside is None:
        return None
    blocks_path = f"{root}{inside}"
    blocks = tuple(
        describe_block(model, index, path, **_PARTS) for index, path in enumerate(children_paths(model, blocks_path))
    )
    hf: Any = model
    embedding: nn.Module = hf.get_input_embeddings()
    embedding_path = next(name for name, module in model.named_modules() if module is embedding)
    positions = child(base, "wpe") or child(base, "embed_positions")
    norm = next(
        (name for name in ("norm", "ln_f", "final_layernorm", "final_layer_norm") if child(base, name) is not None),
        None,
    )
    has_alibi = config.model_type == "bloom" or getattr(config, "alibi", False)
    return Anatomy(
        model=model,
        family="hf_language",
        kind="causal_lm",
        blocks=blocks,
        embedding=embedding,
        embedding_path=embedding_path,
        positions=positions,
        positions_path=f"{root}{'wpe' if child(base, 'wpe') is not None else 'embed_positions'}"
        if positions is not None
        else None,
        position_kind="learned" if positions is not None else "relative" if has_alibi else "rotary",
        reads="last",
        norm=child(base, norm) if norm else None,
        norm_path=f"{root}{norm}" if norm else None,
        head=child(model, "lm_head"),
        head_path="lm_head" if child(model, "lm_head") is not None else None,
        width=int(config.hidden_size),
        heads=int(config.num_attention_heads),
        blocks_path=blocks_path,
    )
