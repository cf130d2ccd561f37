"""What in a model is bound to the number or the place of its blocks."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from deadweight.anatomy import Anatomy
from deadweight.errors import SurgeryError
from deadweight.models.meta import on_meta
from deadweight.surgery.calibration import evaluating

# What modules call the number of the block they belong to.
PLACE = re.compile(r"^(layer|block)_?(idx|id|index|number|num|no)$")
# What configurations call things that blocks hand each other beside the stream.
_HANDED_ON = {
    "indexer_types": "some layers use the tokens that another layer chose",
    "num_kv_shared_layers": "the last layers use the keys and values of others",
    "n_layers_per_attn_res_block": "residuals reach over several layers",
}
_TRIED: set[tuple[type, str, bool]] = set()


def check_place(parts: Anatomy, dropped: Sequence[int]) -> None:
    """Refuse models that compute with the number of a block, or hold one table per depth."""
    model = parts.model
    moved = dropped[0] + len(dropped) < parts.depth  # something behind the first gap stays
    config: Any = getattr(model, "config", None)
    if getattr(model, "rope_mixed", False):
        raise SurgeryError(
            f"block {dropped[0]} cannot be dropped: this model's rotary embedding holds one table per depth",
            expected="a model whose blocks do not know their depth",
        )
    if moved and getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise SurgeryError(
            f"block {dropped[0]} cannot be dropped: the attention of the later ones is divided by their number "
            "(scale_attn_by_inverse_layer_idx)",
            expected="a model whose blocks do not compute with their place",
            cure="drop blocks from the end",
        )

    for name, value in _HANDED_ON.items():
        told = getattr(config, name, None)
        if told and (not isinstance(told, list) or "shared" in told):
            raise SurgeryError(
                f"block {dropped[0]} cannot be dropped: {value} ({name})",
                expected="a model whose blocks hand each other nothing but the stream",
                cure="group_mlps and shallow_mlps leave the depth as it is",
            )


def check_runs(parts: Anatomy, dropped: Sequence[int], cut: Callable[[nn.Module], None]) -> bool:
    """Try `cut` on a copy of a language model without numbers: what ran whole has to run without the blocks.

    Once per configuration and kind of cut. False where it could not be tried: the model needs its numbers to run.

    Raises :class:`SurgeryError` that names the weights bound to the depth.
    """
    model: Any = parts.model
    if parts.kind != "causal_lm" or not hasattr(model, "config"):
        return True
    key = (type(model), str(model.config), dropped[-1] == parts.depth - 1)
    if key in _TRIED:
        return True
    try:
        whole = on_meta(model).eval()
        whole.config = copy.deepcopy(model.config)
        _call(whole)
    except Exception:  # it needs its numbers, or other inputs: nothing is learned from it
        return False
    cut(whole)
    _check_call(parts, dropped, whole)
    _TRIED.add(key)
    return True


def check_runs_still(parts: Anatomy, dropped: Sequence[int], shorter: nn.Module) -> None:
    """The same with numbers, of a `shorter` copy that is there already."""
    try:
        _call(parts.model)
    except Exception:  # it takes other inputs
        return
    _check_call(parts, dropped, shorter)


def _check_call(parts: Anatomy, dropped: Sequence[int], shorter: nn.Module) -> None:
    model = parts.model
    try:
        _call(shorter)
    except Exception as problem:
        bound = [name for name, _ in model.named_parameters() if "per_layer" in name and not _inside(parts, name)]
        raise SurgeryError(
            f"{type(model).__name__} does not run without block {dropped[0]}: "
            + (f"{', '.join(bound)} hold a part for each block" if bound else str(problem).splitlines()[0][:200]),
            expected="a model whose other parts are not bound to its depth",
            cure="group_mlps and shallow_mlps leave the depth as it is",
        ) from problem


def _inside(parts: Anatomy, name: str) -> bool:
    return any(name.startswith(f"{block.path}.") for block in parts.blocks)


@torch.no_grad()
def _call(model: nn.Module) -> None:
    """As it is called by default, with a cache."""
    with evaluating(model):
        model(input_ids=torch.tensor([[1, 2, 1]], device=next(model.parameters()).device))
