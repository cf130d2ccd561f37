"""A model without its numbers."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def on_meta(model: Module) -> Module:
    """A copy that shares what the model shares and holds no numbers: the originals are never copied.

    >>> {weight.device.type for weight in on_meta(nn.Linear(2, 2)).parameters()}
    {'meta'}
    """
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in model.buffers():
        if buffer.is_floating_point():  # whole numbers and masks steer the pass: they keep their values
            memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)
