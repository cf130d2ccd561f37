"""The surgery log: what was done to a model, kept on the model itself so that a saved one can be rebuilt."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from deadweight.models.unwrap import unwrapped
from deadweight.registry import Registry
from deadweight.surgery.architecture import remember
from deadweight.surgery.masks import copied, make_permanent

_ATTRIBUTE = "_deadweight_surgeries"
_SHAPE_ONLY: dict[str, Any] = {
    "refit": None,
    "by": "first",
    "merge": "first",
    "readout": None,
}  # arguments that decide weights only
Module = TypeVar("Module", bound=nn.Module)

SURGERIES: Registry[Callable[..., nn.Module]] = Registry("surgery")
SURGERIES.add("group_mlps", "deadweight.surgery.mlps:group_mlps")
SURGERIES.add("shallow_mlps", "deadweight.surgery.mlps:shallow_mlps")
SURGERIES.add("drop_blocks", "deadweight.surgery.blocks:drop_blocks")
SURGERIES.add("early_exit", "deadweight.surgery.early_exit:early_exit")
SURGERIES.add("swap_attention", "deadweight.surgery.attention:swap_attention")
SURGERIES.add("scale_positions", "deadweight.surgery.positions:scale_positions")


def surgeries(model: nn.Module) -> list[dict[str, Any]]:
    """What was done to `model`, oldest first: ``[{"name": "group_mlps", "arguments": {…}}, …]``.

    >>> import deadweight as dw
    >>> dw.surgeries(dw.drop_blocks(dw.load("embedded:digits-vit"), [1]))[0]["name"]
    'drop_blocks'
    """
    return copy.deepcopy(getattr(model, _ATTRIBUTE, []))


def copy_unless_inplace(model: Module, inplace: bool) -> Module:
    """The module a surgery works on: `model` itself, or a deep copy that shares nothing with it.

    Of one inside DataParallel, DistributedDataParallel or torch.compile it is the one inside. Pruning masks are made
    permanent in it, with a warning.
    """
    model = unwrapped(model)
    remember(model)
    model = model if inplace else copied(model)
    make_permanent(model)
    return model


def record(model: nn.Module, name: str, /, **arguments: Any) -> None:
    """Append one surgery; the arguments must be JSON values. What was measured before no longer holds."""
    model.__dict__.pop("compression", None)
    log = [*surgeries(model), json.loads(json.dumps({"name": name, "arguments": arguments}))]
    setattr(model, _ATTRIBUTE, log)


def replay(model: nn.Module, log: list[dict[str, Any]]) -> nn.Module:
    """Do the surgeries of `log` to `model`, in place; the weights are the caller's to fill in, so no warnings, and
    nothing that only decides weights is done again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for entry in log:
            arguments = {name: _SHAPE_ONLY.get(name, value) for name, value in entry["arguments"].items()}
            model = SURGERIES.get(entry["name"])(model, **arguments, inplace=True)
            setattr(model, _ATTRIBUTE, [*surgeries(model)[:-1], copy.deepcopy(entry)])
    return model
