"""Keeping what a model says about its MLPs true after they were narrowed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from torch import nn

_WIDTH_FIELDS = ("intermediate_size", "n_inner", "ffn_dim", "mlp_dim")


def note_width(model: nn.Module, width: int, changes: set[tuple[int, int]]) -> None:
    """Write the new number of hidden units where `model` keeps it; `changes` holds (old, new) pairs.

    Models whose MLPs differ in width (Swin) have no one number to correct, and a config that knows only whole
    ratios (DINOv2's) cannot say a fraction: those stay as they are.
    """
    if len(changes) != 1:
        return
    old, new = next(iter(changes))
    holder: Any = model
    for name in ("mlp_dim",):
        if getattr(holder, name, None) == old:
            setattr(holder, name, new)
    config: Any = getattr(model, "config", None)
    if config is None:
        return
    if dataclasses.is_dataclass(config) and hasattr(config, "hidden") and not hasattr(config, "to_dict"):
        holder.config = dataclasses.replace(config, hidden=new)  # type: ignore[type-var]
        return
    for name in _WIDTH_FIELDS:
        if hasattr(config, name):
            setattr(config, name, new)
    ratio = getattr(config, "mlp_ratio", None)
    if ratio is not None and int(width * ratio) == old and (isinstance(ratio, float) or new % width == 0):
        config.mlp_ratio = new // width if new % width == 0 else exact_ratio(width, new)


def exact_ratio(width: int, hidden: int) -> float:
    """The ratio near hidden / width for which int(width · ratio) is `hidden` in floating point."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)
