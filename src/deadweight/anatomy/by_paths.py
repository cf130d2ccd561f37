"""Any model, by the module paths its owner gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from deadweight.anatomy.describe import child, children_paths, describe_block, first_layer
from deadweight.anatomy.parts import Anatomy
from deadweight.errors import InputError
from deadweight.registry import did_you_mean

_KNOWN = {
    "blocks", "embedding", "mlp", "attention", "norms", "up", "down", "positions",
    "norm", "head", "prefix_tokens", "kind", "reads", "has_cls", "heads",
}  # fmt: skip


def _at(model: nn.Module, paths: Mapping[str, Any], key: str) -> nn.Module | None:
    if key not in paths:
        return None
    found = child(model, paths[key])
    if found is None:
        known = [name for name, _ in model.named_modules() if name.count(".") < 2 and name]
        raise InputError(
            f"paths[{key!r}] = {paths[key]!r} leads nowhere in this {type(model).__name__}",
            expected="the path of a submodule",
            cure=did_you_mean(str(paths[key]), known),
        )
    return found


def _patches(tokens: Tensor) -> Tensor:
    """(B, N, D) from whatever an embedding gives: (B, D, H, W) feature maps are flattened."""
    return tokens.flatten(2).transpose(1, 2) if tokens.dim() == 4 else tokens


def _as_list(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def describe(model: nn.Module, paths: Mapping[str, Any]) -> Anatomy:
    for key in paths:
        if key not in _KNOWN:
            raise InputError(
                f"unknown key {key!r} in paths",
                expected=f"keys among {', '.join(sorted(_KNOWN))}",
                cure=did_you_mean(key, sorted(_KNOWN)),
            )
    if "blocks" not in paths:
        raise InputError("paths has no 'blocks'", expected="at least blocks", cure="name the list of the blocks")
    container = _at(model, paths, "blocks")
    assert container is not None
    embedding_path, embedding = paths.get("embedding", ""), _at(model, paths, "embedding")
    if embedding is None:
        embedding_path, embedding = first_layer(model, paths["blocks"]) or ("", nn.Identity())
    names = (tuple(_as_list(paths["up"])), str(paths["down"])) if "up" in paths and "down" in paths else None
    blocks = tuple(
        describe_block(
            model,
            index,
            path,
            attention=_as_list(paths.get("attention", ())),
            mlp=_as_list(paths.get("mlp", ())),
            norms=_as_list(paths.get("norms", ())),
            names=names,
        )
        for index, path in enumerate(children_paths(model, paths["blocks"]))
    )
    if not blocks:
        raise InputError(f"{paths['blocks']!r} holds no blocks", expected="a ModuleList or Sequential of blocks")
    for key in ("mlp", "attention"):
        if key in paths and getattr(blocks[0], key) is None:
            raise InputError(
                f"paths[{key!r}] = {paths[key]!r} leads nowhere in the block {blocks[0].path}",
                expected="a path relative to the block",
                cure=did_you_mean(str(paths[key]), [name for name, _ in blocks[0].module.named_children()]),
            )
    positions: nn.Module | nn.Parameter | None = None
    if "positions" in paths:
        owner, _, leaf = str(paths["positions"]).rpartition(".")
        parent = child(model, owner)
        positions = getattr(parent, leaf, None) if parent is not None else None
        if positions is None:
            _at(model, paths, "positions")
    prefix = int(paths.get("prefix_tokens", 0))
    norm = _at(model, paths, "norm")
    weights = [weight for weight in (norm or blocks[0].module).parameters() if weight.dim() == 1]
    return Anatomy(
        model=model,
        family="paths",
        kind=paths.get("kind", "vision"),
        blocks=blocks,
        embedding=embedding,
        embedding_path=embedding_path,
        embedding_tokens=_patches,
        positions=positions,
        positions_path=paths.get("positions"),
        position_kind="learned" if positions is not None else "none",
        prefix_tokens=prefix,
        has_cls=bool(paths.get("has_cls", prefix > 0)),
        reads=paths.get("reads", "cls" if prefix else "pooled"),
        norm=norm,
        norm_path=paths.get("norm"),
        head=_at(model, paths, "head"),
        head_path=paths.get("head"),
        width=int(weights[0].numel()) if weights else 0,
        heads=int(paths.get("heads", 0)),
        blocks_path=paths["blocks"],
    )
