"""Models around torch.nn.TransformerEncoder, or around a list of its layers."""

from __future__ import annotations

from typing import Any

from torch import nn

from deadweight.anatomy.describe import children_paths, describe_block, first_layer
from deadweight.anatomy.parts import Anatomy
from deadweight.errors import InputError


def describe(model: nn.Module) -> Anatomy | None:
    """The encoder's layers as blocks. Their linear layers lie in the block itself, so that there is no MLP to share or
    narrow; everything else works.
    """
    found = _encoder(model)
    if found is None:
        return None
    container, norm_path = found
    layers: Any = list(model.get_submodule(container).children())
    if not layers[0].self_attn.batch_first:
        raise InputError(
            f"the {type(layers[0]).__name__}s of {container or type(model).__name__} take (tokens, batch, width)",
            expected="batch_first=True: (batch, tokens, width)",
            cure="build them with batch_first=True; the weights are the same",
        )
    blocks = tuple(
        describe_block(model, index, path, attention=("self_attn",), mlp=(), norms=("norm1", "norm2"))
        for index, path in enumerate(children_paths(model, container))
    )
    path, embedding = first_layer(model, container) or ("", nn.Identity())
    if isinstance(embedding, nn.Embedding):  # a text: whether it reads both ways only its owner knows
        return None
    head = _head(model, container)
    return Anatomy(
        model=model,
        family="torch_encoder",
        kind="vision",
        blocks=blocks,
        embedding=embedding,
        embedding_path=path,
        embedding_tokens=lambda tokens: tokens.flatten(2).transpose(1, 2) if tokens.dim() == 4 else tokens,
        position_kind="none",
        reads="pooled",
        norm=model.get_submodule(norm_path) if norm_path else None,
        norm_path=norm_path,
        head=model.get_submodule(head) if head else None,
        head_path=head,
        width=int(layers[0].norm1.normalized_shape[0]),
        heads=int(layers[0].self_attn.num_heads),
        blocks_path=container,
    )


def _encoder(model: nn.Module) -> tuple[str, str | None] | None:
    """(path of the list of layers, path of the final norm) of the one encoder there is."""
    lists = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and len(module)
        and all(isinstance(layer, nn.TransformerEncoderLayer) for layer in module)
    ]
    if len(lists) != 1:
        return None
    owner = lists[0].rpartition(".")[0]
    encoder = model.get_submodule(owner)
    norm = isinstance(encoder, nn.TransformerEncoder) and encoder.norm is not None
    return lists[0], (f"{owner}.norm" if owner else "norm") if norm else None


def _head(model: nn.Module, container: str) -> str | None:
    """The last linear layer outside of the blocks, where it is the last module of the model."""
    outside = [name for name, module in model.named_modules() if name and not list(module.children())]
    last = outside[-1] if outside else ""
    is_head = isinstance(model.get_submodule(last), nn.Linear) and not last.startswith(f"{container}.")
    return last if last and is_head else None


__all__ = ["describe"]
