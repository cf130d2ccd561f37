"""Hugging Face vision transformers: ViT, DeiT, DINOv2, BEiT and others laid out alike."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deadweight.anatomy.describe import Names, child, children_paths, describe_block
from deadweight.anatomy.parts import Anatomy, Positions

_BLOCKS = ("layers", "layer", "encoder.layers", "encoder.layer", "model.layer", "model.layers")
_PARTS: Names = {
    "attention": ("attention", "self_attn", "attn"),
    "mlp": ("mlp",),
    "norms": ("layernorm_before", "layernorm_after", "norm1", "norm2", "layer_norm1", "layer_norm2"),
}
_NORMS = ("layernorm", "norm", "post_layernorm")


def _tokens(output: Tensor) -> Tensor:
    return output.flatten(2).transpose(1, 2) if output.dim() == 4 else output


def describe(model: nn.Module) -> Anatomy | None:
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(config, "image_size") or not hasattr(config, "patch_size"):
        return None
    prefix_name = getattr(model, "base_model_prefix", "")
    base: Any = getattr(model, prefix_name, model) if prefix_name else model
    if not hasattr(base, "embeddings"):  # DINOv3 calls its encoder by the name others give the whole backbone
        base = model
    root = f"{prefix_name}." if base is not model else ""
    inside = next((name for name in _BLOCKS if child(base, name) is not None), None)
    embeddings: Any = getattr(base, "embeddings", None)
    if inside is None or not isinstance(getattr(embeddings, "patch_embeddings", None), nn.Module):
        return None
    if not isinstance(getattr(config, "num_attention_heads", None), int):  # Swin and its kind: stages, each its own
        return None
    blocks_path = f"{root}{inside}"
    blocks = tuple(
        describe_block(model, index, path, **_PARTS) for index, path in enumerate(children_paths(model, blocks_path))
    )
    if hasattr(embeddings, "detection_tokens"):  # YOLOS: tokens behind the patches that are none
        return None
    positions = getattr(embeddings, "position_embeddings", None)
    if not isinstance(positions, (nn.Parameter, nn.Embedding)):
        positions = None
    kind: Positions = "learned" if positions is not None else "none"
    if positions is None and hasattr(base, "rope_embeddings"):
        kind = "rotary"
    elif positions is None and getattr(config, "use_relative_position_bias", False):
        kind = "relative"
    has_cls = isinstance(getattr(embeddings, "cls_token", None), nn.Parameter)
    others = [getattr(embeddings, name, None) for name in ("register_tokens", "distillation_token")]
    prefix = int(has_cls) + sum(int(token.shape[1]) for token in others if isinstance(token, nn.Parameter))
    norm = next((name for name in _NORMS if isinstance(child(base, name), nn.Module)), None)
    head = next((name for name in ("classifier", "cls_classifier", "head") if child(model, name) is not None), None)
    return Anatomy(
        model=model,
        family="hf_vision",
        kind="vision",
        blocks=blocks,
        embedding=embeddings.patch_embeddings,
        embedding_path=f"{root}embeddings.patch_embeddings",
        embedding_tokens=_tokens,
        positions=positions,
        positions_path=f"{root}embeddings.position_embeddings" if positions is not None else None,
        position_kind=kind,
        prefix_tokens=prefix,
        has_cls=has_cls,
        reads="cls" if has_cls and not getattr(config, "use_mean_pooling", False) else "pooled",
        norm=child(base, norm) if norm else None,
        norm_path=f"{root}{norm}" if norm else None,
        head=child(model, head) if head else None,
        head_path=head,
        width=int(config.hidden_size),
        heads=int(config.num_attention_heads),
        blocks_path=blocks_path,
    )
