"""`anatomy(model)`: ask each adapter in turn, or take the module paths a user gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from deadweight.anatomy.parts import Anatomy
from deadweight.anatomy.paths import EXAMPLE, remember_paths, remembered_paths
from deadweight.errors import InputError
from deadweight.models.unwrap import unwrapped
from deadweight.registry import Registry

ADAPTERS: Registry[Callable[[nn.Module], Anatomy | None]] = Registry("adapter")
for _name in ("gpt2", "timm", "torchvision", "hf_swin", "hf_towers", "hf_vision", "hf_language", "torch_encoder"):
    ADAPTERS.add(_name, f"deadweight.anatomy.{_name}:describe")


def anatomy(model: nn.Module, *, paths: Mapping[str, Any] | None = None) -> Anatomy:
    """Where the parts of `model` are; of one inside DataParallel, DistributedDataParallel or torch.compile, where they
    are inside.

    Parameters
    ----------
    paths:
        For a model no adapter knows: ``{"blocks": "encoder.layers", "mlp": "ff", "attention": "attn", "up": ["w1"],
        "down": "w2", "embedding": "patchify", "positions": "pos", "norm": "ln", "head": "out", "prefix_tokens": 1,
        "kind": "vision", "reads": "cls"}``. Only ``blocks`` is required; ``embedding`` is the first layer with weights
        outside of them unless it is given. ``mlp``, ``attention`` and ``norms`` are relative to a block, ``up`` and
        ``down`` to the MLP. They are kept on the model, so that ``profile``, surgeries and ``compress`` find them too.

    Raises
    ------
    InputError
        The family is unknown, or a path leads nowhere; the message shows how to name the paths.
    """
    model = unwrapped(model)
    given = paths if paths is not None else remembered_paths(model)
    if given is not None:
        from deadweight.anatomy.by_paths import describe

        described = describe(model, given)
        remember_paths(model, given)
        return described
    for name in ADAPTERS:
        found = ADAPTERS.get(name)(model)
        if found is not None:
            return found
    if not _attends(model):
        raise InputError(
            f"a {type(model).__name__} has no transformer blocks: there is no attention in it",
            expected="a transformer",
            cure="what is examined here are blocks of attention and MLP; if it has them, say where they are with paths",
        )
    children = ", ".join(name for name, _ in model.named_children()) or "none"
    raise InputError(
        f"no adapter knows the parts of a {type(model).__name__} (its children: {children})",
        expected=f"a model of a known family ({', '.join(ADAPTERS.names())}) or the paths of its parts",
        cure=f"say where they are: --paths {EXAMPLE}, or in Python "
        'dw.anatomy(model, paths={"blocks": "encoder.layers", "embedding": "patchify", "mlp": "ff", …})',
    )


def _attends(model: nn.Module) -> bool:
    """Whether anything in it is called attention; a class of one's own may call it what it likes."""
    if not type(model).__module__.startswith(("timm.", "torchvision.", "transformers.")):
        return True
    names = (f"{type(module).__name__} {path}".lower() for path, module in model.named_modules())
    return any("attention" in name or "attn" in name for name in names)
