"""Hugging Face causal language models: Llama types (Llama, Mistral, Qwen, Gemma …) and GPT-2 types."""

from __future__ import annotations

from typing import Any

from torch import nn

from deadweight.anatomy.describe import Names, child, children_paths, describe_block
from deadweight.anatomy.parts import Anatomy, Positions

_BLOCKS = ("layers", "h", "decoder.layers", "blocks")
_POSITIONS = ("wpe", "embed_positions", "position_embeddings")
_NORMS = ("norm", "ln_f", "final_layernorm", "final_layer_norm", "norm_f", "layer_norm", "final_norm")
_PARTS: Names = {
    "attention": ("self_attn", "attn", "attention", "self_attention"),
    "mlp": ("mlp", "feed_forward", "ffn"),
    "norms": (
        "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
        "post_feedforward_layernorm", "ln_1", "ln_2", "self_attn_layer_norm", "final_layer_norm", "norm_1", "norm_2",
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
    inner_path, inner = root, base
    if "." in inside:  # the decoder that holds the blocks holds their norm and positions as well
        inner_path, inner = f"{root}{inside.rpartition('.')[0]}.", child(base, inside.rpartition(".")[0])
    positions_name = next((name for name in _POSITIONS if isinstance(child(inner, name), nn.Embedding)), None)
    positions = child(inner, positions_name) if positions_name else None
    norm = next((name for name in _NORMS if child(inner, name) is not None), None)
    head = hf.get_output_embeddings() if child(model, "lm_head") is None else child(model, "lm_head")
    head_path = next((name for name, module in model.named_modules() if module is head), None)
    return Anatomy(
        model=model,
        family="hf_language",
        kind="causal_lm",
        blocks=blocks,
        embedding=embedding,
        embedding_path=embedding_path,
        positions=positions,
        positions_path=f"{inner_path}{positions_name}" if positions is not None else None,
        position_kind=_position_kind(model, inner, positions),
        reads="last",
        norm=child(inner, norm) if norm else None,
        norm_path=f"{inner_path}{norm}" if norm else None,
        head=head if head_path else None,
        head_path=head_path,
        width=int(config.hidden_size),
        heads=int(config.num_attention_heads),
        blocks_path=blocks_path,
    )


def _position_kind(model: nn.Module, inner: nn.Module, positions: nn.Module | None) -> Positions:
    """By what the model holds; ``none`` where nothing that encodes positions is found."""
    config: Any = model.config
    if positions is not None:
        return "learned"
    if any("Sinusoidal" in type(part).__name__ for part in inner.children()):
        return "sinusoidal"
    bias = getattr(config, "attn_config", None)
    if config.model_type == "bloom" or getattr(config, "alibi", False) or getattr(bias, "alibi", False):
        return "relative"
    declared = any(getattr(config, name, None) for name in ("rope_parameters", "rope_theta", "rotary_dim"))
    found = any("rotary" in type(part).__name__.lower() for part in model.modules())
    return "rotary" if declared or found else "none"
