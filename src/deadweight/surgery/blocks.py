"""Taking whole blocks out of a model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from torch import nn

from deadweight.anatomy import anatomy
from deadweight.errors import SurgeryError
from deadweight.surgery.groups import block_index
from deadweight.surgery.log import patient, record

Module = TypeVar("Module", bound=nn.Module)


def drop_blocks(model: Module, indices: int | Iterable[int], *, inplace: bool = False) -> Module:
    """Take the blocks at `indices` out; the others keep their order.

    The depth in the config, its per-layer lists and every ``layer_idx`` follow, so that key-value caches and
    generation work on the shorter model.

    Parameters
    ----------
    indices:
        Block indices; negative ones count from the end.

    Raises
    ------
    SurgeryError
        An index out of range, every block dropped, or a model whose blocks are bound to their depth.
    """
    blocks = anatomy(model).blocks
    depth = len(blocks)
    wanted = [indices] if isinstance(indices, int) else [int(index) for index in indices]
    dropped = sorted({block_index(index, depth) for index in wanted})
    if len(dropped) == depth:
        raise SurgeryError(
            f"all {depth} blocks would be dropped", expected="at least one block left", cure="name fewer blocks"
        )
    if dropped and getattr(model, "rope_mixed", False):
        raise SurgeryError(
            f"block {dropped[0]} cannot be dropped: this model's rotary embedding holds one table a depth",
            expected="a model whose blocks do not know their depth",
        )
    model = patient(model, inplace)
    kept = [index for index in range(depth) if index not in dropped]
    containers: dict[str, list[str]] = {}
    for block in blocks:
        owner, _, leaf = block.path.rpartition(".")
        containers.setdefault(owner, [])
        if block.index in kept:
            containers[owner].append(leaf)
    for owner, leaves in containers.items():
        container = model.get_submodule(owner)
        _keep(container, leaves)
        _set_if_int(model.get_submodule(owner.rpartition(".")[0]), "depth", len(leaves))
    for new, old in enumerate(kept):
        _reindex(model, anatomy(model).blocks[new].module, old, new)
    _note_depth(model, depth, kept)
    record(model, "drop_blocks", indices=dropped)
    return model


def _keep(container: nn.Module, leaves: list[str]) -> None:
    """Leave only the children named `leaves`, numbered anew where their names are numbers."""
    modules = [container.get_submodule(leaf) for leaf in leaves]
    names = [re.sub(r"\d+$", str(place), leaf) for place, leaf in enumerate(leaves)]
    container._modules.clear()
    for name, module in zip(names, modules, strict=True):
        container.add_module(name, module)


def _reindex(model: nn.Module, block: nn.Module, old: int, new: int) -> None:
    for module in block.modules():
        if getattr(module, "layer_idx", None) == old:
            module.layer_idx = new  # type: ignore[assignment]  # a plain attribute of transformers' modules


def _note_depth(model: nn.Module, depth: int, kept: list[int]) -> None:
    for name in ("depth", "num_layers"):
        _set_if_int(model, name, len(kept), only=depth)
    features: Any = getattr(model, "feature_info", None)
    if isinstance(features, list) and len(features) == depth:
        model.feature_info = features[: len(kept)]  # type: ignore[assignment]  # timm's list of dicts
    config: Any = getattr(model, "config", None)
    if dataclasses.is_dataclass(config) and getattr(config, "depth", None) == depth:
        holder: Any = model
        holder.config = dataclasses.replace(config, depth=len(kept))  # type: ignore[type-var]  # an instance, not a class
    if config is None or not hasattr(config, "to_dict"):
        return
    per_layer = {
        name: [value[index] for index in kept]
        for name, value in config.to_dict().items()
        if "layer" in name and isinstance(value, list) and len(value) == depth
    }
    config.num_hidden_layers = len(kept)
    for name, value in per_layer.items():
        setattr(config, name, value)
    for module in model.modules():
        own: Any = getattr(module, "config", None)
        if own is not None and own is not config and getattr(own, "num_hidden_layers", None) == depth:
            own.num_hidden_layers = len(kept)


def _set_if_int(module: nn.Module, name: str, value: int, only: int | None = None) -> None:
    old = getattr(module, name, None)
    if isinstance(old, int) and not isinstance(old, bool) and (only is None or old == only):
        setattr(module, name, value)
