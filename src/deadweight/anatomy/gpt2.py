"""Our small GPT-2 (models/gpt2.py)."""

from __future__ import annotations

from typing import Any

from torch import nn

from deadweight.anatomy.describe import children_paths, describe_block
from deadweight.anatomy.parts import Anatomy


def describe(model: nn.Module) -> Anatomy | None:
    if not any(base.__module__ == "deadweight.models.gpt2" for base in type(model).__mro__):
        return None
    gpt: Any = model
    blocks = tuple(
        describe_block(model, index, path, attention=("attention",), mlp=("mlp",), norms=("norm1", "norm2"))
        for index, path in enumerate(children_paths(model, "blocks"))
    )
    return Anatomy(
        model=model,
        family="gpt2",
        kind="causal_lm",
        blocks=blocks,
        embedding=gpt.tokens,
        embedding_path="tokens",
        positions=gpt.positions,
        positions_path="positions",
        position_kind="learned",
        reads="last",
        norm=gpt.norm,
        norm_path="norm",
        head=gpt.head,
        head_path="head",
        width=int(gpt.tokens.weight.shape[1]),
        heads=int(gpt.config.heads),
        blocks_path="blocks",
    )
