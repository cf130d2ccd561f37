"""`anatomy(model)`: ask each adapter in turn, or take the module paths a user gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from deadweight.anatomy.parts import Anatomy
from deadweight.errors import InputError
from deadweight.registry import Registry

ADAPTERS: Registry[Callable[[nn.Module], Anatomy | None]] = Registry("adapter")
for _name in ("gpt2", "timm", "torchvision", "hf_vision", "hf_language"):
    ADAPTERS.add(_name, f"deadweight.anatomy.{_name}:describe")


def anatomy(model: nn.Module, *, paths: Mapping[str, Any] | None = None) -> Anatomy:
    """Where the parts of `model` are.

    Parameters
    ----------
    paths:
        For a model no adapter knows: ``{"blocks": "encoder.layers", "mlp": "ff", "attention": "attn",
        "up": ["w1"], "down": "w2", "embedding": "patchify", "positions": "pos", "norm": "ln", "head": "out",
        "prefix_tokens": 1, "kind": "vision", "reads": "cls"}``. Only ``blocks`` and ``embedding`` are required;
        ``mlp``, ``attention`` and ``norms`` are relative to a block, ``up`` and ``down`` to the MLP.

    Raises
    ------
    InputError
        The family is unknown, or a path leads nowhere; the message shows how to name the paths.
    """
    if paths is not None:
        from deadweight.anatomy.by_paths import describe

        return describe(model, paths)
    for name in ADAPTERS:
        found = ADAPTERS.get(name)(model)
        if found is not None:
            return found
    wrapped = getattr(model, "module", None)
    if isinstance(wrapped, nn.Module) and len(list(model.children())) == 1:  # DataParallel and its kind
        raise InputError(
            f"a {type(model).__name__} around a {type(wrapped).__name__}",
            expected="the model itself",
            cure="pass what it wraps: model.module",
        )
    children = ", ".join(name for name, _ in model.named_children()) or "none"
    raise InputError(
        f"no adapter knows the parts of a {type(model).__name__} (its children: {children})",
        expected=f"a model of a known family ({', '.join(ADAPTERS.names())}) or the paths of its parts",
        cure='pass paths, for example dw.anatomy(model, paths={"blocks": "encoder.layers", '
        '"embedding": "patchify", "mlp": "ff", "up": ["w1"], "down": "w2", "attention": "attn"})',
    )
