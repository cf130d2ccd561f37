"""Taking whole blocks out of a model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from torch import nn

from deadweight.anatomy import Block, anatomy
from deadweight.errors import SurgeryError
from deadweight.models.unwrap import unwrapped
from deadweight.surgery.calibration import calibration
from deadweight.surgery.depth_bound import PLACE, check_place, check_runs, check_runs_still
from deadweight.surgery.groups import block_index
from deadweight.surgery.log import copy_unless_inplace, record
from deadweight.surgery.masks import copied
from deadweight.surgery.refit import check_refit, refit_outputs

Module = TypeVar("Module", bound=nn.Module)


def drop_blocks(
    model: Module,
    indices: int | Iterable[int],
    *,
    refit: str | None = None,
    batches: Iterable[Any] | None = None,
    inplace: bool = False,
) -> Module:
    """Take the blocks at `indices` out; the others keep their order.

    The depth in the config, its per-layer lists and the blocks' own numbers (``layer_idx``, ``layer_id``) follow, so
    that key-value caches and generation work on the shorter model. Of a language model it is tried once, without
    numbers, that the shorter one runs.

    Parameters
    ----------
    indices:
        Block indices; negative ones count from the end.
    refit:
        Fit the MLP output layer of the block before each gap so that it also does what the dropped ones did
        (``surgery/refit.py``): ``"layer"`` aims at their part in the original, ``"stream"`` at the original's stream.
    batches:
        Calibration inputs for it, without labels: a few dozen images, or some thousand tokens.

    Raises
    ------
    SurgeryError
        An index out of range, every block dropped, a block that changes the stream's width, or a model whose blocks
        are bound to their depth.

    Examples
    --------
    >>> import deadweight as dw
    >>> len(dw.drop_blocks(dw.load("embedded:digits-vit"), [2, 4]).blocks)
    4
    """
    model = unwrapped(model)
    parts = anatomy(model)
    blocks, depth = parts.blocks, parts.depth
    wanted = [indices] if isinstance(indices, int) else [int(index) for index in indices]
    dropped = sorted({block_index(index, depth) for index in wanted})
    if len(dropped) == depth:
        raise SurgeryError(
            f"all {depth} blocks would be dropped", expected="at least one block left", cure="name fewer blocks"
        )
    for index in dropped:
        _check_width(blocks[index], blocks[index + 1] if index + 1 < depth else None)
    kept = [index for index in range(depth) if index not in dropped]
    tried = True
    if dropped:
        check_place(parts, dropped)
        tried = check_runs(parts, dropped, lambda trial: _take_out(trial, kept))
    check_refit(refit)
    inputs = calibration(model, batches, f"refit={refit!r}") if refit is not None else []
    before_gaps = [place for place, index in enumerate(kept) if index + 1 in dropped]
    original = copied(model) if inplace and inputs and before_gaps else model
    model = copy_unless_inplace(model, inplace)
    _take_out(model, kept)
    if not tried and not inplace:
        check_runs_still(parts, dropped, model)
    if inputs and before_gaps:
        refit_outputs(model, original, inputs, target=str(refit), blocks=before_gaps, origins=kept)
    record(model, "drop_blocks", indices=dropped, **({} if refit is None else {"refit": refit}))
    return model


def _check_width(block: Block, after: Block | None) -> None:
    """Refuse a block that hands the next one of its list a stream of another width, as Hiera's do."""
    if after is None or block.path.rpartition(".")[0] != after.path.rpartition(".")[0]:
        return
    given, made = (getattr(one.norms[0], "normalized_shape", None) if one.norms else None for one in (block, after))
    if given != made:
        raise SurgeryError(
            f"block {block.index} ({block.path}) turns a stream of {given} into one of {made}",
            expected="a block whose output is as wide as its input",
            cure="drop its neighbours instead",
        )


def _take_out(model: nn.Module, kept: Sequence[int]) -> None:
    """Leave the blocks `kept`, and make what the model says about its depth true."""
    blocks = anatomy(model).blocks
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
    _note_depth(model, len(blocks), kept)


def _keep(container: nn.Module, leaves: list[str]) -> None:
    """Leave only the children named `leaves`, numbered anew where their names are numbers."""
    modules = [container.get_submodule(leaf) for leaf in leaves]
    names = [re.sub(r"\d+$", str(place), leaf) for place, leaf in enumerate(leaves)]
    container._modules.clear()
    for name, module in zip(names, modules, strict=True):
        container.add_module(name, module)


def _reindex(model: nn.Module, block: nn.Module, old: int, new: int) -> None:
    for module in block.modules():
        for name in [name for name, value in vars(module).items() if PLACE.match(name) and value == old]:
            setattr(module, name, new)  # a plain attribute of transformers' modules


def _note_depth(model: nn.Module, depth: int, kept: Sequence[int]) -> None:
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
    if hasattr(config, "attention_types") and hasattr(config, "attention_layers"):  # GPT-Neo: the list, spelt out
        per_layer["attention_layers"] = [config.attention_layers[index] for index in kept]
        per_layer["attention_types"] = [[[kind], 1] for kind in per_layer["attention_layers"]]
    _say_depth(config, len(kept))
    for name, value in per_layer.items():
        setattr(config, name, value)
    for module in model.modules():
        own: Any = getattr(module, "config", None)
        if own is not None and own is not config and getattr(own, "num_hidden_layers", None) == depth:
            _say_depth(own, len(kept))


def _say_depth(config: Any, depth: int) -> None:
    try:
        config.num_hidden_layers = depth
    except NotImplementedError:  # an encoder-decoder's, which has two such numbers
        config.num_decoder_layers = depth


def _set_if_int(module: nn.Module, name: str, value: int, only: int | None = None) -> None:
    old = getattr(module, name, None)
    if isinstance(old, int) and not isinstance(old, bool) and (only is None or old == only):
        setattr(module, name, value)
