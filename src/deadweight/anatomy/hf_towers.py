"""Hugging Face's vision towers: CLIP, SigLIP, BLIP and others laid out alike, alone or under a classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deadweight.anatomy.describe import Names, child, children_paths, describe_block
from deadweight.anatomy.parts import Anatomy

_BLOCKS = "encoder.layers"
_PARTS: Names = {"attention": ("self_attn",), "mlp": ("mlp",), "norms": ("layer_norm1", "layer_norm2")}


def _tokens(feature_map: Tensor) -> Tensor:
    """patch_embedding's (B, D, H, W) as (B, N, D)."""
    return feature_map.flatten(2).transpose(1, 2)


def describe(model: nn.Module) -> Anatomy | None:
    root = "vision_model." if child(model, "vision_model") is not None else ""
    tower: Any = child(model, root.rstrip(".")) if root else model
    if child(tower, "embeddings.patch_embedding") is None or child(tower, _BLOCKS) is None:
        return None
    if child(model, "text_model") is not None:  # two towers: neither is the model
        return None
    config: Any = tower.config
    held = getattr(tower.embeddings, "position_embedding", None)
    positions = held if isinstance(held, nn.Parameter | nn.Embedding) else None
    has_cls = isinstance(getattr(tower.embeddings, "class_embedding", None), nn.Parameter)
    # CLIP's post_layernorm sees the pooled token alone: no norm of the stream.
    norm = "post_layernorm" if config.model_type != "clip_vision_model" else ""
    norm = norm if child(tower, norm or "none") is not None else ""
    head = "classifier" if child(model, "classifier") is not None else None
    blocks = tuple(
        describe_block(model, index, path, **_PARTS)
        for index, path in enumerate(children_paths(model, f"{root}{_BLOCKS}"))
    )
    return Anatomy(
        model=model,
        family="hf_towers",
        kind="vision",
        blocks=blocks,
        embedding=tower.embeddings.patch_embedding,
        embedding_path=f"{root}embeddings.patch_embedding",
        embedding_tokens=_tokens,
        positions=positions,
        positions_path=f"{root}embeddings.position_embedding" if positions is not None else None,
        position_kind="learned" if positions is not None else "none",
        prefix_tokens=int(has_cls),
        has_cls=has_cls,
        reads="cls" if has_cls and head is None else "pooled",
        norm=child(tower, norm) if norm else None,
        norm_path=f"{root}{norm}" if norm else None,
        head=child(model, head) if head else None,
        head_path=head,
        width=int(config.hidden_size),
        heads=int(config.num_attention_heads),
        blocks_path=f"{root}{_BLOCKS}",
    )


__all__ = ["describe"]
