"""The model inside what training puts around it."""

from __future__ import annotations

from typing import Any

from torch import nn

_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


def unwrapped(model: Any) -> Any:
    """`model` without data parallelism and torch.compile around it; the module inside is the same one.

    >>> inside = nn.Linear(2, 2)
    >>> unwrapped(nn.DataParallel(inside)) is inside
    True
    """
    while isinstance(model, nn.Module) and (name := _inside(model)) is not None:
        model = getattr(model, name)
    return model


def _inside(model: nn.Module) -> str | None:
    kind = type(model)
    return _WRAPPERS.get(kind.__name__) if kind.__module__.startswith("torch.") else None


__all__ = ["unwrapped"]
