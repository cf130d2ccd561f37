"""torchvision's VisionTransformer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deadweight.anatomy.describe import children_paths, describe_block
from deadweight.anatomy.parts import Anatomy


def _tokens(feature_map: Tensor) -> Tensor:
    """conv_proj's (B, D, H, W) as (B, N, D)."""
    return feature_map.flatten(2).transpose(1, 2)


def describe(model: nn.Module) -> Anatomy | None:
    if type(model).__module__ != "torchvision.models.vision_transformer":
        return None
    vit: Any = model
    blocks = tuple(
        describe_block(model, index, path, attention=("self_attention",), mlp=("mlp",), norms=("ln_1", "ln_2"))
        for index, path in enumerate(children_paths(model, "encoder.layers"))
    )
    return Anatomy(
        model=model,
        family="torchvision",
        kind="vision",
        blocks=blocks,
        embedding=vit.conv_proj,
        embedding_path="conv_proj",
        embedding_tokens=_tokens,
        positions=vit.encoder.pos_embedding,
        positions_path="encoder.pos_embedding",
        position_kind="learned",
        prefix_tokens=1,
        has_cls=True,
        reads="cls",
        norm=vit.encoder.ln,
        norm_path="encoder.ln",
        head=vit.heads,
        head_path="heads",
        width=int(vit.hidden_dim),
        heads=int(vit.encoder.layers[0].num_heads),
        blocks_path="encoder.layers",
    )
