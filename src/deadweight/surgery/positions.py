"""Turning the positional encoding up or down."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn

from deadweight.anatomy import anatomy
from deadweight.errors import InputError, SurgeryError
from deadweight.models.unwrap import unwrapped
from deadweight.surgery.log import copy_unless_inplace, record

Module = TypeVar("Module", bound=nn.Module)


def scale_positions(model: Module, factor: float, *, inplace: bool = False) -> Module:
    """Multiply the learned positional encoding by `factor`; 0 takes it away.

    Raises
    ------
    SurgeryError
        The model has no learned absolute positions to scale (rotary, relative or none).

    >>> import deadweight as dw
    >>> model = dw.load("embedded:digits-vit")
    >>> bool((dw.scale_positions(model, 0.5).pos_embed == 0.5 * model.pos_embed).all())
    True
    """
    if not math.isfinite(factor):
        raise InputError(f"factor {factor}", expected="a finite number")
    model = unwrapped(model)
    parts = anatomy(model)
    if parts.positions is None:
        raise SurgeryError(
            f"this {type(model).__name__} has no learned positional encoding (its positions: {parts.position_kind})",
            expected="a table of positions that is added to the tokens",
            cure="scale_positions works on ViT, DeiT and GPT-2 types",
        )
    model = copy_unless_inplace(model, inplace)
    positions = anatomy(model).positions
    assert positions is not None
    with torch.no_grad():
        for weight in [positions] if isinstance(positions, nn.Parameter) else positions.parameters():
            weight.mul_(factor)
    record(model, "scale_positions", factor=float(factor))
    return model
