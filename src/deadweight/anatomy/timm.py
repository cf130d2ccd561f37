"""timm's vision transformers: ViT, DeiT, BEiT, EVA, DINOv2 and Swin."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deadweight.anatomy.describe import Names, children_paths, describe_block
from deadweight.anatomy.parts import Anatomy, Positions

_PARTS: Names = {"attention": ("attn",), "mlp": ("mlp",), "norms": ("norm1", "norm2")}


def _tokens(output: Tensor | tuple[Tensor, Any]) -> Tensor:
    """Patch embeddings as (B, N, D): dynamic-size and Swin models give (B, H, W, D), XCiT the grid's size too."""
    if isinstance(output, tuple):
        output = output[0]
    return output.flatten(1, 2) if output.dim() == 4 else output


def describe(model: nn.Module) -> Anatomy | None:
    if not type(model).__module__.startswith("timm.") or not hasattr(model, "patch_embed"):
        return None
    vit: Any = model
    if isinstance(getattr(vit, "embed_dim", None), list | tuple):  # CrossViT: two streams
        return None
    if hasattr(vit, "blocks"):
        paths = children_paths(model, "blocks")
    elif hasattr(vit, "layers") and all(hasattr(stage, "blocks") for stage in vit.layers):
        paths = [path for stage in children_paths(model, "layers") for path in children_paths(model, f"{stage}.blocks")]
    else:
        return None
    blocks = tuple(describe_block(model, index, path, **_PARTS) for index, path in enumerate(paths))
    positions = getattr(vit, "pos_embed", None)
    kind: Positions = "learned" if isinstance(positions, nn.Parameter) else "none"
    if positions is None and getattr(vit, "rope", None) is not None:
        kind = "rotary"
    elif positions is None and any("rel_pos" in name or "relative" in name for name, _ in model.named_parameters()):
        kind = "relative"
    prefix = int(getattr(vit, "num_prefix_tokens", 0))
    head_name = next((name for name in ("head", "fc") if hasattr(vit, name)), None)
    attention: Any = blocks[0].attention
    return Anatomy(
        model=model,
        family="timm",
        kind="vision",
        blocks=blocks,
        embedding=vit.patch_embed,
        embedding_path="patch_embed",
        embedding_tokens=_tokens,
        positions=positions if isinstance(positions, nn.Parameter) else None,
        positions_path="pos_embed" if isinstance(positions, nn.Parameter) else None,
        position_kind=kind,
        prefix_tokens=prefix,
        has_cls=getattr(vit, "cls_token", None) is not None,
        reads="cls" if getattr(vit, "global_pool", "") == "token" and prefix else "pooled",
        norm=getattr(vit, "norm", None),
        norm_path="norm" if hasattr(vit, "norm") else None,
        head=getattr(vit, head_name) if head_name else None,
        head_path=head_name,
        width=int(vit.embed_dim if hasattr(vit, "embed_dim") else vit.num_features),
        heads=int(getattr(attention, "num_heads", 0)),
        blocks_path="blocks" if hasattr(vit, "blocks") else None,
    )
