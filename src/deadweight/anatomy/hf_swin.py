"""Hugging Face's Swin and Swin v2: stages of blocks, with a merging of patches between them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deadweight.anatomy.describe import Names, child, children_paths, describe_block
from deadweight.anatomy.parts import Anatomy

_PARTS: Names = {"attention": ("attention",), "mlp": ("mlp",), "norms": ("layernorm_before", "layernorm_after")}


def _tokens(output: Any) -> Tensor:
    """The patch embedding gives (B, N, D) and the size of the grid."""
    tokens: Tensor = output[0] if isinstance(output, tuple) else output
    return tokens


def describe(model: nn.Module) -> Anatomy | None:
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "depths") or not hasattr(config, "window_size"):
        return None
    prefix_name = str(getattr(model, "base_model_prefix", ""))
    root = f"{prefix_name}." if child(model, prefix_name or "none") is not None else ""
    base: Any = child(model, prefix_name) if root else model
    if child(base, "encoder.layers.0.blocks") is None or child(base, "embeddings.patch_embeddings") is None:
        return None
    stages = children_paths(model, f"{root}encoder.layers")
    paths = [path for stage in stages for path in children_paths(model, f"{stage}.blocks")]
    positions = getattr(base.embeddings, "position_embeddings", None)
    learned = isinstance(positions, nn.Parameter)
    head = "classifier" if isinstance(child(model, "classifier"), nn.Linear) else None
    return Anatomy(
        model=model,
        family="hf_swin",
        kind="vision",
        blocks=tuple(describe_block(model, index, path, **_PARTS) for index, path in enumerate(paths)),
        embedding=base.embeddings.patch_embeddings,
        embedding_path=f"{root}embeddings.patch_embeddings",
        embedding_tokens=_tokens,
        positions=positions if learned else None,
        positions_path=f"{root}embeddings.position_embeddings" if learned else None,
        position_kind="learned" if learned else "relative",
        reads="pooled",
        norm=base.layernorm,
        norm_path=f"{root}layernorm",
        head=child(model, head) if head else None,
        head_path=head,
        width=int(config.hidden_size),
    )


__all__ = ["describe"]
